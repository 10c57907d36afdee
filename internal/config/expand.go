package config

import (
	"errors"
	"fmt"
	"strings"
)

// An environ looks up environment variables and remembers which were asked for.
type environ struct {
	vars map[string]string
	used map[string]bool
}

// newEnviron takes "NAME=value" strings, as os.Environ returns them.
func newEnviron(list []string) *environ {
	e := &environ{vars: make(map[string]string, len(list)), used: map[string]bool{}}
	for _, s := range list {
		if name, v, ok := strings.Cut(s, "="); ok {
			e.vars[name] = v
		}
	}
	return e
}

func (e *environ) lookup(name string) (string, bool) {
	e.used[name] = true
	v, ok := e.vars[name]
	return v, ok
}

// expandAll replaces the variables in all scalars at and below v.
func expandAll(v *value, path string, env *environ) Faults {
	var faults Faults
	switch v.shape {
	case shapeText, shapeNumber, shapeBool:
		text, marks, err := expand(v.text, env)
		if err != nil {
			v.shape = shapeBad
			return Faults{{At: v.at, Key: path, Err: err}}
		}
		if marks != nil {
			v.text, v.written, v.marks = text, v.text, marks
		}
	case shapeList:
		for i, item := range v.items {
			faults = append(faults, expandAll(item, fmt.Sprintf("%s[%d]", path, i), env)...)
		}
	case shapeMap:
		for _, e := range v.entries {
			faults = append(faults, expandAll(e.value, join(path, e.key), env)...)
		}
	}
	return faults
}

// maxExpanded bounds a value after expansion, in bytes.
const maxExpanded = 64 << 10

// A mark says that the text from a byte on comes from that byte of what was
// written, or all of it from the variable there.
type mark struct {
	expanded, written int
	variable          bool
}

// expand replaces ${NAME} by the variable's value and $$ by $. What a variable
// holds is not expanded again. marks are nil if there is nothing to replace.
func expand(s string, env *environ) (text string, marks []mark, err error) {
	if !strings.Contains(s, "$") {
		return s, nil, nil
	}
	var b strings.Builder
	for whole := len(s); ; {
		marks = append(marks, mark{expanded: b.Len(), written: whole - len(s)})
		before, rest, ok := strings.Cut(s, "$")
		b.WriteString(before)
		if !ok {
			break
		}
		marks = append(marks, mark{expanded: b.Len(), written: whole - len(s) + len(before), variable: true})
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			s = rest[1:]
		case strings.HasPrefix(rest, "{"):
			name, after, closed := strings.Cut(rest[1:], "}")
			if !closed {
				return "", nil, fmt.Errorf("%s has a ${ without a }", quote("$"+rest))
			}
			v, err := variable(name, env)
			if err != nil {
				return "", nil, err
			}
			b.WriteString(v)
			s = after
		default:
			return "", nil, errors.New("a single $: write ${NAME} for a variable, or $$ for a dollar sign")
		}
		if b.Len() > maxExpanded {
			return "", nil, fmt.Errorf("longer than %d bytes with its variables", maxExpanded)
		}
	}
	return b.String(), marks, nil
}

// variable returns the value of the environment variable with that name.
func variable(name string, env *environ) (string, error) {
	if !isName(name) {
		return "", fmt.Errorf("${%s}: a variable's name has letters, digits and _ only (there are no defaults or other operators)", word(name))
	}
	v, ok := env.lookup(name)
	if !ok {
		return "", fmt.Errorf("the environment variable %s is not set: set it, or write $${%s} for the text itself", word(name), word(name))
	}
	return v, nil
}

// isName reports whether s can be a variable's name.
func isName(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}
