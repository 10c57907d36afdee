package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// A walk makes one path: a fold over the route, in which each hop is asked, on
// the conn that the hops before it have made, to extend it to the next. Which
// address of each hop is used, counted in the walk's order, is a number with one
// digit per hop; a failure moves the digit it is about on by one and sets those
// behind it back, until a path is made or the digits run out.
type walk struct {
	d     *Dialer
	route route.Route
	order [32]byte
	// last asks the last hop, by d, on nc, which it owns; nil to stop in front of it.
	// What it returns is the walk's.
	last  func(ctx context.Context, d *Dialer, nc net.Conn, hop identity.Identifier) (net.Conn, error)
	fixed int // the last hop's digit, which then does not move; -1 if it does

	first    []string // the first hop's addresses
	digits   []int
	behind   []bool   // the relay before this hop could not reach it, so another may
	reached  []string // the addresses in use, as far as they are known
	past     bool     // fixed is past the last hop's last address
	failures []*HopError
}

// run returns a path and the last hop's address.
func (w *walk) run(ctx context.Context) (net.Conn, string, error) {
	n := len(w.route)
	w.digits, w.behind, w.reached = make([]int, n), make([]bool, n), make([]string, n)
	if w.fixed >= 0 {
		w.digits[n-1] = w.fixed
	}
	err := w.d.admits(w.route)
	if err != nil {
		return nil, "", err
	}
	began := time.Now()
	w.first, err = resolve(ctx, w.d.LookupHost, w.route[0].Host, w.route[0].Port, w.order)
	w.d.stepped(Step{Hop: 1, Kind: StepResolve, Addresses: slices.Clone(w.first)}, began, err)
	if err != nil {
		w.failed(0, err)
		return nil, "", w.err(ctx)
	}
	for range maxAttempts {
		nc, hop, err := w.attempt(ctx)
		if err == nil {
			return nc, w.reached[n-1], nil
		}
		if ctx.Err() != nil {
			w.failed(hop, err)
			break
		}
		if !w.advance(hop, err) {
			break
		}
	}
	if w.past {
		return nil, "", errNoAddress
	}
	return nil, "", w.err(ctx)
}

// attempt makes the path that the digits choose. An error comes with the hop
// that it is about.
func (w *walk) attempt(ctx context.Context) (nc net.Conn, hop int, err error) {
	if w.digits[0] >= len(w.first) {
		return nil, 0, errNoAddress
	}
	clear(w.reached)
	w.reached[0] = w.first[w.digits[0]]
	began := time.Now()
	nc, err = w.d.dial(ctx, w.reached[0])
	w.d.at(0, w.reached[0]).stepped(Step{Kind: StepConnect}, began, err)
	if err != nil {
		return nil, 0, err
	}
	for i, h := range w.route[:len(w.route)-1] {
		next := w.route[i+1]
		var m message
		nc, m, err = w.d.at(i, w.reached[i]).through(ctx, nc, h.Identifier, extendRequest(next.Address(), w.order, w.digits[i+1]))
		switch {
		case isNoAddress(err):
			return nil, i + 1, err
		case isUnreachable(err):
			return nil, i + 1, &refusalError{what: fmt.Sprintf("hop %d cannot reach it", i+1), refused: refusedBy(err)}
		case err != nil:
			return nil, i, err
		}
		w.reached[i+1] = m.Address
	}
	if w.last == nil {
		return nc, 0, nil
	}
	i := len(w.route) - 1
	if nc, err = w.last(ctx, w.d.at(i, w.reached[i]), nc, w.route[i].Identifier); err != nil {
		return nil, i, err
	}
	return nc, 0, nil
}

// advance moves the digits on after hop's failure and reports whether there is
// anything left to try.
func (w *walk) advance(hop int, err error) bool {
	last := len(w.route) - 1
	ended := errors.Is(err, errNoAddress) || isNoAddress(err)
	w.past = ended && hop == last && w.fixed > 0
	if ended && w.digits[hop] == 0 && hop > 0 {
		// Not the end of a list, but a host that this relay does not know.
		w.behind[hop] = true
		w.failed(hop, &refusalError{what: fmt.Sprintf("hop %d cannot reach it", hop), refused: refusedBy(err)})
	}
	if !ended {
		if !errors.Is(err, errNoneFound) {
			w.failed(hop, err)
		}
		if hop > 0 && isUnreachable(err) {
			w.behind[hop] = true
		}
		if hop != last || w.fixed < 0 {
			w.next(hop)
			return true
		}
	}
	// All of hop's addresses have failed. Where the relay before it was to
	// blame, another address of that relay may do better.
	if hop == 0 || !w.behind[hop] {
		return false
	}
	w.next(hop - 1)
	return true
}

func (w *walk) next(hop int) {
	w.digits[hop]++
	for i := hop + 1; i < len(w.digits); i++ {
		w.digits[i], w.behind[i] = 0, false
	}
	if w.fixed >= 0 && hop < len(w.digits)-1 {
		w.digits[len(w.digits)-1] = w.fixed
	}
}

func (w *walk) failed(hop int, err error) {
	w.failures = append(w.failures, &HopError{
		Hop: hop + 1, Of: len(w.route), URL: w.route[hop], Address: w.reached[hop], Err: err,
	})
}

// err returns what has failed.
func (w *walk) err(ctx context.Context) error {
	if len(w.failures) == 0 {
		return context.Cause(ctx) // ended before anything was tried
	}
	return &PathError{Failures: w.failures}
}
