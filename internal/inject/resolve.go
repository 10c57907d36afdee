package inject

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// A placed is an error with its place in the text of a document.
type placed struct {
	line, column int // from 1
	err          error
}

func (p *placed) Error() string {
	return fmt.Sprintf("line %d, column %d: %v", p.line, p.column, p.err)
}

func (p *placed) Unwrap() error { return p.err }

// placedAt puts a node's place to an error; those of JSON have none.
func placedAt(n *yaml.Node, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if n.Line == 0 {
		return err
	}
	return &placed{n.Line, n.Column, err}
}

// named puts an object's name before what is wrong with it, behind the place if there
// is one.
func named(name string, err error) error {
	if p := (*placed)(nil); errors.As(err, &p) {
		return &placed{p.line, p.column, fmt.Errorf("%s: %w", name, p.err)}
	}
	return fmt.Errorf("%s: %w", name, err)
}

// A resolver copies a document with what its aliases stand for in their place, so that
// a change of one place is none of another, and with what its merge keys bring
// (https://yaml.org/type/merge.html). Aliases are pointers, of which a few bytes can make
// trees without end: it bounds what it makes.
type resolver struct {
	left *int                // how many nodes may still be made
	open map[*yaml.Node]bool // anchors that it is within
}

// resolve returns the document without aliases and merge keys, of at most left nodes,
// which become fewer by those that it has made.
func resolve(root *yaml.Node, left *int) (*yaml.Node, error) {
	if !indirect(root) {
		return root, nil
	}
	r := &resolver{left: left, open: map[*yaml.Node]bool{}}
	return r.copy(root, 0)
}

// indirect reports whether there is an alias or a merge key in a node.
func indirect(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || n.Kind == yaml.ScalarNode && n.Tag == mergeTag || slices.ContainsFunc(n.Content, indirect)
}

// mergeTag is that of a plain << in the place of a key.
const mergeTag = "!!merge"

// copy returns a node as it stands for itself.
func (r *resolver) copy(n *yaml.Node, depth int) (*yaml.Node, error) {
	if *r.left--; *r.left < 0 {
		return nil, placedAt(n, "here the manifest has become too large: its documents that have aliases have, with what these stand for, more than %d values", maxNodes)
	}
	if depth > maxDepth {
		return nil, placedAt(n, "is nested more than %d deep", maxDepth)
	}
	from := n
	if n = target(n); r.open[n] {
		return nil, placedAt(from, "the alias *%s stands for what it is a part of, and so for something without an end: write out what is meant", plain(n.Anchor))
	}
	if n.Anchor != "" {
		r.open[n] = true
		defer delete(r.open, n)
	}
	out := *n
	out.Anchor = ""
	out.Content = nil
	if n.Kind == yaml.MappingNode {
		pairs, err := r.pairs(n, depth)
		out.Content = pairs
		return &out, err
	}
	for _, c := range n.Content {
		child, err := r.copy(c, depth+1)
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, child)
	}
	return &out, nil
}

// pairs returns a mapping's own keys and values, and behind them those that merge keys
// bring and it has not.
func (r *resolver) pairs(n *yaml.Node, depth int) (list []*yaml.Node, _ error) {
	own := map[string]bool{}
	var merged []*yaml.Node // mappings
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		merge := key.Kind == yaml.ScalarNode && key.Tag == mergeTag
		if merge && target(n.Content[i+1]).Kind != yaml.MappingNode {
			return nil, placedAt(key, "a merge key (<<) of anything but one mapping is not understood here: write the keys themselves")
		}
		value, err := r.copy(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		if merge {
			merged = append(merged, value)
			continue
		}
		if key, err = r.copy(key, depth+1); err != nil {
			return nil, err
		}
		own[key.Value] = true
		list = append(list, key, value)
	}
	for _, m := range merged {
		for i := 0; i+1 < len(m.Content); i += 2 {
			if key := m.Content[i].Value; !own[key] {
				own[key] = true
				list = append(list, m.Content[i], m.Content[i+1])
			}
		}
	}
	return list, nil
}
