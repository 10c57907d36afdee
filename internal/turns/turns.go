// Package turns owns who gives way when more want to come in than there are places:
// those in handshakes that do not come on. How many places there are, and what is done
// in them, its callers say.
package turns

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// Patience is how long a handshake keeps its place whoever waits for one: two round
// trips over the longest lines there are, with a packet lost on the way.
const Patience = 2 * time.Second

// ErrGaveWay is the cause of the end of what had Patience and did not come to an end,
// while others waited.
var ErrGaveWay = errors.New("it took long, and others waited for its place")

// Turns are the handshakes under way that hold places of one kind. The zero Turns has
// none. The methods may be called at any time; those of a nil Turns let nobody give
// way.
type Turns struct {
	mu    sync.Mutex
	under list.List // of *turn, the oldest first
}

// A turn is one handshake.
type turn struct {
	since time.Time
	end   context.CancelCauseFunc
}

// Begin notes a handshake in a place that was taken for it. The context that it returns
// ends, with the cause [ErrGaveWay], when it has to give way, which it then does at
// once, and with ctx. done is called once, when the handshake is over, before its
// place is given back.
func (t *Turns) Begin(ctx context.Context) (_ context.Context, done func()) {
	ctx, end := context.WithCancelCause(ctx)
	if t == nil {
		return ctx, func() { end(nil) }
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.under.PushBack(&turn{time.Now(), end})
	return ctx, func() {
		t.mu.Lock()
		t.under.Remove(e) // nothing, if it has given way
		t.mu.Unlock()
		end(nil)
	}
}

// Take takes one of places, a channel whose capacity is how many there are. It waits for
// one until ctx ends, and reports whether it has one. While there is none, the oldest
// handshake gives way as soon as it has had [Patience], and then the next.
func (t *Turns) Take(ctx context.Context, places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	again := time.NewTimer(t.giveWay())
	defer again.Stop()
	for {
		select {
		case places <- struct{}{}:
			return true
		case <-ctx.Done():
			return false
		case <-again.C:
			again.Reset(t.giveWay())
		}
	}
}

// settle is how long one that gives way may take before another has to.
const settle = 50 * time.Millisecond

// giveWay ends the oldest handshake if that has had its time, and returns when to ask
// again.
func (t *Turns) giveWay() time.Duration {
	if t == nil {
		return Patience
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.under.Front()
	if e == nil {
		return settle // places are taken before handshakes begin
	}
	oldest := e.Value.(*turn)
	if left := Patience - time.Since(oldest.since); left > 0 {
		return left
	}
	t.under.Remove(e)
	oldest.end(ErrGaveWay)
	return settle
}
