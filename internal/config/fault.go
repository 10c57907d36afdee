package config

import (
	"fmt"
	"slices"
	"strings"
)

// An Origin is the place that a setting came from: a line and column of a file,
// a flag, or an environment variable. The zero Origin stands for a default.
type Origin struct {
	File         string // as it was given
	Line, Column int    // from 1; 0 for the file as a whole
	Name         string // "--listen" or "CULVERT_LISTEN"; then the rest is zero
}

// IsZero reports whether o is the zero Origin.
func (o Origin) IsZero() bool { return o == Origin{} }

// String returns "relay.yaml:7:10", "relay.yaml", "--listen", "CULVERT_LISTEN"
// or "".
func (o Origin) String() string {
	switch {
	case o.Name != "":
		return o.Name
	case o.Line > 0:
		return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Column)
	}
	return o.File
}

// A Fault is one thing wrong with the settings.
type Fault struct {
	At  Origin
	Key string // its path, such as services[0].listen; "" for a file as a whole
	Err error  // what is wrong and what to do
}

// Error returns the place, the key and what is wrong. The key is left out where
// the place is a flag or a variable, whose name says it. Below a fault of an
// expression stand the line at fault and a caret, both indented.
func (f *Fault) Error() string {
	var b strings.Builder
	if at := f.At.String(); at != "" {
		b.WriteString(at + ": ")
	}
	if f.Key != "" && f.At.Name == "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Err.Error())
	return b.String()
}

// Unwrap returns f.Err.
func (f *Fault) Unwrap() error { return f.Err }

// Faults is the error of the Load functions: all that is wrong, in the order of
// the places. It is never empty.
type Faults []*Fault

// Error returns a line for each fault, and those that stand below it.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults, for errors.Is and errors.As.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// Usage reports whether nothing but the command line is at fault: a flag's
// value, or something missing where no file was named. A file that cannot be
// read is another matter.
func (fs Faults) Usage() bool {
	return !slices.ContainsFunc(fs, func(f *Fault) bool {
		return !f.At.IsZero() && (!strings.HasPrefix(f.At.Name, "--") || f.At.Name == "--"+configFlag)
	})
}

// sorted puts the faults in the order that a reader meets the places: flags and
// variables in the order found, then the file's lines. It drops repetitions: one
// flag may stand for several keys.
func (fs Faults) sorted() Faults {
	seen := map[string]bool{}
	fs = slices.DeleteFunc(fs, func(f *Fault) bool {
		text := f.Error()
		again := seen[text]
		seen[text] = true
		return again
	})
	slices.SortStableFunc(fs, func(a, b *Fault) int {
		if a.At.Line != b.At.Line {
			return a.At.Line - b.At.Line
		}
		return a.At.Column - b.At.Column
	})
	return fs
}

// quote shows a value in an error, cut short so that a whole file pasted into a
// value does not fill the screen.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// word shows a value in an error as it is, or like quote what would not look
// like one word there.
func word(s string) string {
	if q := quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}
