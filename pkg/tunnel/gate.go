package tunnel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// gateBytes is how much of all streams together may wait inside the mux,
	// which sends in the order of arrival. Large frames have less where the
	// carrier says so, but one.
	gateBytes = 256 << 10
	// Frames of up to smallFrame bytes go first, but after smallStreak of them
	// in a row a larger one that waits gets its turn.
	smallFrame  = 4 << 10
	smallStreak = 16
	// minData is the least that a DATA frame holds on a slow carrier, where there
	// is so much: more than a small frame.
	minData = 5 << 10
)

// A gate stands before the mux and decides whose frame is next: streams are
// served in turn, small frames first. Each stream has at most one frame at the
// gate, so the order of arrival is the turn.
type gate struct {
	backlog func() int // of the carrier; nil for gateBytes

	mu     sync.Mutex
	free   int
	small  waiters
	bulk   waiters
	inside atomic.Int32 // frames that have passed and not left the mux
	streak int          // small frames passed since the last bulk one, while one waits
}

// A waiter is a stream's place at the gate, used for one frame after another.
type waiter struct {
	n          int
	granted    bool
	ready      chan struct{} // capacity 1
	prev, next *waiter
}

// waiters is a doubly linked queue.
type waiters struct{ head, tail *waiter }

func (q *waiters) push(w *waiter) {
	w.prev, w.next = q.tail, nil
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
}

func (q *waiters) remove(w *waiter) {
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

func (g *gate) queue(n int) *waiters {
	if n <= smallFrame {
		return &g.small
	}
	return &g.bulk
}

// enter asks for passage of n bytes. It reports whether w has passed already;
// otherwise w.ready receives when it has, or leave gives up.
func (g *gate) enter(w *waiter, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.n, w.granted = n, false
	g.queue(n).push(w)
	g.grantLocked()
	if w.granted {
		<-w.ready
	}
	return w.granted
}

// leave gives up waiting, or gives back a passage that came just now.
func (g *gate) leave(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.granted {
		g.queue(w.n).remove(w)
	} else {
		select {
		case <-w.ready:
		default:
		}
		g.free += w.n
		g.inside.Add(-1)
	}
	g.grantLocked()
}

// passed reports whether w has passed, and takes the signal if so and nobody
// has.
func (g *gate) passed(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.granted {
		select {
		case <-w.ready:
		default:
		}
	}
	return w.granted
}

// done says that the frame of n bytes has left the mux.
func (g *gate) done(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += n
	g.inside.Add(-1)
	g.grantLocked()
}

func (g *gate) grantLocked() {
	for {
		q := &g.small
		if q.head == nil || (g.streak >= smallStreak && g.bulk.head != nil) {
			q = &g.bulk
		}
		w := q.head
		if w == nil || w.n > g.free || q == &g.bulk && !g.bulkLocked(w.n) {
			return
		}
		q.remove(w)
		g.free -= w.n
		if q == &g.bulk || g.bulk.head == nil {
			g.streak = 0
		} else {
			g.streak++
		}
		w.granted = true
		g.inside.Add(1)
		w.ready <- struct{}{}
	}
}

// more reports whether other frames will be in the mux when the one that leaves
// it now has left, so that they can travel together. It lets every stream in
// that can run: on a busy machine that makes many frames one record and one
// system call, and when there is none it costs a lone frame a tenth of a
// microsecond.
func (g *gate) more() bool {
	if g.inside.Load() > 1 {
		return true
	}
	runtime.Gosched()
	return g.inside.Load() > 1
}

// bulkLocked reports whether there is room for a large frame of n bytes by what
// the carrier can do with it soon.
func (g *gate) bulkLocked(n int) bool {
	inside := gateBytes - g.free
	return inside == 0 || g.backlog == nil || inside+n <= g.backlog()
}

// frame returns how long a DATA frame may be: as long as there is, where the
// carrier is fast.
func (g *gate) frame() int {
	if g.backlog == nil {
		return fullData
	}
	return min(max(g.backlog()/2, minData), fullData)
}
