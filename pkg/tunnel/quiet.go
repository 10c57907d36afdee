package tunnel

import (
	"sync"
	"time"
)

// quietAfter is for how long a stream has to bring nothing before it gives back
// what it holds for what comes next; it takes twice as long at most.
const quietAfter = 250 * time.Millisecond

// recent lists the streams that have read something not long ago. Only these are
// looked at, and only while there are any: streams that are quiet cost nothing.
type recent struct {
	mu      sync.Mutex
	streams []*Stream
	added   chan struct{} // capacity 1: the list is to be looked through in a while
}

// What a Stream's recency says.
const (
	unlisted uint32 = iota
	listed          // it has read nothing since the list was looked through
	fresh           // it has
)

// touch notes that the stream has read something.
func (st *Stream) touch() {
	if st.recency.Load() == fresh || st.recency.Swap(fresh) != unlisted {
		return
	}
	r := &st.s.recent
	r.mu.Lock()
	r.streams = append(r.streams, st)
	first := len(r.streams) == 1
	r.mu.Unlock()
	if first {
		r.signal()
	}
}

func (r *recent) signal() {
	select {
	case r.added <- struct{}{}:
	default:
	}
}

// settle takes the streams off the list that have read nothing since the last
// time, and lets them settle. If others are left, it asks to be called again.
func (r *recent) settle() {
	r.mu.Lock()
	streams := r.streams
	r.streams = nil // nobody who reads waits for this
	r.mu.Unlock()
	kept := streams[:0]
	for _, st := range streams {
		if st.recency.CompareAndSwap(listed, unlisted) {
			st.settle()
			continue
		}
		st.recency.Store(listed)
		kept = append(kept, st)
	}
	if len(kept) == 0 {
		kept = nil // it may have been long
	}
	clear(streams[len(kept):])
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams = append(kept, r.streams...); len(r.streams) > 0 {
		r.signal()
	}
}
