// Package pump owns the two-way copy, the only one in Culvert: [Both] between
// any two conns, and [Splice] between two TCP sockets without the bytes passing
// through this process. An end is passed on as an end and an error as an abort,
// never one as the other. It dials nothing, knows no protocol and does not log.
package pump

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Side names one of the two conns.
type Side byte

// The sides, in the order of the arguments.
const (
	A Side = iota + 1
	B
)

// String returns "a" or "b".
func (s Side) String() string {
	switch s {
	case A:
		return "a"
	case B:
		return "b"
	default:
		return "neither side"
	}
}

// An Op is what a side was doing when it failed.
type Op byte

// The operations.
const (
	Read Op = iota + 1
	Write
)

// String returns "reading" or "writing".
func (o Op) String() string {
	switch o {
	case Read:
		return "reading"
	case Write:
		return "writing"
	default:
		return "doing nothing"
	}
}

// An Error is the first failure of a copy: which conn failed and at what. What
// fails as its consequence is not reported.
type Error struct {
	Side Side
	Op   Op
	Err  error
}

// Error says which side failed, and how.
func (e *Error) Error() string { return fmt.Sprintf("%s side %s: %v", e.Op, e.Side, e.Err) }

// Unwrap returns the conn's own error.
func (e *Error) Unwrap() error { return e.Err }

// A Result says how much was carried and how it ended.
type Result struct {
	AToB, BToA int64 // bytes handed to the far side
	// Err is nil when both directions ended in an end of data that was passed
	// on. Otherwise it is an *Error, or the cause of the context that ended
	// the copy.
	Err error
}

// Counters are a copy's bytes so far, kept while it runs. They may be read at
// any time.
type Counters struct {
	AToB, BToA atomic.Int64
}

// A failure is what the two directions of one copy share: the first error.
type failure struct {
	once sync.Once
	err  error
	set  atomic.Bool   // err is set
	cut  func()        // unblocks both directions
	done chan struct{} // closed with err set; nil where nobody waits for it
}

// fail records err, if it is the first, and cuts both directions.
func (f *failure) fail(err error) {
	f.once.Do(func() {
		f.err = err
		f.set.Store(true)
		if f.done != nil {
			close(f.done)
		}
		f.cut()
	})
}

// seal waits for a fail that is under way, and makes those that come later do
// nothing.
func (f *failure) seal() { f.once.Do(func() {}) }

// failed returns the first error, nil when there is none.
func (f *failure) failed() error {
	if !f.set.Load() {
		return nil
	}
	return f.err
}

// Buffers are pooled by pointer, which allocates nothing.
const (
	smallSize = 2 << 10
	largeSize = 64 << 10
)

type largeBuf [largeSize]byte

var largeBufs = sync.Pool{New: func() any { return new(largeBuf) }}

func getLarge() []byte  { return largeBufs.Get().(*largeBuf)[:] }
func putLarge(b []byte) { largeBufs.Put((*largeBuf)(b)) }

// putWhole gives back a large buffer of which b is the front.
func putWhole(b []byte) { putLarge(b[:largeSize]) }

// past is a deadline that has always expired.
var past = time.Unix(1, 0)
