package ping

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// Whoever is refused on a way is told what to change, but for what says that somebody's
// program is at fault, and for what is said to others than an inlet.
func TestEveryRefusalHasARemedy(t *testing.T) {
	none := []code.Code{
		code.OK, code.Protocol, code.Stale, code.UnknownChannel, code.KeyExhausted, code.ChannelDenied, code.Replaced,
		code.RegisterDenied, code.LeaseExpired, // an outlet's
		code.TargetReset, code.ClientReset, code.Aborted, code.IdleTimeout, // of streams that were open
		code.NoWorker, code.WorkerDenied, code.WorkerStopped, code.WorkerFailed, code.TooManyHops, code.Circle, code.LinkLost, // of messages
		code.RevocationsMalformed, code.RevocationsForged, code.RevocationsOld, code.RevocationsBase, code.RevocationsLost,
		code.TicketRefused, code.TokenRefused, code.NotEnrolled, // a member's
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
	if why := r.explain(r.at.hop(0), errors.New("else")); why.Code != "unreachable" || why.Error != "else" {
		t.Errorf("an error that says nothing: %+v", why)
	}
}
