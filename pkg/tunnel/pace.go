package tunnel

import (
	"os"
	"time"
)

// A Pace keeps one direction of a stream to a rate, which several may share. One
// goroutine at a time calls its methods, which must not block.
type Pace interface {
	// Due returns how long it is until what was moved before is paid for, and what is
	// closed when that becomes another time. Not more than 0: it is paid for.
	Due() (left time.Duration, changed <-chan struct{})
	// Chunk returns how many bytes, at least one, are moved at a time, of at most most.
	Chunk(most int) int
	// Moved counts n bytes that were moved.
	Moved(n int)
}

// Keep has what Read and WriteTo return kept to in, and what Write and ReadFrom take to
// out. Whoever waits for that waits as for the peer: until its deadline, or the stream's
// end. It is called before the stream is used.
func (st *Stream) Keep(in, out Pace) { st.in, st.out = in, out }

// dueInLocked waits until what was read before is paid for, and returns how many bytes
// may be read then, of at most most. What has come before the stream's end is read
// without a pause: there is no more of it.
func (st *Stream) dueInLocked(most int) (int, error) {
	if st.in == nil {
		return most, nil
	}
	for !isClosed(st.gone) && !isClosed(st.s.lost) {
		if st.readDeadline.expired() {
			return 0, os.ErrDeadlineExceeded
		}
		left, changed := st.in.Due()
		if left <= 0 {
			break
		}
		st.pause(left, changed, nil, st.readDeadline.passed())
	}
	if err := st.desertedErr(); err != nil {
		return 0, err
	}
	return st.in.Chunk(most), nil
}

// dueOutLocked waits until what was written before is paid for, and returns how many
// bytes may be written then, of at most most.
func (st *Stream) dueOutLocked(most int) (int, error) {
	if st.out == nil {
		return most, nil
	}
	for {
		if err := st.writeErrLocked(); err != nil {
			return 0, err
		}
		left, changed := st.out.Due()
		if left <= 0 {
			return st.out.Chunk(most), nil
		}
		st.pause(left, changed, st.noWrite, st.writeDeadline.passed())
	}
}

// pause waits for a rate, or until something else has happened. Meanwhile the stream is
// not idle: it has something to move.
func (st *Stream) pause(left time.Duration, changed, stopped, expired <-chan struct{}) {
	st.counters.pausing.Add(1)
	defer st.counters.pausing.Add(-1)
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	case <-stopped:
	case <-expired:
	case <-st.gone:
	case <-st.s.lost:
	}
}
