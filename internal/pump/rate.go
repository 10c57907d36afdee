package pump

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// leastChunk is what is moved at a time at the lowest rates, in bytes.
	leastChunk = 512
	// rateSlack is how far ahead of its rate a copy may be without a pause: a timer
	// is no more exact.
	rateSlack = time.Millisecond
)

// errCut ends a pause because the copy is over.
var errCut = errors.New("the copy is over")

// A Rate keeps those that share it, each of which moves a chunk at a time, to so
// many bytes a second together. They pause after each chunk, in the order in which
// they have moved them, so that all that have something to move come in turn; and
// while they pause they need hold nothing. What is not used is not saved up. The zero
// Rate is no limit. It may be changed at any time, and those that pause go by the
// new one.
type Rate struct {
	limit atomic.Int64 // bytes a second; 0: none

	mu      sync.Mutex
	taken   float64 // bytes that were moved, ever
	paid    float64 // of those, what the time until at has paid for
	at      time.Time
	changed chan struct{} // closed when limit is another; nil: nobody waits
}

// NewRate returns a Rate of so many bytes a second; 0 is no limit.
func NewRate(limit int64) *Rate {
	r := &Rate{}
	r.Set(limit)
	return r
}

// Set makes it so many bytes a second from now on; 0 is no limit.
func (r *Rate) Set(limit int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.payLocked(time.Now())
	r.limit.Store(max(limit, 0))
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// chunk returns how much is moved at a time, of at most most bytes, where that is to
// take part of a second.
func (r *Rate) chunk(most int, part int64) int {
	limit := r.limit.Load()
	if limit == 0 {
		return most
	}
	return int(min(int64(most), max(limit/part, leastChunk)))
}

// A turn is when a chunk is paid for: the count of bytes with it. 0 has come.
type turn float64

// take counts n bytes that were moved, and returns when they are paid for.
func (r *Rate) take(n int) turn {
	if r.limit.Load() == 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.payLocked(time.Now())
	r.taken += float64(n)
	return turn(r.taken)
}

// moved is take of n bytes, if there are any, for one whose turn was before.
func (r *Rate) moved(before turn, n int) turn {
	if n <= 0 {
		return before
	}
	return r.take(n)
}

// owed reports whether wait would pause.
func (r *Rate) owed(t turn) bool {
	if t == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leftLocked(t) > rateSlack
}

// payLocked counts what the time since at has paid for, and at most what was moved.
func (r *Rate) payLocked(now time.Time) {
	limit := float64(r.limit.Load())
	if r.paid = min(r.taken, r.paid+now.Sub(r.at).Seconds()*limit); limit == 0 {
		r.paid = r.taken
	}
	r.at = now
}

// wait pauses until t has come, or until cut is closed.
func (r *Rate) wait(t turn, cut <-chan struct{}) error {
	if t == 0 {
		return nil
	}
	for {
		left, changed := r.left(t)
		if left <= rateSlack {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
		case <-cut:
			timer.Stop()
			return errCut
		}
		timer.Stop()
	}
}

// left returns how long it is until t comes, and what is closed when that changes.
func (r *Rate) left(t turn) (time.Duration, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.leftLocked(t)
	if left > 0 && r.changed == nil {
		r.changed = make(chan struct{})
	}
	return left, r.changed
}

func (r *Rate) leftLocked(t turn) time.Duration {
	r.payLocked(time.Now())
	if r.paid >= float64(t) {
		return 0
	}
	return time.Duration((float64(t) - r.paid) / float64(r.limit.Load()) * float64(time.Second))
}
