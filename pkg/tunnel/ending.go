package tunnel

import (
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// Close sends FIN, if CloseWrite has not, and reads no more: what the peer goes
// on to write fails there. It does not wait for the peer, and is no abort: use
// Reset where the data before it is not all there is.
func (st *Stream) Close() error {
	st.mu.Lock()
	e := ending{deserted: true, stop: !st.finRead}
	if !st.finSet {
		e.last = appendFrame(nil, frameFin)
	}
	st.mu.Unlock()
	st.end(e)
	return nil
}

// Reset ends both directions at once, other than cleanly. What was written
// before still arrives where the peer goes on reading. It does not wait.
// code.OK, which is no reset, counts as code.Aborted.
func (st *Stream) Reset(c code.Code) error {
	if c == code.OK {
		c = code.Aborted
	}
	st.end(ending{err: &ResetError{Code: c}, last: appendRst(nil, c), abort: true, deserted: true})
	return nil
}

// Abort is Reset with the code that err stands for; it is what a copy calls
// when its other side has failed.
func (st *Stream) Abort(err error) { _ = st.Reset(CodeOf(err)) }

// aborted acts on the peer's ABORT, which may have overtaken data: reading goes
// on until the RST comes or the grace is over, and writers that wait do so.
func (st *Stream) aborted(c code.Code) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over || st.grace != nil {
		return
	}
	if c == code.OK {
		c = code.Aborted
	}
	err := &ResetError{Code: c, Remote: true}
	wait, until := abortGrace, time.Now().Add(st.s.cfg.Patience)
	if st.finRead {
		wait = 0 // nobody reads on to the RST
	}
	st.grace = time.AfterFunc(wait, func() { st.graceOver(err, until) })
}

// graceOver ends a stream whose RST the reader has not come to, unless it is the
// carrier that has not: it may have lost its path with the RST on it.
func (st *Stream) graceOver(err error, until time.Time) {
	st.mu.Lock()
	if !st.over && st.starving.Load() && time.Now().Before(until) {
		st.grace.Reset(abortGrace)
		st.mu.Unlock()
		return
	}
	st.mu.Unlock()
	st.end(ending{err: err})
}

// stopped acts on the peer's STOP.
func (st *Stream) stopped() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.deaf {
		st.deaf = true
		close(st.noWrite)
	}
}

// An ending is how a stream ends, and what the peer is told of it.
type ending struct {
	err      error  // nil for a clean end
	last     []byte // the last frame, in band
	deserted bool   // nothing is read any more, not even what has come before
	abort    bool   // say ABORT too
	stop     bool   // say STOP too
	lost     bool   // the session is over: there is nobody to tell
}

// end ends the stream once; after that e may only desert it. Telling the peer and
// closing the mux's stream happen in a goroutine of the session's: they may have
// to wait for the carrier.
func (st *Stream) end(e ending) {
	if st.conclude(e) {
		st.s.spawn(func() { st.leave(e) })
	}
}

// conclude is end without what may have to wait: it reports whether leave is to
// be called.
func (st *Stream) conclude(e ending) bool {
	st.mu.Lock()
	deserts := e.deserted && !st.deserted
	if deserts {
		st.deserted = true
		st.win.ignore()
	}
	if st.over {
		st.mu.Unlock()
		if deserts {
			st.tellEnd(nil)
			if !isClosed(st.s.lost) {
				st.s.spawn(st.discard)
			}
		}
		return false
	}
	st.over, st.err = true, e.err
	onGone := st.onGone
	if st.grace != nil {
		st.grace.Stop()
	}
	st.mu.Unlock()
	close(st.gone)
	if onGone != nil {
		onGone()
	}
	st.writeDeadline.set(time.Time{})
	st.readDeadline.set(time.Time{})
	_ = st.y.SetReadDeadline(time.Unix(1, 0)) // frees a Read
	st.win.wake()
	st.tellEnd(nil)
	if e.lost {
		// Closing the mux's stream would look like an abort to the peer.
		st.s.forget(st)
		st.ack()
		return false
	}
	return true
}

// stallTime is how long nothing may move, of what had come before a stream was over, on
// its way to whoever reads it.
const stallTime = time.Second

// OnEnd has f called, once, when the stream is over and it was no [Stream.Close]
// that ended it, with the error that Read and Write return. It is for a copy, which
// can be kept from Read and Write by its other side. What had come before the end can
// still be read, unless it was Reset: while somebody reads it, and some of it moves
// every second, f waits. Deliver's writer may have a method Moved() uint64: what
// another number says has moved, though Write waits. An end of which both directions
// had ended well before is told to nobody. f must not block. Another f takes its place,
// nil for nothing.
func (st *Stream) OnEnd(f func(err error)) {
	st.mu.Lock()
	st.onEnd = f
	over := st.over
	st.mu.Unlock()
	if over {
		st.tellEnd(nil)
	}
}

// An endLook is how it was when tellEnd looked.
type endLook struct {
	moved   uint64    // the stream's
	due     time.Time // when to look again
	patient bool      // that may be late once
}

// tellEnd calls OnEnd's function for a stream that is over, or looks again later
// whether its reader goes on. last is nil the first time. A look that comes late says
// that this process has stood still, and the reader with it, as on a machine that has
// too much to do: then there is another one.
func (st *Stream) tellEnd(last *endLook) {
	next := endLook{moved: st.moved(), patient: true}
	st.mu.Lock()
	f, err := st.onEnd, st.err
	switch reads := !st.deserted && !st.finRead; {
	case f == nil || err == nil:
		f = nil
	case st.finRead && st.finSet:
		f, st.onEnd = nil, nil
	case reads && (last == nil || last.moved != next.moved):
		f = nil
		st.lookAgain(next)
	case reads && last.patient && time.Since(last.due) > stallTime/4:
		f = nil
		next.patient = false
		st.lookAgain(next)
	default:
		st.onEnd = nil
	}
	st.mu.Unlock()
	if f != nil {
		f(err)
	}
}

func (st *Stream) lookAgain(l endLook) {
	l.due = time.Now().Add(stallTime)
	time.AfterFunc(stallTime, func() { st.tellEnd(&l) })
}

// leave says what is left to say and gives the stream back to the mux.
func (st *Stream) leave(e ending) {
	if e.abort {
		st.s.tell(appendAbort(nil, st.id, CodeOf(e.err)))
	}
	if len(e.last) > 0 {
		// The window's reserve is for this: it waits for no reader.
		st.writeMu.Lock() // who had it has done; who comes now finds the stream over
		busy := st.handoff.busy
		st.handoff.busy = false
		st.writeMu.Unlock()
		// The carrier, or the session's end, sees to the frame that is on its way. Behind
		// one that was not taken nothing is sent: that would be a clean end of less.
		if ok := !busy || <-st.handoff.taken; ok && st.win.take(len(e.last)) {
			_, _ = st.y.Write(e.last)
		}
	}
	if e.stop {
		st.s.tell(appendStop(nil, st.id))
	}
	_ = st.y.Close()
	st.s.forget(st)
	st.ack() // not before: the peer counts what is refused until it is closed
	if st.isDeserted() {
		st.discard()
	}
}
