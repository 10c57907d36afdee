package relay

import (
	"errors"
	"fmt"
	"strings"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// A HopError says that one hop of a route failed, at one of its addresses. A
// relay's refusal is in it as a [*channel.RefusedError].
type HopError struct {
	Hop, Of int       // counted from 1
	URL     route.Hop // as the route has it
	Address string    // which of its addresses; empty when that is not known
	Err     error
}

// Error names the hop by its place and URL, and says why it failed.
func (e *HopError) Error() string {
	return fmt.Sprintf("hop %d of %d (%s): %v", e.Hop, e.Of, e.URL, e.Err)
}

// Unwrap returns why the hop failed.
func (e *HopError) Unwrap() error { return e.Err }

// A PathError says why no path along a route could be made: what failed, in
// the order of the attempts. It is not empty.
type PathError struct {
	Failures []*HopError
}

// Error names every failure, and the addresses where a hop has failed at
// several.
func (e *PathError) Error() string {
	perHop := make(map[int]int)
	for _, f := range e.Failures {
		perHop[f.Hop]++
	}
	var parts []string
	for _, f := range e.Failures {
		s := f.Error()
		if perHop[f.Hop] > 1 && f.Address != "" {
			s = fmt.Sprintf("hop %d of %d (%s) at %s: %v", f.Hop, f.Of, f.URL, f.Address, f.Err)
		}
		if len(parts) == 0 || parts[len(parts)-1] != s {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns the failures, those of the hop that is farthest along the
// route first: what is found in them first is what a caller wants to know.
func (e *PathError) Unwrap() []error {
	farthest := 0
	for _, f := range e.Failures {
		farthest = max(farthest, f.Hop)
	}
	var first, rest []error
	for _, f := range e.Failures {
		if f.Hop == farthest {
			first = append(first, f)
		} else {
			rest = append(rest, f)
		}
	}
	return append(first, rest...)
}

// A DeniedError is an authorizer's error that tells the refused caller less than
// this side's log, or another code than that of what was asked for.
type DeniedError struct {
	Code code.Code // OK: register_denied, connect_denied or extend_denied
	Told string    // what the caller reads
	Why  string    // for the [Trace] alone
}

// Error has both: it is not for the caller.
func (e *DeniedError) Error() string { return e.Told + ": " + e.Why }

// told returns what of an authorizer's error is for the caller, and what is not.
func told(err error) (reason, why string) {
	var d *DeniedError
	if errors.As(err, &d) {
		return d.Told, d.Why
	}
	return err.Error(), ""
}

// A refusalError puts a relay's refusal into words.
type refusalError struct {
	what    string // "relay refuses to connect"
	refused *channel.RefusedError
}

func (e *refusalError) Error() string {
	s := e.what + ": " + e.refused.Code.String()
	if e.refused.Reason != "" {
		s += ": " + e.refused.Reason
	}
	return s
}

func (e *refusalError) Unwrap() error { return e.refused }

// refusedBy returns the refusal in err, or nil.
func refusedBy(err error) *channel.RefusedError {
	var r *channel.RefusedError
	if errors.As(err, &r) {
		return r
	}
	return nil
}
