package ping

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// Whoever is refused on a way is told what to change, but for what says that somebody's
// program is at fault, and for what is said to others than an inlet.
func TestEveryRefusalHasARemedy(t *testing.T) {
	none := []code.Code{
		code.OK, code.Protocol, code.Stale, code.UnknownChannel, code.KeyExhausted, code.Replaced,
		code.LeaseExpired,                                                  // an outlet's
		code.TargetReset, code.ClientReset, code.Aborted, code.IdleTimeout, // of streams that were open
		code.NoWorker, code.WorkerDenied, code.WorkerStopped, code.WorkerFailed, code.TooManyHops, code.Circle, code.LinkLost, // of messages
		code.RevocationsMalformed, code.RevocationsForged, code.RevocationsOld, code.RevocationsBase, code.RevocationsLost,
		code.TokenRefused, code.NotEnrolled, // a member's
	}
	w := newWorld(t)
	p, err := New(Config{Inlet: w.inlet("echo", "tcp://relay-a:4000/"+w.id("a")+",tcp://relay-b:4000/"+w.id("b"))})
	if err != nil {
		t.Fatal(err)
	}
	s := p.services[0]
	r := &recorder{ctx: t.Context(), p: p, way: &Way{}, at: place{route: s.Routes[0], number: 1, of: 1, outlet: s.Outlet}}
	for c, name := range code.All() {
		why := r.explain(r.at.hop(0), fmt.Errorf("asking: %w", &channel.RefusedError{Code: c, Reason: "no\n\x1b[2J"}))
		switch {
		case c == code.OK:
		case slices.Contains(none, c) != (why.Remedy == ""):
			t.Errorf("%s: the remedy is %q", name, why.Remedy)
		case why.Code != name || strings.ContainsAny(why.Error, "\n\x1b"):
			t.Errorf("%s: %+v", name, why)
		}
	}
	if why := r.explain(r.at.hop(0), &channel.RefusedError{Code: 9999}); why.Code != "unknown" || why.Remedy != "" {
		t.Errorf("a code without a name: %+v", why)
	}
	if why := r.explain(r.at.hop(0), errors.New("else")); why.Code != "unreachable" || why.Error != "else" || !strings.Contains(why.Remedy, "relay-a:4000") {
		t.Errorf("an error that says nothing: %+v", why)
	}
}

// A remedy names what the ping knows: whom, where, what.
func TestRemediesNameTheFacts(t *testing.T) {
	w := newWorld(t)
	p, err := New(Config{Inlet: w.inlet("echo", "tcp://relay-a:4000/"+w.id("a")+",tcp://relay-b:4000/"+w.id("b"))})
	if err != nil {
		t.Fatal(err)
	}
	s := p.services[0]
	r := &recorder{ctx: t.Context(), p: p, way: &Way{}, at: place{route: s.Routes[0], number: 1, of: 1, outlet: s.Outlet}}
	refused := func(c code.Code) error { return &channel.RefusedError{Code: c} }
	for _, tt := range []struct {
		err  error
		want string
	}{
		{refused(code.ConnectDenied), "add this inlet (" + w.id("inlet") + ") to connect"},
		{refused(code.ExtendDenied), "the next one's address (relay-b:4000) to extend"},
		{refused(code.Unreachable), "the next hop (relay-b:4000) runs"},
		{refused(code.NotRegistered), "the outlet (" + w.id("outlet") + ") runs"},
		{refused(code.StreamDenied), "to allow of the service (echo)"},
		{refused(code.AttributeMissing), "the attribute service=echo"},
		{&channel.HandshakeError{Step: "identity", Err: &channel.IdentityError{Got: s.Outlet}}, "write the identifier (" + w.id("outlet") + ")"},
		{&channel.LostError{Code: code.Timeout, Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, "nothing has answered"},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "the relay runs, and listens"},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, "spelt right"},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, "its resolver does not answer"},
		{os.ErrDeadlineExceeded, "the relay is not stopped"},
		{errNoneFound, "says service=echo"},
	} {
		if why := r.explain(r.at.hop(0), tt.err); !strings.Contains(why.Remedy, tt.want) {
			t.Errorf("%v: %q, want it to say %q", tt.err, why.Remedy, tt.want)
		}
	}
}
