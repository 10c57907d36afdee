package node

import (
	"context"
	"sync"
	"sync/atomic"
)

// A turn is one call of a worker's Handle or HandleLoss, as the context that it gets. What
// is sent within it, by whichever Self or Node, holds up the worker: it reads its mailbox
// no more until that is over. What others send by its Self, at the same time or later, does
// not.
type turn struct {
	context.Context
	worker *worker
	over   atomic.Bool
}

type turnKey struct{}

// Value implements context.Context.
func (t *turn) Value(key any) any {
	if key == (turnKey{}) {
		return t
	}
	return t.Context.Value(key)
}

// turnOf returns the worker of n that ctx's call of Handle is of, nil where there is none,
// or it has returned.
func turnOf(ctx context.Context, n *Node) *worker {
	t, _ := ctx.Value(turnKey{}).(*turn)
	if t == nil || t.over.Load() || t.worker.node != n {
		return nil
	}
	return t.worker
}

// A waiting is what a worker's Handle waits for: a place in another one's mailbox, or that
// one's answer to what is in its mailbox or is being handled.
type waiting struct{ by, to *worker }

// end says that nothing is waited for any more, or not for that worker. A nil one is over.
func (w *waiting) end() {
	if w != nil {
		w.by.waits.CompareAndSwap(w, nil)
	}
}

// circles finds workers that would wait for each other for ever.
type circles struct{ mu sync.Mutex }

// wait notes w, unless it would be a wait for oneself.
func (c *circles) wait(w *waiting) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := w.to; at != w.by; {
		next := at.waits.Load()
		if next == nil {
			w.by.waits.Store(w)
			return true
		}
		at = next.to
	}
	return false
}
