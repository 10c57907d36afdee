package node

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

func TestEcho(t *testing.T) {
	n := newNode(t, Config{})
	start(t, n, "echo", echo, Options{})
	m := wantEcho(t, n, Route{"echo"}, "Hello")
	if m.From.Outside || len(m.Return) != 1 || m.Return[0] != "echo" {
		t.Errorf("the answer has come from %+v, by %s", m.From, m.Return)
	}
}

// TestHops: each hop takes itself off the onward route and puts itself on the return
// route, on one node and over three.
func TestHops(t *testing.T) {
	b, addr := listening(t, Config{})
	a := newNode(t, Config{})
	routes := make(chan Route, 1)
	start(t, b, "echo", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		routes <- m.Return
		return self.Reply(ctx, m, m.Body)
	}), Options{Allow: Anyone})
	for _, h := range []Address{"h1", "h2", "h3"} {
		if err := b.StartHop(h, Hop{Allow: Anyone}); err != nil {
			t.Fatal(err)
		}
		if err := a.StartHop(h, Hop{}); err != nil {
			t.Fatal(err)
		}
	}
	wantEcho(t, a, Route{"h1", "h2", addr, "h3", "h1", "echo"}, "Hello")
	got := <-routes
	if len(got) != 6 || got[0] != "h1" || got[1] != "h3" || !strings.HasPrefix(string(got[2]), "~conn-") || got[3] != "h2" || got[4] != "h1" || got[5] != a.inbox[0] {
		t.Errorf("the return route is %s", got)
	}
}

func TestForwarderInTheMiddle(t *testing.T) {
	c, last := listening(t, Config{})
	start(t, c, "echo", echo, Options{Allow: Anyone})
	b, middle := listening(t, Config{})
	a := newNode(t, Config{})
	_, err := a.Request(inTime(t), Route{middle, last, "echo"}, nil)
	wantCode(t, err, code.WorkerDenied) // nothing is carried on by default
	if err := b.StartHop("on", Hop{Allow: Anyone}); err != nil {
		t.Fatal(err)
	}
	_, err = a.Request(inTime(t), Route{middle, "on", last, "echo"}, nil)
	wantCode(t, err, code.WorkerDenied) // not there
	if err := b.StartHop("to-c", Hop{Allow: Anyone, To: []Address{last}}); err != nil {
		t.Fatal(err)
	}
	m := wantEcho(t, a, Route{middle, "to-c", last, "echo"}, "Hello")
	if !m.From.Outside || !m.From.Carried {
		t.Errorf("what b passes on is from %+v", m.From)
	}
}

func TestNothingFromOutside(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "echo", echo, Options{})
	if err := b.StartHop("hop", Hop{}); err != nil {
		t.Fatal(err)
	}
	a := newNode(t, Config{})
	for _, r := range []Route{{addr, "echo"}, {addr, "hop", "echo"}} {
		_, err := a.Request(inTime(t), r, nil)
		wantCode(t, err, code.WorkerDenied)
	}
	_, err := a.Request(inTime(t), Route{addr, "nobody"}, nil)
	wantCode(t, err, code.NoWorker)
	wantEcho(t, b, Route{"hop", "echo"}, "from inside")
}

func TestUnreachable(t *testing.T) {
	a := newNode(t, Config{})
	_, err := a.Request(inTime(t), Route{"tcp://127.0.0.1:1", "echo"}, nil)
	wantCode(t, err, code.Unreachable)
	if err := a.Send(inTime(t), Route{}, nil); err == nil {
		t.Error("an empty route is taken")
	}
	if err := a.Send(inTime(t), Route{"x"}, make([]byte, MaxBody+1)); err == nil {
		t.Error("a body is too large, and taken")
	}
}

// TestLoop: a message that workers send round in a circle ends.
func TestLoop(t *testing.T) {
	n := newNode(t, Config{})
	var passed atomic.Int64
	lost := make(chan *DeliveryError, 1)
	start(t, n, "loop", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		passed.Add(1)
		m.Return = nil
		return self.ForwardTo(ctx, m, Route{"loop"})
	}), Options{})
	n.trace.Lost = func(err *DeliveryError) { lost <- err }
	if err := n.Send(inTime(t), Route{"loop"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; err.Code != code.TooManyHops {
		t.Errorf("got %v", err)
	}
	if got := passed.Load(); got != maxHops {
		t.Errorf("the message has passed %d times, want %d", got, maxHops)
	}
}
