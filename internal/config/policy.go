package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/culvert-net/culvert/pkg/policy"
)

// An Extend says where a relay carries callers on to, and whom.
type Extend struct {
	// To are the addresses. Without any, Allow decides about the address, too,
	// and without that nobody is carried on.
	To []Address
	// Allow says who; nil stands for those who may register or connect.
	Allow *policy.Policy
}

// policy reads who may do an action: a list of identifiers, or an expression.
func (s *section) policy(key string, action policy.Action) *policy.Policy {
	v := s.get(key)
	if v == nil {
		return nil
	}
	if text, ok := expressionOf(v); ok {
		return s.expression(key, v, text, action)
	}
	if v.shape != shapeList {
		err := fmt.Errorf("want a list of identifiers, or an expression, not %s", v.shape)
		if v.shape == shapeText {
			err = misplaced(v.text)
		} else if v.shape == shapeBool {
			err = fmt.Errorf("want a list of identifiers, or an expression, not %s: write it in quotes, %s, if it is meant", v.shape, quote(v.text))
		}
		s.fault(v.at, join(s.path, key), "%w", err)
		return nil
	}
	return policy.List(s.identifiers(key)...)
}

// expressionOf returns the expression that v is meant as: a text of a file, or
// the only value of a flag or variable, that nobody would write for an
// identifier.
func expressionOf(v *value) (string, bool) {
	if v.shape == shapeList && v.at.Name != "" && len(v.items) == 1 {
		v = v.items[0]
	}
	return v.text, v.shape == shapeText && !likeIdentifier(v.text)
}

// aWord is what identifiers, keys and misspelt ones of both look like.
var aWord = regexp.MustCompile(`^[A-Za-z0-9+/_-]*=*$`)

// likeIdentifier reports whether a text is meant as an identifier, or is a key,
// a file or a route in its place, none of which is an expression.
func likeIdentifier(text string) bool {
	text = strings.TrimSpace(text)
	switch {
	case text == "true" || text == "false":
		return false
	case aWord.MatchString(text), strings.HasPrefix(text, "tcp://"), strings.HasPrefix(text, "-----BEGIN"):
		return true
	}
	return !strings.ContainsAny(text, " \"'()") && (strings.HasSuffix(text, ".key") || strings.HasSuffix(text, ".pub") || strings.HasSuffix(text, ".pem"))
}

// misplaced says what is wrong with a text that is like an identifier where a
// list belongs.
func misplaced(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("is empty: write a list of identifiers, or an expression")
	}
	if _, err := parseIdentifier(text); err != nil {
		return err
	}
	return errors.New("want a list, also of one identifier: write it in brackets, [IDENTIFIER]")
}

// expression compiles the expression that v is, and reports its faults at
// their places in the file.
func (s *section) expression(key string, v *value, text string, action policy.Action) *policy.Policy {
	p, err := policy.Compile(action, text)
	var faults policy.Errors
	switch {
	case err == nil:
		return p
	case errors.As(err, &faults):
		for _, f := range faults {
			s.faults = append(s.faults, &Fault{At: s.placeIn(v, f.Line, f.Column), Key: join(s.path, key), Err: f})
		}
	default:
		s.fault(v.at, join(s.path, key), "%w", err)
	}
	return nil
}

// extend reads where callers are carried on to: a list of addresses, a section
// of these and of who may, or an expression over both.
func (s *section) extend(key string) (e Extend) {
	v := s.get(key)
	if v == nil {
		return e
	}
	switch text, ok := expressionOf(v); {
	case v.shape == shapeList:
		e.To = s.addresses(key)
	case v.shape == shapeMap:
		e = s.extendSection(v, join(s.path, key))
	case ok && !likeAddress(text):
		e.Allow = s.expression(key, v, text, policy.Extend)
		if e.Allow != nil && !e.Allow.Uses("to") {
			s.fault(v.at, join(s.path, key), "whoever this is true for would be carried on to any address: say where, as in 'to == \"relay-b:4000\" && …', or list the addresses under to and write this under allow")
		}
	default:
		s.fault(v.at, join(s.path, key), "want a list of addresses, not %s: write it as [a, b] or in lines that begin with a dash; or keys to and allow; or an expression over peer and to", v.shape)
	}
	return e
}

func (s *section) extendSection(v *value, path string) (e Extend) {
	sub := s.section(v, path)
	sub.synonyms = map[string]string{"addresses": "to", "peers": "allow"}
	sub.need("to", "say where callers may be carried on to (to: [tcp://HOST:PORT])")
	e.To = sub.addresses("to")
	sub.notEmpty("to", "write at least one address")
	e.Allow = sub.policy("allow", policy.Extend)
	sub.finish()
	return e
}

// likeAddress reports whether a text is meant as an address.
func likeAddress(text string) bool {
	_, err := parseAddress(text, toDial)
	return err == nil || !strings.ContainsAny(text, " \"'()")
}

// likeIdentifiers reports whether each of the words in a variable is meant as
// an identifier; else they are one expression.
func likeIdentifiers(words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !likeIdentifier(w) })
}
