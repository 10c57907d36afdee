package config

import (
	"fmt"

	"github.com/goccy/go-yaml/token"
)

// What the parser is given. It recurses for each level and takes time
// quadratic in the keys of a section, and has no bounds of its own.
const (
	maxDepth = 16  // of brackets, or of dashes on one line; the settings need 3
	maxKeys  = 200 // of one section; the settings need 13
)

// overBounds returns the first token that goes beyond the bounds and says
// which. Nesting by indentation is bounded by the file's length, since n levels
// take n² characters.
func overBounds(tokens token.Tokens) (*token.Token, error) {
	var c counter
	for _, tk := range tokens {
		if tk.Position == nil {
			continue
		}
		if err := c.count(tk); err != nil {
			return tk, err
		}
	}
	return nil, nil
}

// A counter counts levels and keys, a token at a time.
type counter struct {
	line, onLine int        // what opens a level on this line
	flow         []int      // keys so far in each open bracket
	block        []indented // the open sections, the rightmost last
}

// An indented is an open section by indentation: its column and keys so far.
type indented struct{ column, keys int }

func (c *counter) count(tk *token.Token) error {
	if tk.Position.Line != c.line {
		c.line, c.onLine = tk.Position.Line, 0
	}
	keys := 0
	switch tk.Type {
	case token.SequenceStartType, token.MappingStartType:
		c.flow = append(c.flow, 0)
	case token.SequenceEndType, token.MappingEndType:
		c.flow = c.flow[:max(len(c.flow)-1, 0)]
	case token.SequenceEntryType:
		c.onLine++
		c.leave(tk.Position.Column)
	case token.AnchorType, token.TagType:
		c.onLine++
	case token.MappingKeyType:
		c.onLine++
		keys = c.key(tk)
	case token.MappingValueType:
		key := tk
		if tk.Prev != nil && tk.Prev.Position != nil {
			key = tk.Prev
		}
		keys = c.key(key)
	}
	switch {
	case len(c.flow) > maxDepth || c.onLine > maxDepth:
		return fmt.Errorf("nested more than %d deep", maxDepth)
	case keys > maxKeys:
		return fmt.Errorf("more than %d keys in one section", maxKeys)
	}
	return nil
}

// key counts a key and returns how many its section has so far.
func (c *counter) key(tk *token.Token) int {
	if n := len(c.flow); n > 0 {
		c.flow[n-1]++
		return c.flow[n-1]
	}
	column := tk.Position.Column
	c.leave(column)
	if n := len(c.block); n == 0 || c.block[n-1].column < column {
		c.block = append(c.block, indented{column: column})
	}
	top := &c.block[len(c.block)-1]
	top.keys++
	return top.keys
}

// leave forgets the sections to the right of a column, which have ended.
func (c *counter) leave(column int) {
	for n := len(c.block); n > 0 && c.block[n-1].column > column; n-- {
		c.block = c.block[:n-1]
	}
}
