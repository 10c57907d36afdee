package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// TestOrder: what a sender sends along a route arrives in order, whole and once,
// beside others, in sizes that take several frames and the node's budget.
func TestOrder(t *testing.T) {
	b, addr := listening(t, Config{Buffer: 1})
	sizes := []int{0, 1, 100, 8 << 10, 16 << 10, 64 << 10, 300 << 10, 2 << 20}
	const senders, each = 4, 60
	type got struct {
		mu   sync.Mutex
		next [senders]int
		left int
	}
	g := &got{left: senders * each}
	done := make(chan struct{})
	start(t, b, "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		var s, i int
		text, fill, _ := bytes.Cut(m.Body, []byte{'\n'})
		if _, err := fmt.Sscanf(string(text), "%d %d", &s, &i); err != nil || g.next[s] != i || len(fill) != sizes[i%len(sizes)] || bytes.Count(fill, []byte{byte(i)}) != len(fill) {
			t.Errorf("%d of sender %d comes when it is %d's turn, with %d bytes (%v)", i, s, g.next[s], len(fill), err)
		}
		g.next[s]++
		if g.left--; g.left == 0 {
			close(done)
		}
		return nil
	}), Options{Allow: Anyone, Mailbox: 2})
	a := newNode(t, Config{})
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			w := make(chan struct{})
			start(t, a, Address(fmt.Sprintf("s%d", s)), WorkerFunc(func(_ context.Context, self *Self, _ *Message) error {
				defer close(w)
				for i := range each {
					body := append(fmt.Appendf(nil, "%d %d\n", s, i), bytes.Repeat([]byte{byte(i)}, sizes[i%len(sizes)])...)
					if err := self.Send(inTime(t), Route{addr, "sink"}, body); err != nil {
						t.Errorf("sender %d: %v", s, err)
					}
				}
				return nil
			}), Options{})
			if err := a.Send(inTime(t), Route{Address(fmt.Sprintf("s%d", s))}, nil); err != nil {
				t.Error(err)
			}
			<-w
		})
	}
	wg.Wait()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%d messages have not come", g.left)
	}
}

// TestStalledMailbox: a mailbox that is never read stalls its senders and nobody
// else, on one node and behind a conn that they share, through a hop.
func TestStalledMailbox(t *testing.T) {
	b, addr := listening(t, Config{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	start(t, b, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-release
		return nil
	}), Options{Allow: Anyone, Mailbox: 4})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	if err := b.StartHop("hop", Hop{Allow: Anyone}); err != nil {
		t.Fatal(err)
	}
	a := newNode(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	var sent atomic.Int64
	for _, r := range []Route{{addr, "stalled"}, {addr, "hop", "stalled"}} {
		wg.Go(func() {
			for a.Send(ctx, r, make([]byte, 1<<10)) == nil {
				sent.Add(1)
			}
		})
	}
	eventually(t, func() bool { // they stand
		before := sent.Load()
		time.Sleep(50 * time.Millisecond)
		return before > 0 && sent.Load() == before
	})
	for range 100 {
		wantEcho(t, a, Route{addr, "echo"}, "lively")
		wantEcho(t, a, Route{addr, "hop", "echo"}, "lively")
	}
	if n := sent.Load(); n > 4+2*(startCredit>>10)+2 {
		t.Errorf("%d messages of 1 KiB are held for a mailbox of 4", n)
	}
}

func eventually(t testing.TB, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestCircle: two workers with full mailboxes that send to each other do not wait for
// ever: one of them hears of it.
func TestCircle(t *testing.T) {
	n := newNode(t, Config{})
	var circles, handled atomic.Int64
	to := func(other Address) Worker {
		return WorkerFunc(func(ctx context.Context, self *Self, _ *Message) error {
			handled.Add(1)
			for range 4 {
				var de *DeliveryError
				if err := self.Send(ctx, Route{other}, nil); errors.As(err, &de) && de.Code == code.Circle {
					circles.Add(1)
				} else if err != nil && ctx.Err() == nil && handled.Load() <= 1000 { // else the other may have stopped
					t.Errorf("sending to %s: %v", other, err)
				}
				if handled.Load() > 1000 {
					self.Stop()
					return nil
				}
			}
			return nil
		})
	}
	start(t, n, "a", to("b"), Options{Mailbox: 2})
	start(t, n, "b", to("a"), Options{Mailbox: 2})
	for _, a := range []Address{"a", "b"} {
		if err := n.Send(inTime(t), Route{a}, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return handled.Load() > 1000 })
	if circles.Load() == 0 {
		t.Error("no send would have waited in a circle")
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

// TestPanics: a worker goes on after panics, anew where it says how, until there are
// too many; the sender of each message hears.
func TestPanics(t *testing.T) {
	var made atomic.Int64
	n := newNode(t, Config{})
	bomb := func() Worker {
		made.Add(1)
		return WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
			if string(m.Body) == "bang" {
				panic("bang")
			}
			return self.Reply(ctx, m, m.Body)
		})
	}
	start(t, n, "bomb", bomb(), Options{Restart: bomb, Restarts: 2})
	for i := range 3 {
		wantEcho(t, n, Route{"bomb"}, "quiet")
		_, err := n.Request(inTime(t), Route{"bomb"}, []byte("bang"))
		wantCode(t, err, code.WorkerFailed)
		if got := made.Load(); got != int64(2+i) {
			t.Errorf("%d workers were made after %d panics", got, i+1)
		}
	}
	eventually(t, func() bool { return n.lookup("bomb") == nil })
	_, err := n.Request(inTime(t), Route{"bomb"}, nil)
	wantCode(t, err, code.NoWorker)
}

// TestStop: what waits for a worker that stops is lost, and its senders hear.
func TestStop(t *testing.T) {
	n := newNode(t, Config{})
	in, out := make(chan struct{}), make(chan struct{})
	start(t, n, "slow", WorkerFunc(func(ctx context.Context, _ *Self, _ *Message) error {
		in <- struct{}{}
		<-out
		<-ctx.Done() // Stop may have come no further than to here
		return ctx.Err()
	}), Options{Mailbox: 2})
	errs := make(chan error, 5)
	for range 5 {
		go func() {
			_, err := n.Request(inTime(t), Route{"slow"}, nil)
			errs <- err
		}()
	}
	<-in
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop("slow") }()
	eventually(t, func() bool { w, ok := n.lookup("slow").(*worker); return ok && w.box.full() })
	close(out)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	codes := map[code.Code]int{}
	for range 5 {
		var de *DeliveryError
		if err := <-errs; errors.As(err, &de) {
			codes[de.Code]++
		} else {
			t.Errorf("got %v", err)
		}
	}
	if codes[code.WorkerFailed] != 1 || codes[code.WorkerStopped] != 4 {
		t.Errorf("got %v", codes)
	}
	if err := n.Stop("slow"); err == nil {
		t.Error("it stops twice")
	}
}

func (b *mailbox) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting.Len() == 2
}
