package node

import (
	"errors"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// TestRelay: nodes that nobody can dial are reached by their identifiers.
func TestRelay(t *testing.T) {
	relayLocal, relays := newLocal(t)
	r, addr := listening(t, Config{Local: relayLocal})
	if err := r.ServeChannels("channels", func(channel.Peer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := r.StartRelay("relay", Relay{Allow: Anyone}); err != nil {
		t.Fatal(err)
	}
	way := newTap(t, addr)
	join := func() (*Node, identity.Identifier, *Channel) {
		local, id := newLocal(t)
		n := newNode(t, Config{Local: local})
		c, err := n.OpenChannel(inTime(t), Route{way.addr(), "channels"}, relays)
		if err != nil {
			t.Fatal(err)
		}
		return n, id, c
	}
	alice, alices, aliceToRelay := join()
	bob, bobs, bobToRelay := join()
	g, err := bob.Register(inTime(t), Route{bobToRelay.Address(), "relay"}, Address(bobs.String()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = alice.Register(inTime(t), Route{aliceToRelay.Address(), "relay"}, Address(bobs.String()))
	wantCode(t, err, code.RegisterDenied)
	if err := bob.ServeChannels("channels", only(alices)); err != nil {
		t.Fatal(err)
	}
	start(t, bob, "echo", echo, Options{Allow: Peers(alices)})
	toBob := Route{aliceToRelay.Address(), Address(bobs.String()), "channels"}
	c, err := alice.OpenChannel(inTime(t), toBob, bobs)
	if err != nil {
		t.Fatal(err)
	}
	wantEcho(t, alice, Route{c.Address(), "echo"}, "Hello")
	way.cut() // all of the ways to the relay, the registration's, too
	wantEcho(t, alice, Route{c.Address(), "echo"}, "Hello again")
	_ = c.Close()
	// Bob hears of it by way of the registration.
	eventually(t, func() bool { bob.mu.Lock(); defer bob.mu.Unlock(); return len(bob.channels) == 1 })
	if err := g.Close(); err != nil || g.Err() != nil {
		t.Errorf("%v, %v", err, g.Err())
	}
	_, err = alice.Request(inTime(t), toBob, nil)
	wantCode(t, err, code.NoWorker)
}

// TestRenewal: a name leads somewhere while its registration is renewed.
func TestRenewal(t *testing.T) {
	n := newNode(t, Config{})
	anyone := func(Origin, Address) error { return nil }
	if err := n.StartRelay("relay", Relay{Register: anyone}); err != nil {
		t.Fatal(err)
	}
	start(t, n, "echo", echo, Options{})
	body, err := canon.Marshal(registering{"name", "echo", false})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Request(inTime(t), Route{"relay"}, body); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			if _, err := n.Request(inTime(t), Route{"relay"}, body); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		if n.lookup("name") == nil {
			t.Error("the name leads nowhere")
			<-done
			return
		}
	}
}

// TestRegistrationEnds: a registration by a channel that is over is over.
func TestRegistrationEnds(t *testing.T) {
	relayLocal, relays := newLocal(t)
	r, addr := listening(t, Config{Local: relayLocal})
	if err := errors.Join(r.ServeChannels("channels", func(channel.Peer) error { return nil }), r.StartRelay("relay", Relay{})); err != nil {
		t.Fatal(err)
	}
	local, id := newLocal(t)
	n := newNode(t, Config{Local: local})
	c, err := n.OpenChannel(inTime(t), Route{addr, "channels"}, relays)
	if err != nil {
		t.Fatal(err)
	}
	g, err := n.Register(inTime(t), Route{c.Address(), "relay"}, Address(id.String()))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	select {
	case <-g.Done():
		wantCode(t, g.Err(), code.NoWorker)
	case <-time.After(patience):
		t.Error("it goes on")
	}
}
