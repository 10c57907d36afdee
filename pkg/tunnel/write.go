package tunnel

import (
	"io"
	"net"
	"os"
	"sync"

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
	if err := st.overErr(); err != nil {
		return 0, err // whoever says so to the peer may have writeMu for long
	}
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
		most, err := st.dueOutLocked(len(p) - n)
		if err != nil {
			return n, err
		}
		room, err := st.awaitRoomLocked(min(most, enough))
		if err != nil {
			return n, err
		}
		if buf == nil {
			buf = frameBufs.Get().(*frameBuf)
		}
		k := copy(buf[frameHeader:frameHeader+room], p[n:n+most])
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
	st.counters.inTurn.Store(true)
	err := st.enterLocked(frameHeader+n, true, (*Stream).writeErrLocked)
	if err == nil {
		err = st.sendLocked(buf[:frameHeader+n], true)
	}
	if err == nil {
		st.countSent(n)
		if st.out != nil {
			st.out.Moved(n)
		}
	}
	st.counters.inTurn.Store(false)
	return err
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
	return st.sendLocked(frame, false)
}

// enterLocked waits for passage of n bytes, until the stream or the session is
// over or, for data, the peer's STOP or the write deadline ends the wait. why
// says whether that counts.
func (st *Stream) enterLocked(n int, data bool, why func(*Stream) error) error {
	if err := st.freeLocked(data, why); err != nil {
		return err
	}
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
func (st *Stream) sendLocked(frame []byte, data bool) error {
	if st.handoff.taken != nil {
		return st.handOverLocked(frame, data)
	}
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
		room, err := st.awaitTurn()
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

// awaitTurn waits until a large frame may be sent, and returns how many bytes it may
// hold.
func (st *Stream) awaitTurn() (room int, err error) {
	st.writeMu.Lock()
	defer st.writeMu.Unlock()
	most, err := st.dueOutLocked(maxData)
	if err != nil {
		return 0, err
	}
	room, err = st.awaitRoomLocked(min(most, enough))
	return min(room, most), err
}
