package relay

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// holdCaller returns what becomes of a caller, once it is held.
func holdCaller(t *testing.T, relay *testRelay, outlet *byHand) <-chan result {
	t.Helper()
	caller := later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, outlet.d.Local.Identifier())
	eventually(t, "the caller is held", func() bool {
		st := relay.Status().Registrations
		return len(st) == 1 && st[0].Waiting == 1
	})
	return caller
}

// A caller that is held when the relay begins to drain is told so at once: no
// conn is asked for any more.
func TestHeldWhileDraining(t *testing.T) {
	relay := startRelay(t, func(c *Config) { c.Timing.Hold = time.Minute })
	outlet := newByHand(t, relay)
	outlet.register(t)
	caller := holdCaller(t, relay, outlet)
	if err := relay.Drain(context.Background(), time.Hour); err != nil {
		t.Errorf("Drain: %v", err)
	}
	wantRefusal(t, (<-caller).err, code.Draining, "relay is going away")
}

// A caller that is held while the lists change is asked about again before it is
// joined.
func TestHeldWhileRechecked(t *testing.T) {
	var denied atomic.Bool
	relay := startRelay(t, func(c *Config) {
		c.Connect = func(channel.Peer, identity.Identifier) error {
			if denied.Load() {
				return errors.New("not any more")
			}
			return nil
		}
	})
	outlet := newByHand(t, relay)
	outlet.register(t)
	caller := holdCaller(t, relay, outlet)
	denied.Store(true)
	relay.Recheck()
	_, parked := outlet.mustAsk(t, request{Kind: kindPark})
	going(t, parked)
	wantRefusal(t, (<-caller).err, code.ConnectDenied, "not any more")
	if n := relay.log.count("joined"); n != 0 {
		t.Errorf("%d joins, want none", n)
	}
}

// A registration that the lists allowed a moment ago does not slip past a
// Recheck that comes before it stands in the table.
func TestRegistrationSlipsNotIn(t *testing.T) {
	var relay *testRelay
	var denied atomic.Bool
	relay = startRelay(t, func(c *Config) {
		c.Register = func(channel.Peer) error {
			if denied.Swap(true) {
				return errors.New("not any more")
			}
			relay.Recheck() // the list changes now
			return nil
		}
	})
	outlet := newByHand(t, relay)
	_, _, _ = outlet.ask(t, request{Kind: kindRegister})
	relay.log.await(t, 1, "registration ended register_denied")
	if n := len(relay.Status().Registrations); n != 0 {
		t.Errorf("%d registrations, want none", n)
	}
}
