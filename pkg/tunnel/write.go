package tunnel

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A frameBuf holds a whole DATA frame.
type frameBuf [frameHeader + maxData]byte

var frameBufs = sync.Pool{New: func() any { return new(frameBuf) }}

// fullData is how much data a stream sends in one frame: with its headers as
// much as a record of the carrier's holds, so that the peer has the whole frame
// as soon as it has opened one record.
const fullData = channel.RecordData - muxHeader - frameHeader

// enough is how much window a large frame waits for, so that a window that
// opens bit by bit is not answered with tiny frames.
const enough = 16 << 10

// Write sends p, waiting for the peer's window and the stream's turn. Its error
// is a *ResetError, *RefusedError or *LossError, os.ErrDeadlineExceeded, or
// net.ErrClosed after CloseWrite or Close.
func (st *Stream) Write(p []byte) (n int, err error) {
	st.writeMu.Lock()
	defer st.writeMu.Unlock()
	if len(p) == 0 {
		return 0, st.writeErrLocked()
	}
	var buf *frameBuf
	defer func() { // not in the loop, where a defer allocates
		if buf != nil {
			frameBufs.Put(buf)
		}
	}()
	for n < len(p) {
		room, err := st.awaitRoomLocked(min(len(p)-n, enough))
		if err != nil {
			return n, err
		}
		if buf == nil {
			buf = frameBufs.Get().(*frameBuf)
		}
		k := copy(buf[frameHeader:frameHeader+room], p[n:])
		if err := st.sendDataLocked(buf, k); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// awaitRoomLocked waits until a DATA frame of at least need bytes may be sent
// and returns how many it may hold.
func (st *Stream) awaitRoomLocked(need int) (int, error) {
	for {
		if err := st.writeErrLocked(); err != nil {
			return 0, err
		}
		if room := st.win.available() - frameHeader; room >= need {
			return min(room, st.s.gate.frame()), nil
		}
		select {
		case <-st.win.opened:
		case <-st.gone:
		case <-st.noWrite:
		case <-st.s.lost:
		case <-st.writeDeadline.passed():
		}
	}
}

// writeErrLocked returns why nothing can be written now, or nil.
func (st *Stream) writeErrLocked() error {
	if err := st.endErr(); err != nil {
		return err
	}
	switch {
	case st.finSent:
		return net.ErrClosed
	case isClosed(st.noWrite):
		return &ResetError{Code: code.Aborted, Remote: true}
	case st.writeDeadline.expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// endErr returns why nothing at all can be sent any more, or nil.
func (st *Stream) endErr() error {
	if err := st.overErr(); err != nil {
		return err
	}
	if isClosed(st.s.lost) {
		return st.s.lossErr()
	}
	return nil
}

// sendDataLocked sends n bytes that stand behind the header's place in buf, for
// which there is window.
func (st *Stream) sendDataLocked(buf *frameBuf, n int) error {
	putHeader(buf[:], frameData, n)
	if small := frameHeader+n <= smallFrame; !small {
		st.small = false
	} else if st.small {
		st.s.brisk()
	} else {
		st.small = true // bulk has one now and then; a request's stream has no others
	}
	err := st.enterLocked(frameHeader+n, true, (*Stream).writeErrLocked)
	if err != nil {
		return err
	}
	return st.sendLocked(buf[:frameHeader+n])
}

// passLocked takes a small frame that is no data through the gate to the mux.
// Neither the peer's STOP, which is about data, nor a deadline keeps it back.
func (st *Stream) passLocked(frame []byte) error {
	if err := st.endErr(); err != nil {
		return err
	}
	if err := st.enterLocked(len(frame), false, (*Stream).endErr); err != nil {
		return err
	}
	return st.sendLocked(frame)
}

// enterLocked waits for passage of n bytes, until the stream or the session is
// over or, for data, the peer's STOP or the write deadline ends the wait. why
// says whether that counts.
func (st *Stream) enterLocked(n int, data bool, why func(*Stream) error) error {
	var stopped, expired <-chan struct{}
	for !st.s.gate.enter(&st.place, n) {
		if data { // the deadline may have been moved since the last turn
			stopped, expired = st.noWrite, st.writeDeadline.passed()
		}
		select {
		case <-st.place.ready:
		case <-st.gone:
		case <-st.s.lost:
		case <-stopped:
		case <-expired:
		}
		if st.s.gate.passed(&st.place) {
			break
		}
		st.s.gate.leave(&st.place)
		if err := why(st); err != nil {
			return err
		}
	}
	return nil
}

// sendLocked hands a frame that has passed the gate to the mux.
func (st *Stream) sendLocked(frame []byte) error {
	defer st.s.gate.done(len(frame))
	// There is window for every frame, by waiting or by the reserve, as long as
	// the mux knows the stream.
	if !st.win.take(len(frame)) {
		return st.writeFailed()
	}
	if _, err := st.y.Write(frame); err != nil {
		return st.writeFailed()
	}
	return nil
}

// writeFailed ends the stream because the mux does not take a frame, and
// returns why.
func (st *Stream) writeFailed() error {
	if over := st.overErr(); over != nil {
		return over
	}
	var err error = &ResetError{Code: code.Aborted, Remote: true}
	if st.s.mux.IsClosed() {
		err = st.s.lossErr()
	}
	st.end(ending{err: err})
	return err
}

// sendFrame sends a whole small frame in its turn.
func (st *Stream) sendFrame(frame []byte) error {
	st.writeMu.Lock()
	defer st.writeMu.Unlock()
	return st.passLocked(frame)
}

// CloseWrite sends FIN: the peer reads io.EOF after everything written before.
// The other direction goes on.
func (st *Stream) CloseWrite() error {
	st.writeMu.Lock()
	defer st.writeMu.Unlock()
	if st.finSent {
		return nil
	}
	if err := st.passLocked(appendFrame(nil, frameFin)); err != nil {
		return err
	}
	st.finSent = true
	st.mu.Lock()
	st.finSet = true
	st.mu.Unlock()
	return nil
}

// ReadFrom copies r's bytes into DATA frames until r ends, without sending FIN.
// A buffer is taken only when the peer's window is open and, where the system
// allows, r can be read.
func (st *Stream) ReadFrom(r io.Reader) (total int64, err error) {
	src := newSource(r)
	for {
		st.writeMu.Lock()
		room, err := st.awaitRoomLocked(enough)
		st.writeMu.Unlock()
		if err != nil {
			return total, err
		}
		buf, n, readErr := src.next(room)
		if n > 0 {
			st.writeMu.Lock()
			_, err := st.awaitRoomLocked(n)
			if err == nil {
				err = st.sendDataLocked(buf, n)
			}
			st.writeMu.Unlock()
			frameBufs.Put(buf)
			if err != nil {
				return total, err
			}
			total += int64(n)
		}
		if readErr == io.EOF {
			return total, nil
		}
		if readErr != nil {
			return total, readErr
		}
	}
}

// A source reads straight behind the place of a frame's header.
type source struct {
	r     io.Reader
	ready *sock.Reader // nil when r is no conn
	buf   *frameBuf
	room  int
	get   func() []byte
	put   func([]byte)
}

func newSource(r io.Reader) *source {
	s := &source{r: r}
	if nc, ok := r.(net.Conn); ok {
		s.ready = sock.NewReader(nc)
	}
	s.get = func() []byte {
		s.buf = frameBufs.Get().(*frameBuf)
		return s.buf[frameHeader : frameHeader+s.room]
	}
	s.put = func([]byte) {
		frameBufs.Put(s.buf)
		s.buf = nil
	}
	return s
}

// next reads up to room bytes. The buffer is the caller's if n > 0.
func (s *source) next(room int) (*frameBuf, int, error) {
	s.room = room
	if s.ready != nil {
		_, n, err := s.ready.ReadReady(s.get, s.put)
		return s.buf, n, err
	}
	n, err := s.r.Read(s.get())
	if n == 0 {
		s.put(nil)
	}
	return s.buf, n, err
}

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
		if deserts && !isClosed(st.s.lost) {
			st.s.spawn(st.discard)
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
	if e.lost {
		// Closing the mux's stream would look like an abort to the peer.
		st.s.forget(st)
		st.ack()
		return false
	}
	return true
}

// leave says what is left to say and gives the stream back to the mux.
func (st *Stream) leave(e ending) {
	if e.abort {
		st.s.tell(appendAbort(nil, st.id, CodeOf(e.err)))
	}
	if len(e.last) > 0 {
		// The window's reserve is for this: it waits for no reader.
		st.writeMu.Lock()
		if st.win.take(len(e.last)) {
			_, _ = st.y.Write(e.last)
		}
		st.writeMu.Unlock()
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
