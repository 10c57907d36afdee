package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDepth and maxNodes bound an object's nesting, and what the aliases of a manifest,
// which a few bytes can make endless, stand for.
const (
	maxDepth = 200
	maxNodes = 1 << 19
)

// parse returns the document's root, nil if it is empty.
func (d document) parse() (*yaml.Node, error) {
	if d.json {
		decoder := json.NewDecoder(bytes.NewReader(d.text))
		decoder.UseNumber()
		root, err := readJSON(decoder, 0)
		return &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}, err
	}
	if !d.hasContent() {
		return nil, nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(d.text, &root); err != nil {
		// Its lines are counted from the document's beginning.
		return nil, fmt.Errorf("%w (lines of this document)", err)
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) == 0 {
		return nil, nil
	}
	return &root, nil
}

// hasContent reports whether there is more than comments and, before the line that
// begins a document, directives (YAML 1.2, section 6.8).
func (d document) hasContent() bool {
	for line := range bytes.Lines(d.text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

// print returns a document's text.
func (d document) print(root *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	if d.json {
		if err := writeJSON(&b, root.Content[0]); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		err := json.Indent(&out, b.Bytes(), "", "    ") // as kubectl does
		return out.Bytes(), err
	}
	if marks(d.text, "---") { // what it began with stood in that line
		b.WriteString("---\n")
	}
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// readJSON reads one value.
func readJSON(d *json.Decoder, depth int) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("is nested more than %d deep", maxDepth)
	}
	switch t := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: yaml.FlowStyle}
		if t == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for d.More() {
			child, err := readJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err := d.Token()
		return n, err
	case json.Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: t.String()}, nil
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: t}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(t)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// writeJSON writes a node without spaces.
func writeJSON(b *bytes.Buffer, n *yaml.Node) error {
	list := func(open, end byte, each func(i int, child *yaml.Node) error) error {
		b.WriteByte(open)
		for i, child := range n.Content {
			if err := each(i, child); err != nil {
				return err
			}
		}
		b.WriteByte(end)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return list('{', '}', func(i int, child *yaml.Node) error {
			if i > 0 {
				b.WriteByte(",:"[i%2])
			}
			return writeJSON(b, child)
		})
	case yaml.SequenceNode:
		return list('[', ']', func(i int, child *yaml.Node) error {
			if i > 0 {
				b.WriteByte(',')
			}
			return writeJSON(b, child)
		})
	}
	if n.ShortTag() != "!!str" {
		b.WriteString(n.Value)
		return nil
	}
	b.WriteString(quoted(n.Value))
	return nil
}

// target returns what a node stands for, if it is an alias; nil of nil.
func target(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// get returns the value of a mapping's key, nil if it is not there.
func get(n *yaml.Node, key string) *yaml.Node {
	if n = target(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// textAt returns the text of a mapping's key, or "".
func textAt(n *yaml.Node, key string) string {
	if v := target(get(n, key)); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

// value returns a node without aliases as a JSON value, with numbers as
// [json.Number].
func value(n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, placedAt(n, "is nested more than %d deep", maxDepth)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return valueOfMapping(n, depth)
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, err := value(c, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	return scalar(n), nil
}

func valueOfMapping(n *yaml.Node, depth int) (any, error) {
	o := object{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return nil, placedAt(key, "a key is no text")
		}
		if _, ok := o[key.Value]; ok {
			return nil, placedAt(key, "the key %s is there twice: remove one", show(key.Value))
		}
		v, err := value(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		o[key.Value] = v
	}
	return o, nil
}

// words are those that Kubernetes, whose YAML is 1.1, reads as booleans where YAML
// 1.2 does not; never written.
var words = map[string]bool{"yes": true, "on": true, "no": false, "off": false}

func scalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	case "!!int":
		var i int64
		if n.Decode(&i) == nil {
			return num(i)
		}
		return json.Number(n.Value)
	case "!!float":
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return num(i)
		}
		return json.Number(n.Value)
	}
	if b, ok := words[strings.ToLower(n.Value)]; ok && n.Style == 0 {
		return b
	}
	return n.Value
}

// apply does what a patch says to a node without aliases.
func apply(n *yaml.Node, patch []Operation) error {
	for _, op := range patch {
		path := tokens(op.Path)
		if len(path) == 0 {
			return errNoPlace
		}
		parent := n
		parent.Style &^= yaml.FlowStyle // or all that is added stood in one line
		for _, t := range path[:len(path)-1] {
			child, err := childOf(parent, t)
			if err != nil {
				return fmt.Errorf("%s: %w", op.Path, err)
			}
			parent = child
			parent.Style &^= yaml.FlowStyle
		}
		if err := applyOne(parent, path[len(path)-1], op); err != nil {
			return fmt.Errorf("%s: %w", op.Path, err)
		}
	}
	return nil
}

func childOf(n *yaml.Node, token string) (*yaml.Node, error) {
	if n.Kind == yaml.SequenceNode {
		i, err := index(token, len(n.Content), false)
		if err != nil {
			return nil, err
		}
		return n.Content[i], nil
	}
	if c := get(n, token); c != nil {
		return c, nil
	}
	return nil, errNoPlace
}

func applyOne(parent *yaml.Node, token string, op Operation) error {
	if parent.Kind == yaml.SequenceNode {
		i, err := index(token, len(parent.Content), op.Op == "add")
		if err != nil {
			return err
		}
		switch op.Op {
		case "add":
			parent.Content = slices.Insert(parent.Content, i, made(op.Value))
		case "replace":
			replace(parent.Content[i], op.Value)
		default:
			parent.Content = slices.Delete(parent.Content, i, i+1)
		}
		return nil
	}
	old := get(parent, token)
	switch {
	case op.Op == "add" && old == nil:
		parent.Content = append(parent.Content, made(token), made(op.Value))
	case old == nil:
		return errNoPlace
	case op.Op == "remove":
		i := slices.Index(parent.Content, old)
		parent.Content = slices.Delete(parent.Content, i-1, i+1)
	default:
		replace(old, op.Value)
	}
	return nil
}

// replace puts a value in the place of a node's, whose comments stay.
func replace(n *yaml.Node, v any) {
	next := made(v)
	next.HeadComment, next.LineComment, next.FootComment = n.HeadComment, n.LineComment, n.FootComment
	*n = *next
}

// keyOrder is how people write a container; other keys come behind, by the alphabet.
// Never written.
var keyOrder = []string{
	"name", "restartPolicy", "image", "imagePullPolicy", "command", "envFrom", "ports", "startupProbe", "livenessProbe",
	"httpGet", "exec", "resources", "requests", "limits", "securityContext", "volumeMounts",
}

// made returns the node of a value.
func made(v any) *yaml.Node {
	switch v := v.(type) {
	case object:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		keys := sortedKeys(v)
		slices.SortStableFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
		for _, key := range keys {
			n.Content = append(n.Content, made(key), made(v[key]))
		}
		return n
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		words := len(v) > 0
		for _, e := range v {
			n.Content = append(n.Content, made(e))
			s, ok := e.(string)
			words = words && ok && !strings.Contains(s, "\n")
		}
		if words { // a command
			n.Style = yaml.FlowStyle
		}
		return n
	case string:
		return text(v)
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
	case json.Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: v.String()}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
}

func rank(key string) int {
	if i := slices.Index(keyOrder, key); i >= 0 {
		return i
	}
	return len(keyOrder)
}

// bare is text that no version of YAML takes for anything else.
var bare = regexp.MustCompile(`^(--)?[A-Za-z/][A-Za-z0-9._/-]*(:[A-Za-z0-9._/-]+)*$`)

// text returns the node of a text, quoted wherever that could matter.
func text(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	_, boolean := words[strings.ToLower(s)]
	switch {
	case strings.Contains(s, "\n"):
		n.Style = yaml.LiteralStyle
	case strings.HasPrefix(s, `{"`) && !strings.Contains(s, "'"):
		n.Style = yaml.SingleQuotedStyle
	case boolean || !bare.MatchString(s) || slices.Contains([]string{"y", "n", "true", "false", "null"}, strings.ToLower(s)):
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// ReadManifest reads a manifest up to its bound.
func ReadManifest(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxManifest+1))
	if err == nil && len(text) > MaxManifest {
		err = errors.New("is too large")
	}
	return text, err
}
