package tunnel

import (
	"sync/atomic"
	"time"
)

// A Progress is what a stream has carried so far.
type Progress struct {
	// Sent is how many bytes of data this side's program has handed to the stream,
	// and the mux has taken.
	Sent int64
	// Received is how many bytes of data this side's program has got from the stream:
	// by Read, or as its writer has taken them from WriteTo and Deliver.
	Received int64
	// Active is when the last of them were counted, and the stream's begin before.
	Active time.Time
}

// counters are a stream's, kept while it runs. Each chunk costs an addition and a
// look at the clock; of the directions each has a number of its own.
type counters struct {
	sent, received atomic.Int64
	active         atomic.Int64 // in ns since the session's base

	inTurn atomic.Bool   // a DATA frame waits for its turn, or for the carrier
	turns  atomic.Uint64 // how often it was seen to, or to wait for a rate

	pausing atomic.Int32 // directions that wait for a rate
}

// countSent counts data that the mux has taken.
func (st *Stream) countSent(n int) {
	st.counters.sent.Add(int64(n))
	st.active()
}

// countReceived counts data that this side's program has got.
func (st *Stream) countReceived(n int) {
	st.counters.received.Add(int64(n))
	st.active()
}

func (st *Stream) active() { st.counters.active.Store(int64(time.Since(st.s.base))) }

// Progress returns what the stream has carried so far. It may be called at any time,
// after the stream's end too; no number of a later one is less.
func (st *Stream) Progress() Progress {
	c := &st.counters
	return Progress{
		Sent: c.sent.Load(), Received: c.received.Load(),
		Active: st.s.base.Add(time.Duration(c.active.Load())),
	}
}

// Progress is that of the stream.
func (r *Request) Progress() Progress { return r.st.Progress() }
