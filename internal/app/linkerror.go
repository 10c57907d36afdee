package app

import (
	"fmt"
	"strings"

	"github.com/culvert-net/culvert/pkg/identity"
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

// A noChannelError says that there is no session to an outlet, and why.
type noChannelError struct {
	outlet identity.Identifier
	last   error // nil while the first attempt is under way
}

func (e *noChannelError) Error() string {
	if e.last == nil {
		return fmt.Sprintf("no channel to %s: still connecting", e.outlet)
	}
	return fmt.Sprintf("no channel to %s: %v", e.outlet, e.last)
}

func (e *noChannelError) Unwrap() error { return e.last }
