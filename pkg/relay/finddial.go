package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// errNoneFound says that a relay has answered a find, and knows no outlet.
var errNoneFound = errors.New("no outlet offers it")

// Find asks the last hop of r, which is a relay, which outlets registered there
// offer the service and are open to this caller, at most 256. A relay has several
// addresses where it is several processes: the first that knows an outlet is
// believed, and where none does that can be asked the answer is none.
//
// What a relay says is a hint. Whether an outlet offers the service is for the
// handshake with it to prove.
//
// An error is a [*PathError], or ctx's, and says that no relay has answered; a
// relay's refusal is in it as a [*channel.RefusedError]. The Dialer's times bound
// each step; ctx is to bound them all.
func (d *Dialer) Find(ctx context.Context, r route.Route, service string) ([]Replica, error) {
	if len(r) == 0 {
		return nil, errors.New("route is empty")
	}
	req := findRequest(service)
	if err := req.check(); err != nil {
		return nil, err
	}
	var found []Replica
	answered := false
	w := walk{d: d.withDefaults(), route: r, order: d.Local.Identifier(), fixed: -1}
	w.last = func(ctx context.Context, d *Dialer, nc net.Conn, hop identity.Identifier) (_ net.Conn, err error) {
		if found, err = d.find(ctx, nc, hop, req); err != nil {
			return nil, err
		}
		answered = true
		if len(found) == 0 {
			return nil, errNoneFound
		}
		return nil, nil
	}
	if _, _, err := w.run(ctx); err != nil && !answered {
		return nil, err
	}
	return found, nil
}

// find asks one relay.
func (d *Dialer) find(ctx context.Context, nc net.Conn, hop identity.Identifier, r request) (found []Replica, err error) {
	conn, err := d.hear(ctx, nc, hop, r, func(c *channel.Conn) (err error) {
		found, err = readFound(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	_ = conn.Close() // all of the answer has come
	return found, nil
}

// readFound reads the whole answer to a find. An answer that has no end, or breaks
// its bounds, is none.
func readFound(r io.Reader) ([]Replica, error) {
	if _, err := readOK(r); err != nil {
		return nil, err
	}
	var found []Replica
	seen := map[process]bool{}
	for {
		m, err := readMessage(r)
		switch {
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("reading what was found: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return nil, fmt.Errorf("reading what was found: %w", err)
		case m.Kind == msgEnd:
			return found, nil
		case m.Kind != msgListed:
			return nil, fmt.Errorf("%w: of kind %d among what was found", errMessage, m.Kind)
		case len(found)+len(m.Replicas) > maxFound:
			return nil, fmt.Errorf("%w: more than %d outlets were found", errMessage, maxFound)
		}
		for _, l := range m.Replicas {
			p := process{identity.Identifier(l.Outlet), channel.Instance(l.Instance)}
			if seen[p] {
				return nil, fmt.Errorf("%w: %s was found twice", errMessage, p.outlet)
			}
			seen[p] = true
			found = append(found, Replica{p.outlet, p.instance, l.Draining})
		}
	}
}
