package node

import "sync"

// A budget is how many bytes may be on their way into a node beyond what each flow
// has to begin with. Who wants some gets it in turn, without a goroutine that waits.
type budget struct {
	mu    sync.Mutex
	all   int
	left  int
	line  []*claim
	grown int // of what is taken, by windows that have grown
}

// A claim waits for its part of a budget.
type claim struct {
	n     int
	grant func() // called without locks, on another's goroutine
}

// take calls grant, now or when there are n bytes for it. The claim is for drop.
func (b *budget) take(n int, grant func()) *claim {
	c := &claim{n, grant}
	b.mu.Lock()
	b.line = append(b.line, c)
	ready := b.readyLocked()
	b.mu.Unlock()
	for _, r := range ready {
		r.grant()
	}
	return c
}

// newBudget returns one of n bytes, MaxBody at least.
func newBudget(n int) *budget {
	n = max(n, MaxBody)
	return &budget{all: n, left: n}
}

// grow takes n bytes if they are there, nobody waits, and half of all, and a message of
// MaxBody, is left for who does: what has grown comes back when the flow ends, only.
func (b *budget) grow(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.line) > 0 || b.left-n < b.grown+n || b.all-b.grown-n < MaxBody {
		return false
	}
	b.left -= n
	b.grown += n
	return true
}

// give gives bytes back, of which grown were taken by grow.
func (b *budget) give(n, grown int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.left += n
	b.grown -= grown
	ready := b.readyLocked()
	b.mu.Unlock()
	for _, r := range ready {
		r.grant()
	}
}

// drop takes a claim back, and reports whether it still waited.
func (b *budget) drop(c *claim) bool {
	b.mu.Lock()
	waited := false
	for i, o := range b.line {
		if o == c {
			b.line = append(b.line[:i], b.line[i+1:]...)
			waited = true
			break
		}
	}
	ready := b.readyLocked()
	b.mu.Unlock()
	for _, r := range ready {
		r.grant()
	}
	return waited
}

func (b *budget) readyLocked() (ready []*claim) {
	for len(b.line) > 0 && b.line[0].n <= b.left {
		b.left -= b.line[0].n
		ready = append(ready, b.line[0])
		b.line = b.line[1:]
	}
	return ready
}
