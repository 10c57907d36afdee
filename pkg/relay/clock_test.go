package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/sock/socktest"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// What is about times runs on a clock of its own here, with conns in memory: no machine
// is too slow for it.

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// onClock runs f with a relay, and the Dial by which it is reached, on a clock of its own.
func onClock(t *testing.T, with func(*Config), f func(t *testing.T, relay *testRelay, dial func(context.Context, string, string) (net.Conn, error))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ln := socktest.ListenAt(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:4000")))
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return ln.Dial(ctx) }
		relay := startRelayOn(t, ln, newLocal(t), with)
		relay.dial = func() (net.Conn, error) { return ln.Dial(t.Context()) }
		f(t, relay, dial)
		relay.stop()
	})
}

// A registration that is not renewed goes, and its spares with it; one that is
// renewed stays.
func TestLease(t *testing.T) {
	const lease = 30 * time.Second
	onClock(t, func(c *Config) { c.Timing.Lease = lease }, func(t *testing.T, relay *testRelay, dial func(context.Context, string, string) (net.Conn, error)) {
		agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)}, func(c *AgentConfig) { c.Dialer.Dial = dial })
		agent.log.await(t, 1, "registered at")
		outlet := newByHand(t, relay)
		start := time.Now()
		control := outlet.register(t)
		_ = control.SetReadDeadline(time.Time{})
		_, parked := outlet.park(t)
		_ = parked.SetReadDeadline(time.Time{})
		gone := make(chan error, 1)
		go func() { // which answers PING
			_, err := readMessage(parked)
			gone <- err
		}()
		var err error
		for err == nil {
			_, err = readMessage(control)
		}
		var closed *channel.CloseError
		if !errors.As(err, &closed) || closed.Code != code.LeaseExpired {
			t.Errorf("got %v, want a close with %s", err, code.LeaseExpired)
		}
		if took := time.Since(start); took < lease || took > lease+time.Second {
			t.Errorf("the lease of %v ran out after %v", lease, took)
		}
		if err := <-gone; !errors.As(err, &closed) || closed.Code != code.LeaseExpired {
			t.Errorf("the parked conn: got %v, want a close with %s", err, code.LeaseExpired)
		}
		relay.log.await(t, 1, "registration ended lease_expired")
		err = noPath(t, &Dialer{Local: newLocal(t), Dial: dial}, route.Route{relay.hop(t)}, outlet.d.Local.Identifier(), nil)
		wantRefusal(t, err, code.NotRegistered, "")
		time.Sleep(10 * lease)
		if agent.log.count("lost") != 0 || agent.log.count("registered at") != 1 || relay.Counts().Registrations != 1 {
			t.Errorf("the agent that renews:\n%s", agent.log)
		}
		agent.stop()
	})
}

// Silent callers fill the handshakes' slots, no more, and only for a time.
func TestHandshakeSlots(t *testing.T) {
	const slots, silent = 2, 6
	with := func(c *Config) {
		c.Limits.Handshakes = slots
		c.Channel.Timeout = turns.Patience / 2 // before any gives way
	}
	onClock(t, with, func(t *testing.T, relay *testRelay, dial func(context.Context, string, string) (net.Conn, error)) {
		var calling sync.WaitGroup
		defer calling.Wait()
		for range silent {
			calling.Go(func() {
				if nc, err := dial(t.Context(), "", ""); err == nil {
					t.Cleanup(func() { nc.Close() })
				}
			})
		}
		synctest.Wait()
		if got := relay.Status().Handshakes; got != slots {
			t.Errorf("%d handshakes are under way, want %d", got, slots)
		}
		newByHand(t, relay).register(t) // the last in the row
		if got := relay.log.count("handshake failed"); got < silent-slots+1 {
			t.Errorf("%d of %d silent callers had been given up when the one behind them was served, want %d at least", got, silent, silent-slots+1)
		}
	})
}

// Draining spreads the ends of joins over its time.
func TestDrainIsSpread(t *testing.T) {
	const joins, over = 8, 8 * time.Minute
	far := make(chan net.Conn, joins)
	extend := func(context.Context, string, string) (net.Conn, error) {
		near, nc := net.Pipe()
		far <- nc
		return near, nil
	}
	with := func(c *Config) { c.Dial, c.Timing.Idle = extend, 2*over }
	onClock(t, with, func(t *testing.T, relay *testRelay, dial func(context.Context, string, string) (net.Conn, error)) {
		d := &Dialer{Local: newLocal(t), Dial: dial}
		next := route.Hop{Host: "192.0.2.2", Port: 4000, Identifier: newLocal(t).Identifier()}
		ended := make(chan time.Duration, joins)
		start := time.Now()
		for range joins {
			nc := path(t, d, route.Route{relay.hop(t), next}, next.Identifier, nil)
			_ = nc.SetDeadline(time.Time{})
			go echo(t.Context(), <-far)
			carries(t, nc, "x")
			go func() {
				_, _ = nc.Read(make([]byte, 1))
				ended <- time.Since(start)
			}()
		}
		if err := relay.Drain(t.Context(), over); err != nil {
			t.Errorf("Drain: %v", err)
		}
		before := time.Duration(0)
		for i := range joins {
			at := <-ended
			if at <= before || at > over {
				t.Errorf("join %d of %d ended after %v, the one before after %v: want them spread over %v", i, joins, at, before, over)
			}
			before = at
		}
		if before < over/2 {
			t.Errorf("the last join ended after %v of %v", before, over)
		}
		if n := relay.log.count("relay is draining"); n != joins {
			t.Errorf("%d joins ended by draining, want %d", n, joins)
		}
	})
}
