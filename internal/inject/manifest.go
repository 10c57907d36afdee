package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxManifest bounds what [Injector.Manifest] reads, in bytes.
const MaxManifest = 16 << 20

// A Change is what was done to one object of a manifest.
type Change struct {
	Object   string   // as in "Deployment shop/orders"
	Sidecars []string // that its pods have now; empty: they were taken out
	Warnings []string
}

// Manifest does to each object of a manifest what [Injector.Object] does. The manifest
// is YAML of several documents, or JSON; of a List, each item is looked at. Objects
// to which nothing is done stay as they are, byte for byte; others keep their keys'
// order and their comments. file names it in errors, which join all faults; with
// one, there is no output.
func (in *Injector) Manifest(file string, manifest []byte) ([]byte, []Change, error) {
	if len(manifest) > MaxManifest {
		return nil, nil, fmt.Errorf("%s: has more than %d bytes", file, MaxManifest)
	}
	split := splitYAML
	if strings.HasPrefix(strings.TrimLeft(string(manifest), " \t\r\n\ufeff"), "{") {
		split = splitJSON
	}
	documents, err := split(manifest)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	var out bytes.Buffer
	var changes []Change
	var faults []error
	left := maxNodes
	for _, d := range documents {
		text, changed, wrong := in.document(d, &left)
		for _, err := range wrong {
			faults = append(faults, d.located(file, err))
		}
		if len(faults) >= maxFaults {
			return nil, nil, errors.Join(append(faults[:maxFaults], errMore)...)
		}
		changes = append(changes, changed...)
		out.Write(text)
	}
	if len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	return out.Bytes(), changes, nil
}

// located puts a place before each line of an error.
func located(place string, err error) error {
	return errors.New(place + ": " + strings.ReplaceAll(err.Error(), "\n", "\n"+place+": "))
}

// A document is one of those in a manifest.
type document struct {
	head, text []byte // head is what stands before: white space, or a line that begins a document
	line       int    // of text's beginning
	json       bool
}

// located puts before an error the place in a file: its own, or else that of the
// document's beginning.
func (d document) located(file string, err error) error {
	if p := (*placed)(nil); errors.As(err, &p) {
		return located(fmt.Sprintf("%s:%d:%d", file, d.line-1+p.line, p.column), p.err)
	}
	return located(fmt.Sprintf("%s:%d", file, d.line), err)
}

// document returns what becomes of one document, or what is wrong with it, for
// maxFaults objects at most. left is how many nodes it may make in the place of aliases.
func (in *Injector) document(d document, left *int) ([]byte, []Change, []error) {
	same := slices.Concat(d.head, d.text)
	root, err := d.parse()
	if err != nil {
		return nil, nil, []error{err}
	}
	if root == nil {
		return same, nil, nil
	}
	items, err := itemsOf(root)
	if err == nil && slices.ContainsFunc(items, concerned) {
		if root, err = resolve(root, left); err == nil {
			items, err = itemsOf(root)
		}
	}
	if err != nil {
		return nil, nil, []error{err}
	}
	var changes []Change
	var faults []error
	for _, item := range items {
		change, err := in.item(item)
		if err != nil {
			if faults = append(faults, err); len(faults) == maxFaults {
				break
			}
		} else if change != nil {
			changes = append(changes, *change)
		}
	}
	if len(faults) > 0 || len(changes) == 0 {
		return same, nil, faults
	}
	text, err := d.print(root)
	if err != nil {
		return nil, nil, []error{err}
	}
	return slices.Concat(d.head, text), changes, nil
}

// item changes one object of a document; nil is returned if nothing is to be done.
func (in *Injector) item(n *yaml.Node) (*Change, error) {
	if !concerned(n) {
		return nil, nil
	}
	name := describe(n)
	whole, err := value(n, 0)
	if err != nil {
		return nil, named(name, err)
	}
	result, err := in.Object(whole.(object))
	if err != nil {
		return nil, located(name, err)
	}
	if len(result.Patch) == 0 {
		return nil, nil
	}
	if err := apply(n, result.Patch); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Change{Object: name, Sidecars: result.Sidecars, Warnings: result.Warnings}, nil
}

// concerned reports whether an object is of a kind that has pods.
func concerned(n *yaml.Node) bool {
	_, ok := templateOf(textAt(n, "apiVersion"), textAt(n, "kind"))
	return ok
}

// describe names an object for a person.
func describe(n *yaml.Node) string {
	metadata := get(n, "metadata")
	name := plain(textAt(metadata, "name"))
	if name == "" {
		name = plain(textAt(metadata, "generateName"))
	}
	if namespace := textAt(metadata, "namespace"); namespace != "" {
		name = plain(namespace) + "/" + name
	}
	return strings.TrimSpace(textAt(n, "kind") + " " + name)
}

// maxLists bounds lists in lists, maxItems the objects that they have: a list can be
// an alias of one that it is in, or have the same one a thousand times.
const (
	maxLists = 4
	maxItems = 1 << 16
)

// itemsOf returns the objects that a document is: itself, or those of a List.
func itemsOf(root *yaml.Node) ([]*yaml.Node, error) {
	w := itemWalk{left: maxItems}
	err := w.add(root, 0)
	return w.items, err
}

// An itemWalk collects objects.
type itemWalk struct {
	items []*yaml.Node
	left  int // how many objects and lists may still be looked at
}

func (w *itemWalk) add(n *yaml.Node, depth int) error {
	from := n
	if n = target(n); n.Kind == yaml.DocumentNode {
		n = target(n.Content[0])
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	if w.left--; w.left < 0 {
		return placedAt(from, "here the list has, with lists in it and what aliases stand for, more than %d objects: split it", maxItems)
	}
	items := target(get(n, "items"))
	if !strings.HasSuffix(textAt(n, "kind"), "List") || items == nil || items.Kind != yaml.SequenceNode || depth > maxLists {
		w.items = append(w.items, n)
		return nil
	}
	for _, item := range items.Content {
		if err := w.add(item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// splitYAML splits a stream at the lines that begin a document, which nothing within
// one can look like (YAML 1.2, section 9.1.2), and behind those that end one.
func splitYAML(manifest []byte) ([]document, error) {
	var all []document
	d := document{line: 1}
	line := 0
	for text := range bytes.Lines(manifest) {
		line++
		switch {
		case marks(text, "---"):
			all = append(all, d)
			d = document{line: line}
			if rest := bytes.TrimSpace(text[3:]); len(rest) == 0 || rest[0] == '#' {
				d.head, d.line = text, line+1
				continue
			}
		case marks(text, "..."):
			all = append(all, d, document{head: text, line: line})
			d = document{line: line + 1}
			continue
		}
		d.text = append(d.text, text...)
	}
	return append(all, d), nil
}

// marks reports whether a line is a marker, alone or with something behind it.
func marks(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// splitJSON splits a stream of JSON objects.
func splitJSON(manifest []byte) ([]document, error) {
	var all []document
	rest := bytes.TrimPrefix(manifest, []byte("\ufeff"))
	line := 1
	for {
		text := bytes.TrimLeft(rest, " \t\r\n")
		head := rest[:len(rest)-len(text)]
		line += bytes.Count(head, []byte("\n"))
		if len(text) == 0 {
			return append(all, document{head: head, line: line}), nil
		}
		var raw json.RawMessage
		decoder := json.NewDecoder(bytes.NewReader(text))
		if err := decoder.Decode(&raw); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the JSON ends in the middle")
			}
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		n := decoder.InputOffset()
		all = append(all, document{head: head, text: text[:n], line: line, json: true})
		line += bytes.Count(text[:n], []byte("\n"))
		rest = text[n:]
	}
}
