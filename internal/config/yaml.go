package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFileLen bounds a settings file, in bytes: about a thousand identifiers. The
// parser takes time quadratic in the length of some hostile files.
const maxFileLen = 64 << 10

// A shape is what a value in a file can be.
type shape int

const (
	shapeNull   shape = iota // nothing, or ~
	shapeText                // text that may be meant as anything: quoted, from a flag, or plain and no number or boolean
	shapeNumber              // a plain number
	shapeBool                // a plain boolean
	shapeList
	shapeMap
	shapeBad // reported already: silent from now on
)

func (s shape) String() string {
	return [...]string{"empty", "text", "a number", "a boolean", "a list", "a section", "unreadable"}[s]
}

// A value is a node of a file, or what a flag or variable gave, with its place.
type value struct {
	shape   shape
	text    string // of text, numbers and booleans: as written
	items   []*value
	entries []entry // keys are unique
	at      Origin
	written string // text before its variables were expanded, "" if there were none
	marks   []mark // where parts of text come from, if written is not empty
	tight   bool   // stands behind a comma without a space, in a list in brackets
}

// An entry is a key and its value in a section.
type entry struct {
	key   string
	at    Origin // of the key
	value *value
}

// get returns the entry with that key, or nil.
func (v *value) get(key string) *entry {
	for i := range v.entries {
		if v.entries[i].key == key {
			return &v.entries[i]
		}
	}
	return nil
}

// readFile reads a settings file, which may be a pipe, but not without end.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, explainOpen(err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxFileLen+1))
	if err != nil {
		return nil, explainOpen(err)
	}
	return data, nil
}

// parseYAML reads the one section that a file is. The faults of several places
// are all found, but a syntax error ends the reading and leaves nil.
func parseYAML(file string, data []byte) (*value, Faults) {
	if err := checkBytes(file, data); err != nil {
		return nil, Faults{err}
	}
	root, err := parseDocument(file, fileText(data))
	if err != nil {
		return nil, Faults{err}
	}
	b := builder{file: file}
	v := b.build(root, "")
	switch v.shape {
	case shapeNull: // nothing but comments: flags and variables may say it all
		v.shape = shapeMap
	case shapeMap, shapeBad:
	default:
		b.fault(v.at, "", "the file holds %s: want keys with values, like \"identity: relay.key\"", v.shape)
	}
	return v, b.faults
}

// fileText returns a file's text as places in it are counted.
func fileText(data []byte) string { return strings.TrimPrefix(string(data), "\ufeff") }

// checkBytes refuses what is not a text file before the parser sees it.
func checkBytes(file string, data []byte) *Fault {
	whole := Origin{File: file}
	switch {
	case len(data) > maxFileLen:
		return &Fault{At: whole, Err: fmt.Errorf("the file has more than %d bytes: is it the right one?", maxFileLen)}
	case bytes.HasPrefix(data, []byte("-----BEGIN CULVERT ")):
		return &Fault{At: whole, Err: errors.New("this is an identity file and no settings file: name it with --identity")}
	}
	at := Origin{File: file, Line: 1, Column: 1}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return &Fault{At: at, Err: fmt.Errorf("byte 0x%02x is not UTF-8: save the file as UTF-8 text", data[i])}
		case r == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			return &Fault{At: at, Err: errors.New("a carriage return without a line feed: save the file with LF or CRLF line ends")}
		case r < ' ' && r != '\t' && r != '\r' && r != '\n', r == 0x7f:
			return &Fault{At: at, Err: fmt.Errorf("control character 0x%02x: is this a text file?", r)}
		}
		i += n
		at.Column++
		if r == '\n' {
			at.Line, at.Column = at.Line+1, 1
		}
	}
	return nil
}

// parseDocument returns the body of the file's only document, nil if it is
// empty.
func parseDocument(file, text string) (body ast.Node, fault *Fault) {
	// The parser is not ours; a mistake of it is this file's fault only.
	defer func() {
		if r := recover(); r != nil {
			body, fault = nil, &Fault{At: Origin{File: file}, Err: fmt.Errorf("the YAML cannot be read (%v): simplify it", r)}
		}
	}()
	tokens := lexer.Tokenize(text)
	if tk, err := overBounds(tokens); err != nil {
		return nil, &Fault{At: originOf(file, tk), Err: err}
	}
	// Duplicate keys are allowed here because the builder reports them all.
	parsed, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxFault(file, text, err)
	}
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, &Fault{At: startOf(file, doc.Body), Err: errors.New("a second document begins here: one file holds one command's settings, so split the file at the ---")}
		}
		body = doc.Body
	}
	return body, nil
}

// syntaxFault gives the parser's error its place. The error's own text would
// quote the file over several lines.
func syntaxFault(file, text string, err error) *Fault {
	at, message := Origin{File: file}, "not YAML"
	var ye yaml.Error
	if errors.As(err, &ye) {
		at, message = originOf(file, ye.GetToken()), "not YAML: "+ye.GetMessage()
	}
	if line := lineOf(text, at.Line); strings.Contains(line, "${") && strings.ContainsAny(line, "[{") {
		message += ": inside [ ] write variables in quotes, like \"${NAME}\""
	} else if strings.Contains(line, "\t") {
		message += ": indent with spaces, not with tabs"
	} else if strings.Contains(message, "mapping value is not allowed") {
		message += ": check the indentation, or put a text that holds a colon and a space in quotes"
	}
	return &Fault{At: at, Err: errors.New(message)}
}

// lineOf returns the n-th line of text, from 1, or "".
func lineOf(text string, n int) string {
	i := 0
	for line := range strings.Lines(text) {
		if i++; i == n {
			return line
		}
	}
	return ""
}

// originOf returns the place of a token, which may be nil.
func originOf(file string, tk *token.Token) Origin {
	if tk == nil || tk.Position == nil {
		return Origin{File: file}
	}
	return Origin{File: file, Line: max(tk.Position.Line, 1), Column: max(tk.Position.Column, 1)}
}

// startOf returns the place of a node's first character.
func startOf(file string, n ast.Node) Origin {
	// A mapping's token is its first colon.
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return originOf(file, m.Values[0].Key.GetToken())
	}
	return originOf(file, n.GetToken())
}

// A builder turns the parser's nodes into values and collects faults.
type builder struct {
	file   string
	faults Faults
}

func (b *builder) fault(at Origin, key, format string, args ...any) {
	b.faults = append(b.faults, &Fault{At: at, Key: key, Err: fmt.Errorf(format, args...)})
}

// build returns the value of n, which may be nil; path is its key path.
func (b *builder) build(n ast.Node, path string) *value {
	if n == nil {
		return &value{shape: shapeNull, at: Origin{File: b.file}}
	}
	v := &value{shape: shapeText, at: startOf(b.file, n)}
	switch n := n.(type) {
	case *ast.MappingNode:
		v.shape = shapeMap
		for _, e := range n.Values {
			b.entry(v, e, path)
		}
	case *ast.SequenceNode:
		v.shape = shapeList
		for i, item := range n.Values {
			v.items = append(v.items, b.build(item, fmt.Sprintf("%s[%d]", path, i)))
			v.items[i].tight = n.IsFlowStyle && i > 0 && adjoin(v.items[i-1], v.items[i])
		}
	case *ast.StringNode:
		v.text = n.Value
	case *ast.LiteralNode:
		v.text = strings.TrimSuffix(n.Value.Value, "\n")
	case *ast.NullNode:
		v.shape = shapeNull
	case *ast.BoolNode:
		v.shape, v.text = shapeBool, n.Token.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		v.shape, v.text = shapeNumber, n.GetToken().Value
	default:
		v.shape = shapeBad
		b.fault(v.at, path, "%s are not used here: write the value itself", nodeNames(n))
	}
	return v
}

// adjoin reports whether one character, a comma, is all between two texts.
func adjoin(a, b *value) bool {
	return a.shape == shapeText && a.at.Line == b.at.Line && a.at.Column+len(a.text)+1 == b.at.Column
}

// nodeNames names what a file may not use, for an error.
func nodeNames(n ast.Node) string {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		return "anchors and aliases (&name, *name)"
	case *ast.TagNode:
		return "tags (!name)"
	}
	return fmt.Sprintf("YAML nodes of kind %s", n.Type())
}

// entry adds one key and its value to v.
func (b *builder) entry(v *value, e *ast.MappingValueNode, path string) {
	at := originOf(b.file, e.Key.GetToken())
	if e.Key.IsMergeKey() {
		b.fault(at, path, "merge keys (<<) are not used here: write the keys themselves")
		return
	}
	key, ok := keyText(e.Key)
	if !ok {
		b.fault(at, path, "a key is a plain word")
		return
	}
	child := join(path, key)
	built := b.build(e.Value, child)
	if first := v.get(key); first != nil {
		b.fault(at, child, "this key is there already, in line %d: remove one of them", first.at.Line)
		return
	}
	v.entries = append(v.entries, entry{key: key, at: at, value: built})
}

// keyText returns the text of a scalar key.
func keyText(k ast.MapKeyNode) (string, bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.MappingKeyNode, *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "", false
	}
	if tk := k.GetToken(); tk != nil {
		return tk.Value, true
	}
	return "", false
}

// join appends a key to a key path; a key that is no plain word in quotes.
func join(path, key string) string {
	if !isPlainKey(key) {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// isPlainKey reports whether a key can be shown as it is.
func isPlainKey(key string) bool {
	for _, r := range key {
		if r <= ' ' || r > '~' || r == '"' || r == '.' {
			return false
		}
	}
	return key != "" && len(key) <= 64
}
