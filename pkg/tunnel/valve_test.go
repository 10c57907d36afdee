package tunnel

import (
	"io"
	"os"
	"sync"
	"time"
)

// A valve is a carrier whose Writes wait while it is shut, until a deadline in
// the past frees them. It remembers where in what it wrote a mark was set.
type valve struct {
	Carrier
	mu    sync.Mutex
	wait  chan struct{} // nil while open
	freed chan struct{}
	dead  bool
	held  bool // a Write waits
	bad   bool // Writes fail
	sizes []write
}

type write struct {
	n    int
	last byte
}

func newValve(c Carrier) *valve { return &valve{Carrier: c, freed: make(chan struct{})} }

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wait = make(chan struct{})
}

// fail has the Write that waits, and all later ones, return an error.
func (v *valve) fail() {
	v.mu.Lock()
	v.bad = true
	v.mu.Unlock()
	v.release()
}

func (v *valve) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.wait)
	v.wait, v.held = nil, false
}

func (v *valve) Write(p []byte) (int, error) {
	v.mu.Lock()
	wait := v.wait
	v.held = wait != nil
	v.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-v.freed:
			return 0, os.ErrDeadlineExceeded
		}
	}
	v.mu.Lock()
	v.sizes = append(v.sizes, write{len(p), p[len(p)-1]})
	bad := v.bad
	v.mu.Unlock()
	if bad {
		return 0, io.ErrClosedPipe
	}
	return v.Carrier.Write(p)
}

func (v *valve) SetDeadline(t time.Time) error {
	v.mu.Lock()
	if !v.dead {
		v.dead = true
		close(v.freed)
	}
	v.mu.Unlock()
	return v.Carrier.SetDeadline(t)
}

// holds reports whether a Write waits: nothing gets past it.
func (v *valve) holds() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.held
}

// mark returns the number of writes so far.
func (v *valve) mark() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.sizes)
}

// before returns how many bytes were written between the mark and the first
// write that ends in last.
func (v *valve) before(last byte, mark int) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, w := range v.sizes[mark:] {
		if w.last == last {
			break
		}
		n += w.n
	}
	return n
}
