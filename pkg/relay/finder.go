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
}

// addresses asks for one address more than were known last. When there is none
// and all of those could be reached, they are still taken to be the same;
// otherwise it asks for all of them.
func (f *behind) addresses(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	known := f.known
	f.mu.Unlock()
	if len(known) > 0 && !slices.Contains(known, "") {
		nc, _, err := f.d.reach(ctx, f.route, f.order, len(known))
		if nc != nil {
			_ = sock.ResetClose(nc)
		}
		if errors.Is(err, errNoAddress) {
			return known, nil
		}
	}
	return f.scan(ctx)
}

// scan asks for all addresses.
func (f *behind) scan(ctx context.Context) ([]string, error) {
	var known, found []string
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
		if !slices.Contains(found, address) {
			found = append(found, address)
		}
	}
	f.mu.Lock()
	f.known = known
	f.mu.Unlock()
	if len(found) == 0 {
		return nil, last
	}
	return found, nil
}

func (f *behind) reach(ctx context.Context, address string) (net.Conn, error) {
	f.mu.Lock()
	guess := slices.Index(f.known, address)
	f.mu.Unlock()
	// First where it was found, then everywhere: the relay's list may have
	// changed.
	indexes := []int{}
	if guess >= 0 {
		indexes = append(indexes, guess)
	}
	for i := range maxAddresses {
		if i != guess {
			indexes = append(indexes, i)
		}
	}
	var last error
	for _, i := range indexes {
		nc, got, err := f.d.reach(ctx, f.route, f.order, i)
		switch {
		case err == nil && got == address:
			return nc, nil
		case err == nil:
			_ = sock.ResetClose(nc)
		case errors.Is(err, errNoAddress) && i != guess:
			if last == nil {
				last = fmt.Errorf("%s is no address of %s any more", address, f.route[len(f.route)-1].Host)
			}
			return nil, last
		case !errors.Is(err, errNoAddress):
			last = err
			if !isUnreachable(err) {
				return nil, err
			}
		}
	}
	return nil, last
}
