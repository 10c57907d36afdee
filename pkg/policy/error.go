package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/cel-go/common"

	"github.com/culvert-net/culvert/pkg/identity"
)

// An Error is a fault of an expression, with its place in the text.
type Error struct {
	Line, Column int    // from 1, in characters
	Message      string // one line
	Shown        string // what is shown of the line at fault
	Caret        int    // the place in it, from 0, in characters
}

// Error returns the message, and below it the line at fault with a caret under
// the place, both indented.
func (e *Error) Error() string {
	return e.Message + "\n    " + e.Shown + "\n    " + strings.Repeat(" ", e.Caret) + "^"
}

// Errors are the faults of an expression in the order of their places; never
// empty.
type Errors []*Error

// Error returns all of them, one after the other.
func (es Errors) Error() string {
	texts := make([]string, len(es))
	for i, e := range es {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap returns the faults, for errors.As.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// maxErrors bounds how many faults of one expression are told.
const maxErrors = 4

func (es Errors) sorted() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return es[:min(len(es), maxErrors)]
}

// newError makes an Error of a place in text, which may lie a little outside.
func newError(text string, line, column int, message string) *Error {
	lines := strings.Split(text, "\n")
	line = min(max(line, 1), len(lines))
	shown := []rune(redact(lines[line-1]))
	column = min(max(column, 1), len(shown)+1)
	e := &Error{Line: line, Column: column, Message: cut(redact(oneLine(message)), 300)}
	// A window around the place, of what a terminal shows in a line.
	const before, after = 60, 40
	from, to := max(column-1-before, 0), min(column-1+after, len(shown))
	e.Caret = column - 1 - from
	e.Shown = oneLine(string(shown[from:to]))
	if from > 0 {
		e.Shown, e.Caret = "…"+e.Shown, e.Caret+1
	}
	if to < len(shown) {
		e.Shown += "…"
	}
	return e
}

// explained turns the compiler's faults into ours.
func explained(action Action, text string, found []*common.Error) Errors {
	var es Errors
	for _, f := range found {
		es = append(es, newError(text, f.Location.Line(), f.Location.Column()+1, reword(action, f.Message)))
	}
	if len(es) == 0 {
		es = append(es, newError(text, 1, 1, "the expression cannot be compiled"))
	}
	return es.sorted()
}

// What the compiler says in its own terms.
var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '([^']*)'`)
	undefined  = regexp.MustCompile(`^undefined field '([^']*)'`)
	expecting  = regexp.MustCompile(` expecting (\{.*\}|'[^']*'|[A-Z_<>]+)$`)
)

// reword says what a fault means for a policy.
func reword(action Action, message string) string {
	names := strings.Join(variablesOf(action), ", ")
	if m := undeclared.FindStringSubmatch(message); m != nil {
		if m[1] == "peer" {
			return "a peer has peer.id and its attributes, as peer.attr.NAME, and nothing else"
		}
		return fmt.Sprintf("%s is not known here: there are %s; a text stands in quotes", quote(m[1]), names)
	}
	if m := noOverload.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("%s cannot be applied to %s", strings.Trim(m[1], "_"), m[2])
	}
	if m := undefined.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("there is no %s", quote(m[1]))
	}
	if rest, ok := strings.CutPrefix(message, "Syntax error: "); ok {
		rest = expecting.ReplaceAllString(rest, "")
		if strings.Contains(rest, "mismatched input '<EOF>'") {
			rest = "the expression ends too early"
		}
		return "syntax: " + rest
	}
	return message
}

// keyLike is what an encoded key looks like: a long run of base64.
var keyLike = regexp.MustCompile(`[A-Za-z0-9+/]{32,}=*`)

// redact blackens what could be a key that was pasted into the wrong place.
func redact(s string) string {
	return keyLike.ReplaceAllStringFunc(s, func(run string) string {
		if _, err := identity.ParseIdentifier(run); err == nil {
			return run
		}
		return strings.Repeat("*", len(run))
	})
}

// oneLine replaces what could harm a log or a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// cut shortens s to about most bytes, at a character's border.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// quote shows a text that came from elsewhere, cut short.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q…", strings.TrimSuffix(cut(s, most), "…"))
	}
	return fmt.Sprintf("%q", s)
}
