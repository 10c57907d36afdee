package tunnel

import "bytes"

// A handoff is how a stream's frames get to the mux without whoever sends them being in
// the mux, which nothing but the carrier gets out of again. Its fields are guarded by
// the stream's writeMu.
type handoff struct {
	taken chan bool // capacity 1: whether the mux has taken the frame; nil: the sender hands it over itself
	busy  bool      // one is on its way, of which taken tells
}

// HandOff has Write, ReadFrom and CloseWrite end when the stream does, and Write and
// ReadFrom at their deadline, which CloseWrite has none of, even while the carrier takes
// nothing, since it has no path or a slow one. Data that is on its way to the carrier at
// that deadline counts as sent, as what a socket's buffer holds does; there is one frame
// at most, which the next waits for. It costs a copy and a goroutine for each frame,
// which a copy between conns of this process need not have. It is called before anything
// is written.
func (st *Stream) HandOff() {
	st.writeMu.Lock()
	defer st.writeMu.Unlock()
	st.handoff.taken = make(chan bool, 1)
}

// handOverLocked hands a frame that has passed the gate to the mux, in another
// goroutine.
func (st *Stream) handOverLocked(frame []byte, data bool) error {
	if !st.win.take(len(frame)) {
		st.s.gate.done(len(frame))
		return st.writeFailed()
	}
	own, release := keepFrame(frame)
	st.handoff.busy = true
	st.s.spawn(func() {
		_, err := st.y.Write(own)
		st.s.gate.done(len(own))
		release()
		st.handoff.taken <- err == nil
	})
	return st.takenLocked(data)
}

// keepFrame copies a frame, which is the caller's again before the mux has done with it.
// release is called then. A small one has no whole buffer: each stream may have one
// while the carrier takes nothing.
func keepFrame(frame []byte) (own []byte, release func()) {
	if len(frame) <= smallFrame {
		return bytes.Clone(frame), func() {}
	}
	buf := frameBufs.Get().(*frameBuf)
	return buf[:copy(buf[:], frame)], func() { frameBufs.Put(buf) }
}

// takenLocked waits until the mux has taken the frame that was handed over, or nobody
// wants to wait for that any more. Data counts as sent then; the end of the data does not,
// since it says that all before it has been.
func (st *Stream) takenLocked(data bool) error {
	var stopped, expired <-chan struct{}
	if data {
		stopped, expired = st.noWrite, st.writeDeadline.passed()
	}
	select {
	case ok := <-st.handoff.taken:
		st.handoff.busy = false
		if !ok {
			return st.writeFailed()
		}
	case <-st.gone:
	case <-st.s.lost:
	case <-stopped:
	case <-expired:
	}
	if !data && st.handoff.busy {
		return st.endErr()
	}
	return nil
}

// freeLocked waits until the frame before has been taken, so that none overtakes it. why
// says whether what ends the wait counts.
func (st *Stream) freeLocked(data bool, why func(*Stream) error) error {
	for st.handoff.busy {
		if err := why(st); err != nil {
			return err
		}
		if err := st.takenLocked(data); err != nil {
			return err
		}
	}
	return nil
}
