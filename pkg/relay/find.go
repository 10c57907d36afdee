package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// maxFound is how many outlets one answer to a find lists.
const maxFound = 256

// A Replica is one instance of an outlet that offers a service, as a relay says:
// only the handshake with the outlet proves it.
type Replica struct {
	Outlet   identity.Identifier
	Instance channel.Instance
	Draining bool // the outlet is going away: streams are better begun at others
}

// find tells the caller which outlets that are registered here offer a service. It
// tells of those only that the caller may connect to: of others it learns nothing,
// not even by what a refusal says.
func (c *call) find(ctx context.Context) {
	var offers func(channel.Peer, string) bool
	if c.cfg.Offers != nil {
		offers = c.cfg.Offers()
	}
	if offers == nil {
		c.refuse(code.FindDenied, findDeniedReason)
		return
	}
	w := watchCaller(ctx, c.in.Accept())
	found, err := c.offering(w.ctx, offers)
	if werr := w.stop(); werr != nil {
		err = werr // the caller's doing comes first
	}
	if err != nil {
		c.decline(err)
		return
	}
	if len(found) == 0 {
		// Whoever may connect to nothing is told that, and not that there is nothing.
		if denied := c.mayConnect(identity.Identifier{}); denied != nil {
			c.deny(code.ConnectDenied, denied)
			return
		}
	}
	if !c.record() {
		return
	}
	if c.isDraining() {
		c.decline(declinef(code.Draining, drainingReason))
		return
	}
	left := max(0, len(found)-maxFound)
	if err := c.list(c.choose(found), left > 0); err != nil {
		c.cfg.Trace.Abandoned(c.peer, c.req.Kind.String(), c.grant, err)
		return
	}
	c.cfg.Trace.Found(Finding{
		Peer: c.peer, Remote: c.nc.RemoteAddr(), Service: c.req.Service, Listed: len(found) - left, LeftOut: left, Grant: c.grant,
	})
}

const findDeniedReason = "this relay trusts no authority, so that no outlet can prove to it what it offers: " +
	"set authorities: or ticket: at the relay, or name the outlet by its identifier"

// mayConnect asks the authorizer about one outlet.
func (c *call) mayConnect(outlet identity.Identifier) error {
	if c.cfg.Connect == nil {
		return errNoConnect
	}
	return c.cfg.Connect(c.peer, outlet)
}

var errNoConnect = errors.New("relay lets nobody connect to an outlet")

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// offering returns the outlets that offer the service and that the caller may
// connect to, in no order. One find at a time looks, so that all of them together
// take one processor at most, and one of callers who may not connect to outlets in
// general: these are strangers for the most part, of whom there can be any number, and
// are to keep nobody else waiting.
func (c *call) offering(ctx context.Context, offers func(channel.Peer, string) bool) ([]Replica, error) {
	hold := time.NewTimer(c.cfg.Timing.Hold)
	defer hold.Stop()
	finding := c.finding
	if c.mayConnect(identity.Identifier{}) != nil {
		finding = c.findingOthers
	}
	select {
	case finding <- struct{}{}:
		defer func() { <-finding }()
	case <-hold.C:
		return nil, declinef(code.Busy, "too many look for outlets at once")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var found []Replica
	for _, o := range c.offered() {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case offers(o.peer, c.req.Service) && c.mayConnect(o.peer.Identifier) == nil:
			found = append(found, Replica{Outlet: o.peer.Identifier, Instance: o.peer.Instance, Draining: o.draining})
		}
	}
	return found, nil
}

// An offer is an outlet that is registered.
type offer struct {
	peer     channel.Peer
	draining bool
}

func (s *Server) offered() []offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]offer, 0, s.registrations)
	for _, rs := range s.outlets {
		for _, r := range rs {
			all = append(all, offer{r.peer, r.draining})
		}
	}
	return all
}

// choose orders what was found, and leaves those out that are too many: the ones
// that drain first, then by an order of the caller's own. So it is told the same
// again when it asks again, others are told of others, and no outlet can choose its
// place.
func (c *call) choose(found []Replica) []Replica {
	place := make(map[Replica][sha256.Size]byte, len(found))
	for _, f := range found {
		place[f] = sha256.Sum256(slices.Concat(c.spread[:], c.peer.Identifier[:], c.peer.Instance[:], f.Outlet[:], f.Instance[:]))
	}
	slices.SortFunc(found, func(a, b Replica) int {
		if a.Draining != b.Draining {
			if b.Draining {
				return -1
			}
			return 1
		}
		x, y := place[a], place[b]
		return bytes.Compare(x[:], y[:])
	})
	return found[:min(len(found), maxFound)]
}

// list answers the caller, and ends the conn.
func (c *call) list(found []Replica, leftOut bool) error {
	var answer bytes.Buffer
	ms := []message{{Kind: msgOK}}
	for some := range slices.Chunk(found, maxListed) {
		m := message{Kind: msgListed}
		for _, f := range some {
			m.Replicas = append(m.Replicas, listed{Outlet: f.Outlet[:], Instance: f.Instance[:], Draining: f.Draining})
		}
		ms = append(ms, m)
	}
	for _, m := range append(ms, message{Kind: msgEnd, LeftOut: leftOut}) {
		if err := writeMessage(&answer, m); err != nil {
			return err
		}
	}
	conn := c.in.Accept()
	_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := conn.Write(answer.Bytes()); err != nil {
		drop(c.nc, conn)
		return fmt.Errorf("answering: %w", err)
	}
	_ = conn.Close() // a caller that has gone by now needs no answer
	return nil
}
