package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// steps are what a Dialer's Trace has told.
type steps []Step

func (s *steps) add(st Step) { *s = append(*s, st) }

// told returns a line for each step, with names in the place of addresses.
func (s *steps) told(names ...string) (lines []string) {
	short := strings.NewReplacer(names...)
	for _, st := range *s {
		line := fmt.Sprintf("%d %s", st.Hop, st.Kind)
		for _, more := range append([]string{st.Address, st.Request}, st.Addresses...) {
			if more != "" {
				line += " " + more
			}
		}
		if st.Err != nil {
			line += " failed"
		}
		lines = append(lines, short.Replace(line))
	}
	return lines
}

func wantSteps(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("steps:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// A Dialer's Trace hears of each step in its order, of those at an address that does
// not answer, too.
func TestSteps(t *testing.T) {
	dns := &hosts{}
	a := startRelay(t)
	b := startRelay(t, func(c *Config) {
		c.Offers = func() func(channel.Peer, string) bool {
			return func(channel.Peer, string) bool { return true }
		}
	})
	port := netip.MustParseAddrPort(a.addr).Port()
	dead := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port).String()
	dns.set("relay-a", "127.0.0.1", "127.0.0.2")
	names := []string{a.addr, "A", b.addr, "B", dead, "DEAD"}

	// One for whom the address where nobody listens comes first.
	outlet := newLocal(t)
	for first := ""; first != dead; {
		outlet = newLocal(t)
		addresses, err := resolve(context.Background(), dns.lookup, "relay-a", port, outlet.Identifier())
		if err != nil {
			t.Fatal(err)
		}
		first = addresses[0]
	}
	agent := startAgent(t, outlet, route.Route{b.hop(t)})
	agent.log.await(t, 1, "registered at")

	var seen steps
	d := &Dialer{Local: newLocal(t), LookupHost: dns.lookup, Trace: seen.add}
	r := route.Route{a.hop(t, "relay-a"), b.hop(t)}
	began := time.Now()
	path(t, d, r, outlet.Identifier(), nil)
	whole := time.Since(began)
	wantSteps(t, seen.told(names...),
		"1 resolve DEAD A", "1 connect DEAD failed", "1 connect A", "1 handshake A", "1 answer A extend", "2 handshake B", "2 answer B connect")
	var sum time.Duration
	for _, s := range seen {
		if s.Took < 0 {
			t.Errorf("step %+v took less than nothing", s)
		}
		sum += s.Took
	}
	if sum > whole {
		t.Errorf("the steps took %v together, all of it only %v", sum, whole)
	}

	t.Run("find", func(t *testing.T) {
		seen = nil
		found, err := d.Find(context.Background(), route.Route{b.hop(t)}, "orders-db")
		if err != nil || len(found) != 1 {
			t.Fatalf("found %v, %v; want one", found, err)
		}
		wantSteps(t, seen.told(names...), "1 resolve B", "1 connect B", "1 handshake B", "1 answer B find")
	})
	t.Run("wrong identity", func(t *testing.T) {
		seen = nil
		wrong := b.hop(t)
		wrong.Identifier = newIdentity(t).Identifier()
		_ = noPath(t, d, route.Route{wrong}, outlet.Identifier(), nil)
		wantSteps(t, seen.told(names...), "1 resolve B", "1 connect B", "1 handshake B failed")
		var got *channel.IdentityError
		if err := seen[2].Err; !errors.As(err, &got) || got.Got != b.local.Identifier() {
			t.Errorf("the step failed with %v, want an IdentityError that names who answered", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		seen = nil
		_ = noPath(t, d, route.Route{a.hop(t), b.hop(t)}, identity.Identifier{1}, nil)
		wantSteps(t, seen.told(names...),
			"1 resolve A", "1 connect A", "1 handshake A", "1 answer A extend", "2 handshake B", "2 answer B connect failed",
			// The relay before it may know another address of B's.
			"1 connect A", "1 handshake A", "1 answer A extend failed")
		if t.Failed() {
			return
		}
		wantRefusal(t, seen[5].Err, code.NotRegistered, "")
		wantRefusal(t, seen[8].Err, code.NoAddress, "")
	})
	t.Run("nobody resolves it", func(t *testing.T) {
		seen = nil
		_ = noPath(t, d, route.Route{a.hop(t, "nowhere")}, outlet.Identifier(), nil)
		wantSteps(t, seen.told(names...), "1 resolve failed")
	})
}
