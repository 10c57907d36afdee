package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestClosedFlowsAreBounded: flows whose messages wait count until those are
// delivered, closed or not.
func TestClosedFlowsAreBounded(t *testing.T) {
	b, addr := listening(t, Config{})
	stall(t, b, 1)
	s := newStranger(t, addr)
	_ = s.SetDeadline(time.Now().Add(patience))
	for range 4 * maxFlows {
		n, err := s.put(Route{"stalled"}, nil, head{hops: 9}, "x")
		if err != nil {
			break
		}
		if _, err := s.Write(frame{frameClose, 0, n}.append(nil)); err != nil {
			break
		}
	}
	if _, err := io.Copy(io.Discard, s); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d flows have ended and wait, on %d goroutines", s.flows, runtime.NumGoroutine())
	}
}

// TestFlowsTurnOver: where all flows of a conn are taken, a route more waits for
// whichever is free first, and not for those that stall.
func TestFlowsTurnOver(t *testing.T) {
	t.Parallel()
	b, addr := listening(t, Config{})
	stallFull(t, b)
	start(t, b, "echo", echo, Options{Allow: Anyone})
	via := func(i int, to Address) Route {
		h := Address(fmt.Sprint("h", i))
		if b.lookup(h) == nil {
			if err := b.StartHop(h, Hop{Allow: Anyone}); err != nil {
				t.Fatal(err)
			}
		}
		return Route{addr, h, to}
	}
	for name, c := range map[string]struct{ stalled, busy int }{
		"those quiet for longest stall": {stalled: 8},
		"all but one are busy":          {stalled: maxFlows - 1, busy: maxFlows - 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := newNode(t, Config{})
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			for i := range c.stalled {
				r := via(i, "stalled")
				if err := a.Send(inTime(t), r, make([]byte, startCredit-messageHead)); err != nil {
					t.Fatal(err)
				}
				if i < c.busy {
					wg.Go(func() { _ = a.Send(ctx, r, nil) })
				}
			}
			for i := range maxFlows - c.stalled {
				wantEcho(t, a, via(i, "echo"), "there")
			}
			l := a.dials[addr].link
			eventually(t, func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				busy := 0
				for _, f := range l.flows {
					busy += f.users
				}
				return busy == c.busy && len(l.flows) == maxFlows
			})
			within := inTime(t)
			var others sync.WaitGroup
			for s := range 4 {
				others.Go(func() {
					for i := range 10 {
						if _, err := a.Request(within, Route{addr, Address(fmt.Sprint("h", 10*s+i)), "h0", "echo"}, make([]byte, 20<<10)); err != nil {
							t.Errorf("route %d of %d: %v", i, s, err)
							return
						}
					}
				})
			}
			others.Wait()
		})
	}
}

// TestFlowsAreBounded: more routes than there may be flows are used one after the
// other and at once.
func TestFlowsAreBounded(t *testing.T) {
	b, addr := listening(t, Config{})
	a := newNode(t, Config{})
	const routes = maxFlows + 50
	for i := range routes {
		if err := b.StartHop(Address(fmt.Sprint("h", i)), Hop{Allow: Anyone}); err != nil {
			t.Fatal(err)
		}
	}
	start(t, b, "echo", echo, Options{Allow: Anyone})
	for range 2 {
		for i := range routes {
			wantEcho(t, a, Route{addr, Address(fmt.Sprint("h", i)), "echo"}, fmt.Sprint(i))
		}
	}
}

// TestOrder: what a sender sends along a route arrives in order, whole and once,
// beside others, in sizes that take several frames and the node's budget.
func TestOrder(t *testing.T) {
	t.Parallel()
	b, addr := listening(t, Config{Buffer: 1})
	sizes := []int{0, 1, 100, 8 << 10, 16 << 10, 64 << 10, 300 << 10, 2 << 20}
	const senders, each = 4, 40
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

// TestCreditBesideClaim: credit that is given while a message is about to claim room is
// neither lost nor counted twice.
func TestCreditBesideClaim(t *testing.T) {
	t.Parallel()
	const small = 1000
	b, addr := listening(t, Config{})
	a := newNode(t, Config{})
	release := make(chan struct{})
	var held, claims atomic.Bool
	start(t, b, "sink", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-release
		return nil
	}), Options{Mailbox: 1, Allow: func(Origin) error {
		if !claims.CompareAndSwap(true, false) {
			return nil
		}
		// The reader looks whether a large message is wanted, which has taken all credit.
		// What is before it is delivered now, and the message takes what that gives back.
		close(release)
		l := a.dials[addr].link
		eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, f := range l.flows {
				if f.charged >= startCredit && f.credit == 0 {
					held.Store(true)
				}
			}
			return held.Load()
		})
		return nil
	}})
	for range 3 { // one that it handles, one in its mailbox, and one that waits for it
		if err := a.Send(inTime(t), Route{addr, "sink"}, make([]byte, small-messageHead)); err != nil {
			t.Fatal(err)
		}
	}
	box := b.lookup("sink").(*worker).box
	eventually(t, func() bool {
		box.mu.Lock()
		defer box.mu.Unlock()
		return box.waiting.Len() > 0
	})
	claims.Store(true)
	for i := range 8 {
		if err := a.Send(inTime(t), Route{addr, "sink"}, make([]byte, 1<<20)); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if !held.Load() {
		t.Error("no credit has come before the claim")
	}
}

// TestStalledMailbox: a mailbox that is never read stalls its senders and nobody
// else, on one node and behind a conn that they share, through a hop.
func TestStalledMailbox(t *testing.T) {
	b, addr := listening(t, Config{})
	stall(t, b, 4)
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
	if n := sent.Load(); n > 4+2*(2*startCredit>>10)+2 { // the flows may have grown once
		t.Errorf("%d messages of 1 KiB are held for a mailbox of 4", n)
	}
}

// TestRedial: who sends when a conn has just ended makes another one.
func TestRedial(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	held, release := make(chan struct{}), make(chan struct{})
	a := newNode(t, Config{})
	start(t, a, "back", WorkerFunc(func(context.Context, *Self, *Message) error { return nil }), Options{Allow: func(Origin) error {
		close(held)
		<-release
		return nil
	}})
	wantEcho(t, a, Route{addr, "echo"}, "there")
	// Something of the conn's lasts a while.
	start(t, b, "sends", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		return self.Send(ctx, Route{m.Return[0], "back"}, nil)
	}), Options{Allow: Anyone})
	if err := a.send(inTime(t), &Message{Onward: Route{addr, "sends"}, Return: a.inbox, hops: 9}, nil); err != nil {
		t.Fatal(err)
	}
	<-held
	defer close(release)
	a.mu.Lock()
	l := a.dials[addr].link
	a.mu.Unlock()
	l.close(errLinkClosed)
	wantEcho(t, a, Route{addr, "echo"}, "there again")
}

// TestFlowNumbersGoRound: once all numbers were given, those that are free are given again.
func TestFlowNumbersGoRound(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	downs := make(chan error, 1)
	a := newNode(t, Config{Trace: &Trace{LinkDown: func(_ Address, err error) { downs <- err }}})
	wantEcho(t, a, Route{addr, "echo"}, "there")
	l := a.dialled()[0]
	l.mu.Lock()
	l.last = math.MaxUint32 - 1
	l.mu.Unlock()
	for i := range 4 {
		h := Address(fmt.Sprint("h", i))
		if err := b.StartHop(h, Hop{Allow: Anyone}); err != nil {
			t.Fatal(err)
		}
		wantEcho(t, a, Route{addr, h, "echo"}, "there")
	}
	select {
	case err := <-downs:
		t.Errorf("the conn has ended: %v", err)
	default:
	}
}
