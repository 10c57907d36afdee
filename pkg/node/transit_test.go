package node

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestForwardAsksTransit: a worker that forwards what strangers send takes nothing to a
// transport's address that they name, unless the node's Transit or the worker itself
// says so.
func TestForwardAsksTransit(t *testing.T) {
	last, lastAddr := listening(t, Config{})
	start(t, last, "echo", echo, Options{Allow: Anyone})
	transit := func(_ Origin, to Address) error {
		if to != lastAddr {
			return errors.New("not there")
		}
		return nil
	}
	forward := WorkerFunc(func(ctx context.Context, self *Self, m *Message) error { return self.Forward(ctx, m) })
	for _, c := range []struct {
		name    string
		transit func(Origin, Address) error
		w       Worker
		rest    Route
		want    code.Code // OK: it arrives
	}{
		{"by default", nil, forward, Route{lastAddr, "echo"}, code.WorkerDenied},
		{"Transit allows it", transit, forward, Route{lastAddr, "echo"}, code.OK},
		{"Transit refuses it", transit, forward, Route{"tcp://127.0.0.1:1", "echo"}, code.WorkerDenied},
		{"the worker names it", nil, WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
			if len(m.Onward) > 0 && m.Onward[0].isTransport() || m.kind != plain {
				return self.Forward(ctx, m)
			}
			return self.ForwardTo(ctx, m, Route{lastAddr})
		}), Route{"echo"}, code.OK},
		{"by a second worker", nil, WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
			if m.kind != plain {
				return self.Forward(ctx, m)
			}
			return self.ForwardTo(ctx, m, Route{"second"})
		}), Route{lastAddr, "echo"}, code.WorkerDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			middle, addr := listening(t, Config{Transit: c.transit})
			start(t, middle, "w", c.w, Options{Allow: Anyone})
			start(t, middle, "second", forward, Options{Allow: Anyone})
			a := newNode(t, Config{})
			m, err := a.Request(inTime(t), append(Route{addr, "w"}, c.rest...), []byte("Hello"))
			switch {
			case c.want != code.OK:
				wantCode(t, err, c.want)
			case err != nil:
				t.Error(err)
			case string(m.Body) != "Hello" || !m.From.Outside:
				t.Errorf("got %q from %+v", m.Body, m.From)
			}
		})
	}
}

// TestLinkAddressIsNotEnough: a conn's address, which others see on return routes, is of
// use to those it was shown to, and by the way that they got it.
func TestLinkAddressIsNotEnough(t *testing.T) {
	middle, addr := listening(t, Config{})
	far, farAddr := listening(t, Config{})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{farAddr}}); err != nil {
		t.Fatal(err)
	}
	seen := make(chan Route, 1)
	start(t, far, "echo", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		seen <- m.Return
		return self.Reply(ctx, m, m.Body)
	}), Options{Allow: Anyone})
	a := newNode(t, Config{})
	got := make(chan string, 1)
	start(t, a, "inbox", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		got <- string(m.Body)
		return nil
	}), Options{Allow: Anyone})
	wantEcho(t, a, Route{addr, "on", farAddr, "echo"}, "Hello")
	back := <-seen // the conn of the middle's, the hop, the conn of a's, a's place for answers
	if len(back) != 4 || !strings.HasPrefix(string(back[2]), own+"conn-") {
		t.Fatalf("the return route is %s", back)
	}
	// Far was written to from there, and writes back.
	if err := far.Send(inTime(t), Route{back[0], back[2], "inbox"}, []byte("from far")); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "from far" {
		t.Errorf("got %q", text)
	}
	// Another node that has the address from far has nothing.
	mallory := newNode(t, Config{})
	_, err := mallory.Request(inTime(t), Route{addr, back[2], "inbox"}, []byte("from mallory"))
	wantCode(t, err, code.WorkerDenied)
	// Nor has it by a hop that carries for it.
	_, err = mallory.Request(inTime(t), Route{addr, "on", back[2], "inbox"}, []byte("from mallory"))
	wantCode(t, err, code.WorkerDenied)
	select {
	case text := <-got:
		t.Errorf("a has got %q", text)
	default:
	}
}

// TestReachedForgets: links that have ended are not kept.
func TestReachedForgets(t *testing.T) {
	n := newNode(t, Config{})
	var r reached
	live := &link{node: n, address: "~conn-live"}
	if err := n.add(live.address, live); err != nil {
		t.Fatal(err)
	}
	r.add(live)
	for range 10 * leastPrune {
		r.add(&link{node: n, address: ownAddress("conn")})
	}
	if len(r.links) > leastPrune+1 || !r.by(live) || r.by(nil) {
		t.Errorf("%d are kept; the live one: %t", len(r.links), r.by(live))
	}
}

// TestOwnAddresses: they are long, random, and nobody chooses such a one.
func TestOwnAddresses(t *testing.T) {
	seen := map[Address]bool{}
	for range 1000 {
		a := ownAddress("conn")
		if random := strings.TrimPrefix(string(a), own+"conn-"); len(random) != 26 || seen[a] { // 128 bits in base32
			t.Fatalf("an address is %s", a)
		}
		seen[a] = true
		if a.Check() != nil || a.checkChosen() == nil {
			t.Errorf("%s: %v, %v", a, a.Check(), a.checkChosen())
		}
	}
}
