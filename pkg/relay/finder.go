package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// A finder knows the addresses of a route's last hop and makes paths to them.
type finder interface {
	// addresses returns all that can be found, as ip:port.
	addresses(ctx context.Context) ([]string, error)
	// reach makes a path to one of them.
	reach(ctx context.Context, address string) (net.Conn, error)
}

func newFinder(d *Dialer, r route.Route) finder {
	if len(r) == 1 {
		return direct{d: d, hop: r[0], order: d.Local.Identifier()}
	}
	return &behind{d: d, route: r, order: d.Local.Identifier()}
}

// direct finds the only hop of a route.
type direct struct {
	d     *Dialer
	hop   route.Hop
	order identity.Identifier
}

func (f direct) addresses(ctx context.Context) ([]string, error) {
	return resolve(ctx, f.d.LookupHost, f.hop.Host, f.hop.Port, f.order)
}

func (f direct) reach(ctx context.Context, address string) (net.Conn, error) {
	if err := f.d.admits(route.Route{f.hop}); err != nil {
		return nil, err
	}
	return f.d.dial(ctx, address)
}

// behind finds a hop behind another relay, which alone can resolve its host:
// one extend for each index says which address that is.
type behind struct {
	d     *Dialer
	route route.Route
	order identity.Identifier

	mu    sync.Mutex
	known []string // by index; empty where that one could not be reached
	check int      // the index to look at next
}

// addresses returns all addresses. As long as nothing speaks for a change it
// does not ask for all of them: only whether there is one more than before, and
// for one of the others, in turn.
func (f *behind) addresses(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	known, check := f.known, f.check
	f.check++
	f.mu.Unlock()
	if len(known) > 0 && !slices.Contains(known, "") {
		i := check % len(known)
		if f.at(ctx, len(known)) == "" && f.at(ctx, i) == known[i] {
			return unique(known), nil
		}
	}
	return f.scan(ctx)
}

// at returns the address of an index: empty past the last one.
func (f *behind) at(ctx context.Context, index int) string {
	nc, address, err := f.d.reach(ctx, f.route, f.order, index)
	switch {
	case errors.Is(err, errNoAddress):
		return ""
	case err != nil:
		return "unknown"
	}
	_ = sock.ResetClose(nc)
	return address
}

// unique returns list without what it holds twice, and without the empty.
func unique(list []string) []string {
	var u []string
	for _, s := range list {
		if s != "" && !slices.Contains(u, s) {
			u = append(u, s)
		}
	}
	return u
}

// scan asks for all addresses.
func (f *behind) scan(ctx context.Context) ([]string, error) {
	var known []string
	var last error
	for i := range maxAddresses {
		nc, address, err := f.d.reach(ctx, f.route, f.order, i)
		if errors.Is(err, errNoAddress) {
			break
		}
		if err != nil {
			last = err
			if !isUnreachable(err) {
				break // the relays before it: the next index fails alike
			}
			known = append(known, "")
			continue
		}
		_ = sock.ResetClose(nc)
		known = append(known, address)
	}
	f.mu.Lock()
	f.known = known
	f.mu.Unlock()
	found := unique(known)
	if len(found) == 0 {
		return nil, last
	}
	return found, nil
}

// reach looks where the address was found, and then everywhere: the relay's
// list may have changed, and is asked for anew when it has.
func (f *behind) reach(ctx context.Context, address string) (net.Conn, error) {
	f.mu.Lock()
	guess := slices.Index(f.known, address)
	f.mu.Unlock()
	if guess >= 0 {
		nc, got, err := f.d.reach(ctx, f.route, f.order, guess)
		if err == nil && got == address {
			return nc, nil
		}
		if err == nil {
			_ = sock.ResetClose(nc)
		}
		f.mu.Lock()
		f.known = nil
		f.mu.Unlock()
		if err != nil && !errors.Is(err, errNoAddress) {
			return nil, err // it is tried again, then without a guess
		}
	}
	var last error
	for i := range maxAddresses {
		nc, got, err := f.d.reach(ctx, f.route, f.order, i)
		switch {
		case err == nil && got == address:
			return nc, nil
		case err == nil:
			_ = sock.ResetClose(nc)
		case errors.Is(err, errNoAddress):
			last = errors.Join(last, fmt.Errorf("%s is no address of %s any more", address, f.route[len(f.route)-1].Host))
			return nil, last
		case !isUnreachable(err):
			return nil, err
		default:
			last = err
		}
	}
	return nil, last
}
