package node

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

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

// TestNoCircle: who was let into a mailbox does not wait for it any more, though it has
// not run since.
func TestNoCircle(t *testing.T) {
	n := newNode(t, Config{})
	a, b := &worker{node: n, box: newMailbox(1, 1)}, &worker{node: n, box: newMailbox(1, 1)}
	for _, k := range []*worker{a, b} {
		if err := k.box.put(inTime(t), &Message{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	admitted := make(chan error, 1)
	w := &waiting{by: b, to: a}
	if !n.circles.wait(w) {
		t.Fatal("b may not wait for a")
	}
	go func() { admitted <- a.box.put(inTime(t), &Message{}, w) }()
	eventually(t, func() bool { a.box.mu.Lock(); defer a.box.mu.Unlock(); return a.box.waiting.Len() == 1 })
	a.box.mu.Lock()
	a.box.removeLocked()
	a.box.admitLocked()
	if b.waits.Load() != nil {
		t.Error("b waits for a, which has let it in")
	}
	a.box.mu.Unlock()
	if err := <-admitted; err != nil {
		t.Error(err)
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
		eventually(t, func() bool { return made.Load() == int64(min(2+i, 3)) }) // the sender may hear before
	}
	eventually(t, func() bool { return n.lookup("bomb") == nil })
	if got := made.Load(); got != 3 { // none is made that would not run
		t.Errorf("%d workers were made", got)
	}
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
	go func() { stopped <- n.Stop(inTime(t), "slow") }()
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
	if err := n.Stop(inTime(t), "slow"); err == nil {
		t.Error("it stops twice")
	}
}

func (b *mailbox) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting.Len() == 2
}

// TestGoexit: a worker that ends its goroutine has stopped, and its senders hear.
func TestGoexit(t *testing.T) {
	n := newNode(t, Config{})
	start(t, n, "gone", WorkerFunc(func(context.Context, *Self, *Message) error {
		runtime.Goexit()
		return nil
	}), Options{})
	_, err := n.Request(inTime(t), Route{"gone"}, nil)
	wantCode(t, err, code.WorkerStopped)
	eventually(t, func() bool { return n.lookup("gone") == nil })
}
