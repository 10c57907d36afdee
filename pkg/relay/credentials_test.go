package relay

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// shows reports whether a peer shows that credential.
func shows(p channel.Peer, text string) bool {
	return len(p.Credentials) == 1 && string(p.Credentials[0]) == text
}

// An outlet that has other credentials registers anew: the relay knows them, there
// is no time without a registration, and what is joined stays.
func TestAgentRenews(t *testing.T) {
	newest := make(chan channel.Peer, 64)
	relay := startRelay(t, func(c *Config) {
		c.Register = func(p channel.Peer) error { newest <- p; return nil }
	})
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) { c.Handle = handled(echo) })
	agent.log.await(t, 1, "registered at")
	d := &Dialer{Local: newLocal(t)}
	joined := path(t, d, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
	for i, text := range []string{"first", "second", "third"} {
		if err := agent.local.SetCredentials([][]byte{[]byte(text)}); err != nil {
			t.Fatal(err)
		}
		agent.Renew()
		agent.log.await(t, i+2, "registered at")
		for p := range newest {
			if shows(p, text) {
				break
			}
		}
		if n := agent.log.count("lost"); n != 0 {
			t.Fatalf("registration lost %d times:\n%s", n, agent.log)
		}
		carries(t, joined, "still here")
		later := path(t, d, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
		carries(t, later, "here, too")
		_ = later.Close()
	}
	if got := relay.Counts().Registrations; got != 1 {
		t.Errorf("%d registrations, want 1", got)
	}
}

// A renewal that is refused is tried again, and leaves what there is.
func TestAgentRenewsAgain(t *testing.T) {
	var refuse atomic.Bool
	relay := startRelay(t, func(c *Config) {
		c.Register = func(p channel.Peer) error {
			if refuse.Load() && shows(p, "new") {
				return errors.New("not yet")
			}
			return nil
		}
	})
	refuse.Store(true)
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) { c.Handle = handled(echo) })
	agent.log.await(t, 1, "registered at")
	if err := agent.local.SetCredentials([][]byte{[]byte("new")}); err != nil {
		t.Fatal(err)
	}
	agent.Renew()
	eventually(t, "the renewal is refused twice", func() bool { return relay.log.count("not yet") >= 2 })
	refuse.Store(false)
	agent.log.await(t, 2, "registered at")
}

// A connect policy is asked about the outlet that is wanted, at first and again.
func TestConnectKnowsTheOutlet(t *testing.T) {
	var open atomic.Pointer[identity.Identifier]
	relay := startRelay(t, func(c *Config) {
		c.Connect = func(_ channel.Peer, outlet identity.Identifier) error {
			if id := open.Load(); id == nil || *id != outlet {
				return errors.New("not to that one")
			}
			return nil
		}
	})
	one := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) { c.Handle = handled(echo) })
	two := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) { c.Handle = handled(echo) })
	one.log.await(t, 1, "registered at")
	two.log.await(t, 1, "registered at")
	first, second := one.local.Identifier(), two.local.Identifier()
	open.Store(&first)
	d := &Dialer{Local: newLocal(t)}
	joined := path(t, d, route.Route{relay.hop(t)}, first, nil)
	wantRefusal(t, noPath(t, d, route.Route{relay.hop(t)}, second, nil), code.ConnectDenied, "not to that one")
	open.Store(&second)
	relay.Recheck()
	if _, err := joined.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the join that is allowed no more: %v, want ECONNRESET", err)
	}
}

// Whoever is not admitted any more is cut, whichever end of a join it is, and told
// so where it can be.
func TestRecheckAdmits(t *testing.T) {
	for _, victim := range []string{"caller", "outlet"} {
		t.Run(victim, func(t *testing.T) {
			var revoked atomic.Pointer[identity.Identifier]
			local, err := channel.NewLocalWith(newIdentity(t), channel.LocalConfig{Admit: func(p channel.Peer) error {
				if id := revoked.Load(); id != nil && *id == p.Identifier {
					return &channel.PeerError{Code: code.IdentityRevoked, Err: errors.New("it was revoked")}
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			relay := startRelayOn(t, listen(t, "127.0.0.1:0"), local)
			agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) { c.Handle = handled(echo) })
			agent.log.await(t, 1, "registered at")
			d := &Dialer{Local: newLocal(t)}
			joined := path(t, d, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
			carries(t, joined, "here")
			id := d.Local.Identifier()
			if victim == "outlet" {
				id = agent.local.Identifier()
			}
			revoked.Store(&id)
			relay.Recheck()
			if _, err := joined.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want ECONNRESET", err)
			}
			if victim == "outlet" {
				agent.log.await(t, 1, "peer closed: identity_revoked: it was revoked")
				return
			}
			wantRefusal(t, noPath(t, d, route.Route{relay.hop(t)}, agent.local.Identifier(), nil), code.IdentityRevoked, "it was revoked")
		})
	}
}

// A relay that is not admitted any more is left, and not come back to.
func TestAgentLeavesTheRevoked(t *testing.T) {
	relay := startRelay(t)
	revoked := &atomic.Bool{}
	local, err := channel.NewLocalWith(newIdentity(t), channel.LocalConfig{Admit: func(channel.Peer) error {
		if revoked.Load() {
			return &channel.PeerError{Code: code.IdentityRevoked, Err: errors.New("the relay was revoked")}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	agent := startAgent(t, local, route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")
	revoked.Store(true)
	agent.Renew()
	agent.log.await(t, 1, "the relay was revoked")
	eventually(t, "the relay has no registration", func() bool { return relay.Counts().Registrations == 0 })
	revoked.Store(false)
	agent.log.await(t, 2, "registered at")
}

// revocable makes a Local of which one identifier at a time is not admitted.
func revocable(t *testing.T) (*channel.Local, *atomic.Pointer[identity.Identifier]) {
	t.Helper()
	revoked := &atomic.Pointer[identity.Identifier]{}
	local, err := channel.NewLocalWith(newIdentity(t), channel.LocalConfig{Admit: func(p channel.Peer) error {
		if id := revoked.Load(); id != nil && *id == p.Identifier {
			return &channel.PeerError{Code: code.IdentityRevoked, Err: errors.New("it was revoked")}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return local, revoked
}

// A relay in the middle of the way that is not admitted any more is left as the one
// at its end is, with what is registered and parked behind it.
func TestAgentLeavesTheRevokedInTheMiddle(t *testing.T) {
	far, middle, near := startRelay(t), startRelay(t), startRelay(t)
	way := route.Route{near.hop(t), middle.hop(t), far.hop(t)}
	for i, hop := range way {
		local, revoked := revocable(t)
		agent := startAgent(t, local, way)
		agent.log.await(t, 1, "registered at")
		eventually(t, "two conns are parked", func() bool { return far.Counts().Conns == 3 })
		revoked.Store(&hop.Identifier)
		agent.Renew()
		agent.log.await(t, 1, "it was revoked")
		eventually(t, "nothing of it is left", func() bool {
			return far.Counts().Conns == 0 && middle.Counts().Conns == 0 && near.Counts().Conns == 0
		})
		if err := agent.Status()[0].Err; err == nil {
			t.Errorf("hop %d revoked: the status has no error", i+1)
		}
		revoked.Store(nil)
		agent.log.await(t, 2, "registered at")
		agent.stop()
		eventually(t, "it is gone", func() bool { return far.Counts().Conns == 0 && near.Counts().Conns == 0 })
	}
}

// Nobody is asked for a way through a relay that is not admitted, wherever on the way
// it is.
func TestNoPathThroughTheRevoked(t *testing.T) {
	far, near := startRelay(t), startRelay(t)
	agent := startAgent(t, newLocal(t), route.Route{far.hop(t)})
	agent.log.await(t, 1, "registered at")
	local, revoked := revocable(t)
	dialled := 0
	d := &Dialer{Local: local, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled++
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	way := route.Route{near.hop(t), far.hop(t)}
	for i, hop := range way {
		revoked.Store(&hop.Identifier)
		err := noPath(t, d, way, agent.local.Identifier(), nil)
		var at *HopError
		var why *channel.PeerError
		if !errors.As(err, &at) || at.Hop != i+1 || !errors.As(err, &why) || why.Code != code.IdentityRevoked {
			t.Errorf("hop %d revoked: got %v, want that it was", i+1, err)
		}
		if _, err := tryFind(d, way, "orders-db"); !errors.As(err, &why) {
			t.Errorf("hop %d revoked: a find: %v, want that it was", i+1, err)
		}
	}
	if dialled != 0 || near.Counts().Joins != 0 {
		t.Errorf("dialled %d times", dialled)
	}
	revoked.Store(nil)
	carries(t, path(t, d, way, agent.local.Identifier(), nil), "after all")
}
