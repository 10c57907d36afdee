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
	"github.com/culvert-net/culvert/pkg/route"
)

// bars makes Register deny outlets that show that credential.
func bars(credential *atomic.Pointer[string]) func(*Config) {
	return func(c *Config) {
		c.Register = func(p channel.Peer) error {
			if barred := credential.Load(); barred != nil && shows(p, *barred) {
				return &DeniedError{Code: code.CredentialRevoked, Told: "you may not", Why: "it was revoked"}
			}
			return nil
		}
	}
}

// joinByHand joins a caller to an outlet that registers by hand, and returns the
// control conn and the caller's end.
func joinByHand(t *testing.T, relay *testRelay, outlet *byHand) (*channel.Conn, net.Conn) {
	t.Helper()
	control := outlet.register(t)
	_, parked := outlet.park(t)
	caller := later(&Dialer{Local: newLocal(t)}, route.Route{relay.hop(t)}, outlet.d.Local.Identifier())
	raw := going(t, parked)
	near := (<-caller).must(t)
	go echo(context.Background(), raw)
	carries(t, near, "here")
	return control, near
}

func (o *byHand) show(t *testing.T, credential string) {
	t.Helper()
	if err := o.d.Local.SetCredentials([][]byte{[]byte(credential)}); err != nil {
		t.Fatal(err)
	}
}

// A join is cut when its outlet may be offered no more, whether or not the outlet is
// registered by then.
func TestRecheckAsksAboutOutletsThatHaveLeft(t *testing.T) {
	for _, left := range []bool{false, true} {
		var barred atomic.Pointer[string]
		type end struct {
			code code.Code
			err  error
		}
		ends := make(chan end, 1)
		relay := startRelay(t, bars(&barred), func(c *Config) {
			c.Trace.JoinEnded = func(_ JoinStatus, cd code.Code, err error) { ends <- end{cd, err} }
		})
		outlet := newByHand(t, relay)
		outlet.show(t, "first")
		control, joined := joinByHand(t, relay, outlet)
		if left {
			_ = control.Close()
			eventually(t, "the outlet is not registered", func() bool { return relay.Counts().Registrations == 0 })
		}
		relay.Recheck()
		carries(t, joined, "still here")
		first := "first"
		barred.Store(&first)
		relay.Recheck()
		if _, err := joined.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the outlet has left (%t): %v, want ECONNRESET", left, err)
		}
		if e := <-ends; e.code != code.CredentialRevoked {
			t.Errorf("the join ended with %s and %v, want credential_revoked", e.code, e.err)
		}
		relay.stop()
	}
}

// What an outlet has proven last counts for the joins to it that there are: it has
// registered anew, in the place of its registration or after it, and may have left
// again.
func TestRecheckAsksAboutTheNewest(t *testing.T) {
	for _, tt := range []struct {
		name                string
		leavesFirst, leaves bool
	}{{"in its place", false, false}, {"after it", true, false}, {"and left", false, true}, {"after it, and left", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			var barred atomic.Pointer[string]
			relay := startRelay(t, bars(&barred))
			outlet := newByHand(t, relay)
			outlet.show(t, "first")
			control, joined := joinByHand(t, relay, outlet)
			if tt.leavesFirst {
				_ = control.Close()
				eventually(t, "the outlet is not registered", func() bool { return relay.Counts().Registrations == 0 })
			}
			outlet.show(t, "second")
			control = outlet.register(t)
			if tt.leaves {
				_ = control.Close()
				eventually(t, "the outlet is not registered again", func() bool { return relay.Counts().Registrations == 0 })
			}
			first, second := "first", "second"
			barred.Store(&first)
			relay.Recheck()
			carries(t, joined, "still here")
			barred.Store(&second)
			relay.Recheck()
			if _, err := joined.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want ECONNRESET", err)
			}
			relay.log.await(t, 1, "join ended")
			eventually(t, "nothing is remembered", func() bool {
				relay.mu.Lock()
				defer relay.mu.Unlock()
				return len(relay.joins) == 0 && len(relay.standings) == 0
			})
		})
	}
}
