package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/culvert-net/culvert/pkg/code"
)

// A Stream is one proxied connection: a net.Conn whose directions end for
// themselves, and on which an end (FIN), an abort (RST), a refusal and the loss
// of the channel are four different things. Read and Write may run
// concurrently; concurrent Writes are served one after another.
type Stream struct {
	s      *Session
	y      *yamux.Stream
	id     uint32
	win    *window
	opener bool

	in, out Pace // of Keep; nil: as fast as may be

	counters counters

	readMu   sync.Mutex
	head     [frameHeader]byte
	headLen  int // bytes of head
	left     int // bytes of the current DATA frame not yet read
	lastType frameType
	last     []byte // the body of a REFUSED or RST whose header has been read
	lastLen  int    // bytes of last
	answered bool   // OPENED was read, or need not be
	readErr  error  // sticky: io.EOF after FIN

	muxMu sync.Mutex // held in readMux

	writeMu       sync.Mutex
	finSent       bool
	small         bool // the last DATA frame was small
	place         waiter
	handoff       handoff
	writeDeadline deadline
	readDeadline  deadline

	mu       sync.Mutex
	err      error         // why the stream is over, nil for a clean end
	gone     chan struct{} // closed when the stream is over
	over     bool          // gone is closed
	deserted bool          // nothing is read any more
	noWrite  chan struct{} // closed when the peer reads no more
	deaf     bool          // noWrite is closed
	acked    bool          // opener: gave its place among the unanswered back
	grace    *time.Timer   // after an ABORT
	onGone   func()        // called when gone is closed; nil for nothing
	onEnd    func(error)   // OnEnd's, until it is called; nil for nothing
	finRead  bool
	finSet   bool // finSent, under mu

	readUntil time.Time // the read deadline
	delivery  delivery

	starving atomic.Bool   // a Read is in the mux, which may have nothing for it
	recency  atomic.Uint32 // unlisted, listed or fresh

	idle atomic.Pointer[IdleWatch] // nil: nobody wants to know
}

// ID returns the stream's number in its session.
func (st *Stream) ID() uint32 { return st.id }

// LocalAddr returns the carrier's local address.
func (st *Stream) LocalAddr() net.Addr { return st.s.carrier.LocalAddr() }

// RemoteAddr returns the carrier's remote address.
func (st *Stream) RemoteAddr() net.Addr { return st.s.carrier.RemoteAddr() }

// SetDeadline sets both deadlines.
func (st *Stream) SetDeadline(t time.Time) error {
	return errors.Join(st.SetReadDeadline(t), st.SetWriteDeadline(t))
}

// SetReadDeadline bounds Reads.
func (st *Stream) SetReadDeadline(t time.Time) error {
	// Under mu, so that it cannot undo what end does to free a Read.
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return st.overErrLocked()
	}
	st.readUntil = t
	st.readDeadline.set(t)
	defer st.win.wake() // a delivery that rests has to wait for it
	return st.y.SetReadDeadline(t)
}

// SetWriteDeadline bounds Writes that wait for the peer's window or for other
// streams. A frame that the carrier has begun to take is not interrupted.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	if err := st.overErr(); err != nil {
		return err
	}
	st.writeDeadline.set(t)
	return nil
}

// overErr returns why the stream is over, or nil.
func (st *Stream) overErr() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.overErrLocked()
}

func (st *Stream) overErrLocked() error {
	if !st.over {
		return nil
	}
	if st.err == nil {
		return net.ErrClosed
	}
	return st.err
}

// desertedErr returns why this side reads no more, or nil.
func (st *Stream) desertedErr() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case !st.deserted:
		return nil
	case st.err != nil:
		return st.err
	}
	return net.ErrClosed
}

// Read returns data in order. Its error is io.EOF after the peer's FIN, a
// *ResetError, a *RefusedError, or a *LossError.
func (st *Stream) Read(p []byte) (int, error) {
	n, err := st.read(p)
	if n > 0 {
		st.countReceived(n)
	}
	return n, err
}

// read is Read for whoever counts what becomes of the data.
func (st *Stream) read(p []byte) (int, error) {
	st.readMu.Lock()
	defer st.readMu.Unlock()
	if err := st.desertedErr(); err != nil || len(p) == 0 {
		return 0, err
	}
	if err := st.nextDataLocked(); err != nil {
		return 0, err
	}
	most, err := st.dueInLocked(min(len(p), st.left))
	if err != nil {
		return 0, err
	}
	n, err := st.readMuxLocked(p[:most])
	st.left -= n
	if n > 0 && st.in != nil {
		st.in.Moved(n)
	}
	if err != nil && n == 0 {
		return 0, st.readFailedLocked(err)
	}
	if err := st.desertedErr(); err != nil {
		return 0, err // discard may have taken what was before
	}
	return n, nil
}

// nextDataLocked reads frames until there are bytes of DATA to read.
func (st *Stream) nextDataLocked() error {
	if st.readDeadline.expired() {
		return os.ErrDeadlineExceeded
	}
	for st.left == 0 {
		if st.readErr != nil {
			return st.readErr
		}
		t, n, err := st.nextFrameLocked()
		if err != nil {
			return err
		}
		if err := st.handleLocked(t, n); err != nil {
			return err
		}
	}
	return nil
}

// nextFrameLocked reads and checks a frame's header.
func (st *Stream) nextFrameLocked() (frameType, int, error) {
	if st.last != nil {
		return st.lastType, len(st.last), nil // a deadline came in between
	}
	if err := st.fillLocked(st.head[:], &st.headLen); err != nil {
		return 0, 0, err
	}
	st.headLen = 0
	if err := st.desertedErr(); err != nil {
		return 0, 0, err // discard has taken what these bytes were to be read behind
	}
	t, n := parseHeader(st.head)
	if err := checkFrame(t, n); err != nil {
		return 0, 0, st.brokenLocked(err)
	}
	return t, n, nil
}

func (st *Stream) readMuxLocked(b []byte) (int, error) {
	st.starving.Store(true)
	defer st.starving.Store(false)
	n, err := st.readMux(b)
	if n > 0 {
		st.touch()
	}
	return n, err
}

// readMux is the mux's Read, of which there can be only one at a time: it locks a
// stream's state and then its buffer, or, to send a window update, the other way
// round (hashicorp/yamux v0.1.2, Stream.Read and sendWindowUpdate).
func (st *Stream) readMux(b []byte) (int, error) {
	st.muxMu.Lock()
	defer st.muxMu.Unlock()
	n, err := st.y.Read(b)
	st.win.read(n)
	return n, err
}

// fillLocked reads until b is full, across deadlines.
func (st *Stream) fillLocked(b []byte, have *int) error {
	for *have < len(b) {
		n, err := st.readMuxLocked(b[*have:])
		*have += n
		if err != nil && n == 0 {
			return st.readFailedLocked(err)
		}
	}
	return nil
}

// handleLocked acts on a frame whose header has been read.
func (st *Stream) handleLocked(t frameType, n int) error {
	answer := t == frameOpened || t == frameRefused
	wanted := st.opener && !st.answered
	if answer != wanted && !(wanted && t == frameRst) {
		return st.brokenLocked(fmt.Errorf("%w: frame of type %d out of place", errProtocol, t))
	}
	switch t {
	case frameOpened:
		st.answered = true
		st.ack()
	case frameData:
		st.left = n
	case frameFin:
		st.readErr = io.EOF
		st.win.ignore()
		st.sawFin()
		return io.EOF
	case frameRst, frameRefused:
		return st.lastFrameLocked(t, n)
	default:
		return st.brokenLocked(fmt.Errorf("%w: frame of type %d out of place", errProtocol, t))
	}
	return nil
}

// lastFrameLocked reads RST's or REFUSED's body and ends the stream.
func (st *Stream) lastFrameLocked(t frameType, n int) error {
	if st.last == nil {
		st.lastType, st.last = t, make([]byte, n)
	}
	if err := st.fillLocked(st.last, &st.lastLen); err != nil {
		return err
	}
	c, reason := parseRefused(st.last)
	if c == code.OK {
		c = code.Aborted // whatever the peer says, this is no clean end
	}
	var err error = &ResetError{Code: c, Remote: true}
	if t == frameRefused {
		st.answered = true
		err = &RefusedError{Code: c, Reason: reason}
	}
	st.readErr = err
	st.end(ending{err: err, deserted: true})
	return st.readErr
}

// brokenLocked ends the session: a peer that breaks one stream's frames cannot
// be trusted with the others.
func (st *Stream) brokenLocked(err error) error {
	st.readErr = err
	st.s.failProtocol(err)
	st.end(ending{err: err, deserted: true})
	return err
}

// readFailedLocked says what an error of the mux's Read means.
func (st *Stream) readFailedLocked(err error) error {
	if over := st.overErr(); over != nil {
		st.readErr = over
		st.end(ending{deserted: true})
		return over
	}
	switch {
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case st.s.mux.IsClosed():
		err = st.s.lossErr()
	case errors.Is(err, yamux.ErrConnectionReset):
		err = &ResetError{Code: code.Limit, Remote: true}
	default:
		// The stream ended without FIN or RST.
		err = &ResetError{Code: code.Aborted, Remote: true}
	}
	st.readErr = err
	st.end(ending{err: err, deserted: true})
	return err
}

// readOpen reads the OPEN of a stream that the peer has opened.
func (st *Stream) readOpen() (Open, error) {
	st.readMu.Lock()
	defer st.readMu.Unlock()
	t, n, err := st.nextFrameLocked()
	if err != nil {
		return Open{}, err
	}
	if t != frameOpen {
		return Open{}, st.brokenLocked(fmt.Errorf("%w: frame of type %d before OPEN", errProtocol, t))
	}
	body, have := make([]byte, n), 0
	if err := st.fillLocked(body, &have); err != nil {
		return Open{}, err
	}
	o, err := parseOpen(body)
	if err != nil {
		return Open{}, st.brokenLocked(err)
	}
	return o, nil
}

// awaitAnswer reads the peer's OPENED.
func (st *Stream) awaitAnswer() error {
	st.readMu.Lock()
	defer st.readMu.Unlock()
	if st.answered || st.readErr != nil || !st.opener {
		if st.readErr == io.EOF {
			return nil
		}
		return st.readErr
	}
	t, n, err := st.nextFrameLocked()
	if err != nil {
		return err
	}
	return st.handleLocked(t, n)
}

// ack gives the opener's place among the unanswered back, once.
func (st *Stream) ack() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.opener && !st.acked {
		st.acked = true
		<-st.s.unacked
	}
}

func (st *Stream) sawFin() {
	st.mu.Lock()
	st.finRead = true
	st.mu.Unlock()
}

// WriteTo copies the stream's data to w until its FIN. It holds a buffer only
// while there are bytes for it and, where w has a method Pause() (most int, err error),
// after that has returned, and for no more bytes than it says.
func (st *Stream) WriteTo(w io.Writer) (int64, error) {
	n, readErr, writeErr := st.copyTo(w)
	if writeErr != nil { // even io.EOF: only the stream's own is an end
		return n, writeErr
	}
	if readErr == io.EOF {
		return n, nil
	}
	return n, readErr
}

// A pauser is a writer that is kept to a rate. Pause returns when the next Write will
// not wait for that, and how many bytes it takes then, so that no buffer is held for the
// time of that, and none that waits is large.
type pauser interface {
	Pause() (most int, err error)
}

// copyTo copies to w until reading or writing fails.
func (st *Stream) copyTo(w io.Writer) (total int64, readErr, writeErr error) {
	p, pauses := w.(pauser)
	for {
		if readErr = st.awaitData(); readErr != nil {
			return total, readErr, nil
		}
		most := maxData
		if pauses {
			if most, writeErr = p.Pause(); writeErr != nil {
				return total, nil, writeErr
			}
		}
		n, readErr, writeErr := st.writeSome(w, most)
		total += n
		if readErr != nil || writeErr != nil {
			return total, readErr, writeErr
		}
	}
}

// writeSome copies one piece of a DATA frame, of at most so many bytes.
func (st *Stream) writeSome(w io.Writer, most int) (n int64, readErr, writeErr error) {
	buf := frameBufs.Get().(*frameBuf)
	defer frameBufs.Put(buf)
	got, err := st.read(buf[:min(most, len(buf))])
	if err != nil {
		return 0, err, nil
	}
	k, err := w.Write(buf[:got])
	st.countReceived(k)
	return int64(k), nil, err
}

// awaitData waits until a Read would return bytes or an error.
func (st *Stream) awaitData() error {
	st.readMu.Lock()
	defer st.readMu.Unlock()
	if err := st.desertedErr(); err != nil {
		return err
	}
	if err := st.nextDataLocked(); err != nil {
		return err
	}
	_, err := st.dueInLocked(maxData)
	return err
}
