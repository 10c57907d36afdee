package tunnel

import (
	"errors"
	"io"
	"os"
	"time"
)

// A delivery is what Deliver was asked for, and how far it has come. n belongs to
// the goroutine that runs deliver; there is one at most.
type delivery struct {
	w    io.Writer // nil while nothing was asked for
	n    int64
	done func(n int64, err error)
}

// Deliver is [Stream.WriteTo] for a stream that is quiet for most of its time: it
// returns at once, and done is called at the end with what WriteTo would return.
// A goroutine runs only from when something comes until nothing has come for a
// while. The last one ends with its call of done, for which the caller has to
// wait. Deliver is called once, and not together with Read or WriteTo.
func (st *Stream) Deliver(w io.Writer, done func(n int64, err error)) {
	st.mu.Lock()
	st.delivery = delivery{w: w, done: done}
	st.mu.Unlock()
	go st.deliver()
}

// deliver copies until there is nothing more to copy, for now or for good.
func (st *Stream) deliver() {
	st.touch() // so that it settles although nothing comes
	d := &st.delivery
	for {
		if err := st.drainedErr(); err != nil {
			d.done(d.n, err)
			return
		}
		n, readErr, writeErr := st.copyTo(d.w)
		d.n += n
		switch {
		case writeErr != nil:
			d.done(d.n, writeErr)
			return
		case readErr == io.EOF:
			d.done(d.n, nil)
			return
		case !errors.Is(readErr, os.ErrDeadlineExceeded) || st.readDeadline.expired():
			d.done(d.n, readErr)
			return
		case st.rest():
			return
		}
	}
}

// drainedErr returns why a stream is over of which nothing is left to be read,
// or nil. It does without the mux, whose Reads must not be entered while it shuts
// down.
func (st *Stream) drainedErr() error {
	err := st.overErr()
	if err == nil || !st.win.drained() { // in this order: what came before the end is read
		return nil
	}
	return err
}

// settle gives back what the stream holds for what comes next: the mux's buffer,
// which would stay as large as it ever was until the stream is closed, and the
// goroutine of a delivery.
func (st *Stream) settle() {
	switch {
	case st.win.drained(): // else there is no buffer to give back, or no use in it
		st.y.Shrink()
	case st.isDeserted():
		st.s.spawn(st.discard)
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.delivery.w != nil && !st.over && st.readUntil.IsZero() {
		_ = st.y.SetReadDeadline(time.Unix(1, 0)) // deliver comes to rest
	}
}

// rest leaves the stream to whatever comes next, which starts the delivery again.
// It reports false when there is something already.
func (st *Stream) rest() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return false
	}
	_ = st.y.SetReadDeadline(st.readUntil)
	if !st.readUntil.IsZero() {
		return false // somebody has to wait for it
	}
	st.starving.Store(true) // for graceOver this is a Read that waits
	return st.win.rest(st)
}

// discard lets go of what the mux holds for a stream that is deserted: by itself it
// would do so when the peer closes the stream. What is not here yet of a frame that
// the mux is taking in is left to settle.
func (st *Stream) discard() {
	if !st.win.drained() {
		buf := frameBufs.Get().(*frameBuf)
		defer frameBufs.Put(buf)
		for !st.win.drained() {
			// The deadline has passed, since the stream is over: no data is waited for.
			if _, err := st.readMux(buf[:]); err != nil {
				break
			}
		}
	}
	st.y.Shrink()
	if !st.win.drained() {
		st.touch()
	}
}

func (st *Stream) isDeserted() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.deserted
}
