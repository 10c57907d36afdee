package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A section is a mapping that is being read. Keys that nobody asked for by the
// time finish is called are unknown.
type section struct {
	*decoder
	path     string
	v        *value
	known    []string
	missing  []missing
	synonyms map[string]string // from what a key might be called to its name
	hints    map[string]string // for keys that belong elsewhere
}

// A missing key is reported by finish, unless an unknown one stands for it.
type missing struct{ key, what string }

// section starts reading v, which is nil or no mapping for an empty section.
func (d *decoder) section(v *value, path string) *section {
	s := &section{decoder: d, path: path, v: v}
	if v.shape != shapeMap {
		if v.shape != shapeBad {
			d.fault(v.at, path, "want keys with values, not %s", v.shape)
		}
		s.v = &value{shape: shapeBad, at: v.at}
	}
	return s
}

// get returns the value of a key, or nil if it is not there or not readable,
// which is then reported already.
func (s *section) get(key string) *value {
	s.known = append(s.known, key)
	e := s.v.get(key)
	if e == nil {
		return nil
	}
	v, path := e.value, join(s.path, key)
	s.origins[path] = v.at
	switch v.shape {
	case shapeBad:
		return nil
	case shapeNull:
		s.fault(v.at, path, "has no value: write one, or remove the key")
		return nil
	}
	return v
}

// has reports whether the key is there, readable or not.
func (s *section) has(key string) bool {
	return s.v.shape == shapeBad || s.v.get(key) != nil
}

// need reports a key that is not there; what says what to write.
func (s *section) need(key, what string) {
	if !s.has(key) {
		s.missing = append(s.missing, missing{key, what})
	}
}

// text returns the text of a key's value; ok is false if it is not there or is
// no text, which is then reported.
func (s *section) text(key string) (text string, v *value, ok bool) {
	v = s.get(key)
	if v == nil {
		return "", nil, false
	}
	text, err := scalarText(v)
	if err != nil {
		s.fault(v.at, join(s.path, key), "%w", err)
		return "", nil, false
	}
	return text, v, true
}

// scalarText returns the text that v is, not empty.
func scalarText(v *value) (string, error) {
	switch v.shape {
	case shapeText:
	case shapeNumber, shapeBool:
		return "", fmt.Errorf("want text, not %s: write it in quotes, %s, if it is meant", v.shape, quote(v.text))
	case shapeNull:
		return "", errors.New("has no value: write one, or remove the line")
	case shapeMap:
		return "", errors.New("want one text, not a section: if a text with a colon is meant, write it in quotes")
	default:
		return "", fmt.Errorf("want one text, not %s", v.shape)
	}
	if strings.TrimSpace(v.text) == "" {
		return "", errors.New("is empty")
	}
	return v.text, nil
}

// read parses a key's text, if it is there.
func (s *section) read(key string, parse func(text string) error) {
	text, v, ok := s.text(key)
	if !ok {
		return
	}
	if err := parse(text); err != nil {
		s.fault(v.at, join(s.path, key), "%w", err)
	}
}

// list parses the texts of a key's list, if it is there.
func (s *section) list(key string, parse func(text, path string, v *value) error) {
	v := s.get(key)
	if v == nil {
		return
	}
	path := join(s.path, key)
	if v.shape != shapeList {
		s.fault(v.at, path, "want a list, not %s: write it as [a, b] or in lines that begin with a dash", v.shape)
		return
	}
	for i, item := range v.items {
		if item.shape == shapeBad {
			continue
		}
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		s.origins[itemPath] = item.at
		text, err := scalarText(item)
		if err == nil {
			err = parse(text, itemPath, item)
		}
		if err != nil && item.at.Name != "" && len(v.items) > 1 {
			err = fmt.Errorf("value %d of %d: %w", i+1, len(v.items), err)
		}
		if err != nil {
			s.fault(item.at, itemPath, "%w", err)
		}
	}
}

// finish reports the keys that nobody asked for and those that are missing.
func (s *section) finish() {
	meant := map[string]bool{}
	for _, e := range s.v.entries {
		if slices.Contains(s.known, e.key) {
			continue
		}
		own, hint := s.explain(e.key)
		meant[own] = true
		s.fault(e.at, join(s.path, e.key), "unknown key%s", hint)
	}
	at := s.v.at
	if s.path == "" {
		at = Origin{File: s.file} // the file as a whole, whose first line is not at fault
	}
	for _, m := range s.missing {
		if !meant[m.key] {
			s.fault(at, join(s.path, m.key), "missing: %s", m.what)
		}
	}
}

// explain says what may have been meant by an unknown key: own is that key's
// name if it belongs here, hint goes into the error.
func (s *section) explain(key string) (own, hint string) {
	if own = s.synonyms[key]; own == "" {
		if h := s.hints[key]; h != "" {
			return "", " (" + h + ")"
		}
		own = nearest(key, s.known)
	}
	if own != "" {
		return own, fmt.Sprintf(" (did you mean %q?)", own)
	}
	known := slices.Clone(s.known)
	slices.Sort(known)
	return "", ": there are " + strings.Join(known, ", ")
}

// numberIsText lets a number pass as text, for a key whose parser says more
// about it than that it is one.
func (s *section) numberIsText(key string) {
	if e := s.v.get(key); e != nil && e.value.shape == shapeNumber {
		e.value.shape = shapeText
	}
}
