package app

import (
	"fmt"
	"strings"
)

// routeErrors says, in one line, why none of the routes works.
type routeErrors []error

func (e routeErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e routeErrors) Unwrap() []error { return e }

// routeError says which of several routes err is about.
func routeError(i, of int, err error) error {
	if of == 1 {
		return err
	}
	return fmt.Errorf("route %d: %w", i+1, err)
}

// A noChannelError says that there is no session to an outlet, and why.
type noChannelError struct {
	to   string // whom
	last error  // nil while the first attempt is under way
}

func (e *noChannelError) Error() string {
	if e.last == nil {
		return fmt.Sprintf("no channel to %s: still connecting", e.to)
	}
	return fmt.Sprintf("no channel to %s: %v", e.to, e.last)
}

func (e *noChannelError) Unwrap() error { return e.last }
