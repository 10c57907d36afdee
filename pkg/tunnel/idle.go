package tunnel

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// A mover is a writer, for Deliver, that knows more of what becomes of the data than
// that it has taken it: Moved returns a number that is another one later only if some
// has gone on meanwhile, or waits for a rate that it is kept to. It may be called
// beside Write, and must not block.
type mover interface{ Moved() uint64 }

// moved returns a number that is another one later only if bytes of the stream move at
// this side, in either direction: from its program or to it, here from the peer, or in
// their turn for the carrier.
func (st *Stream) moved() uint64 { return st.handled() + st.passedOn() }

// handled is the part of moved that costs next to nothing.
func (st *Stream) handled() uint64 {
	c := &st.counters
	turns := c.turns.Load()
	if c.inTurn.Load() || c.pausing.Load() > 0 {
		turns = c.turns.Add(1)
	}
	return uint64(c.sent.Load()) + uint64(c.received.Load()) + st.win.cameIn() + turns
}

// passedOn is the part of moved that the delivery's writer knows.
func (st *Stream) passedOn() uint64 {
	st.mu.Lock()
	w, ok := st.delivery.w.(mover)
	st.mu.Unlock()
	if !ok {
		return 0
	}
	return w.Moved()
}

// An IdleWatch tells for how long nothing has moved on a stream, at neither end. What
// this end can see is not enough: the peer's program can take for minutes what this
// end's has sent in a moment, and the mux tells of that only after megabytes. So a
// watch asks the peer, and only while nothing moves here. A peer that answers is taken
// at its word: it could as well send a byte now and then.
type IdleWatch struct {
	st *Stream

	mu      sync.Mutex
	handled uint64    // the stream's, when it was looked last
	passed  uint64    // as far as its writer knows
	there   uint64    // the peer's number, as far as it has said
	heard   bool      // it has said one
	moved   time.Time // when something was last seen to have moved, here or there; the watch's begin before
	quiet   time.Time // until when nothing has moved since, for all that is known
	asked   time.Time // when the peer was asked that has not answered yet; zero: there is none
}

// WatchIdle begins to watch the stream. It starts nothing: Look is to be called some
// two dozen times within the time that matters. Another watch takes the place of the one
// before.
func (st *Stream) WatchIdle() *IdleWatch {
	now := time.Now()
	w := &IdleWatch{st: st, handled: st.handled(), passed: st.passedOn(), moved: now, quiet: now}
	st.idle.Store(w)
	return w
}

// Look returns for how long nothing has moved, for all that is known: while the peer's
// answer is on its way, until it was asked. It does not block.
//
// A peer that does not answer, since it is of a version that does not know the
// question, counts as one where nothing moves, but for the first time that it is asked:
// then its answer is waited for as long as [Config.Patience] says.
func (w *IdleWatch) Look() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.movedHereLocked() {
		w.moved, w.quiet = now, now
		return 0
	}
	switch s := w.st.s; {
	case s.isMute(), isClosed(s.lost):
		w.quiet = now // there is nobody to ask
	case w.asked.IsZero():
		w.asked = now
		s.tell(appendProbe(nil, w.st.id))
	case now.Sub(w.asked) >= s.cfg.Patience:
		w.quiet = now
		s.unanswered()
	}
	return w.quiet.Sub(w.moved)
}

// movedHereLocked reports whether something has moved at this end since the last call.
func (w *IdleWatch) movedHereLocked() bool {
	handled := w.st.handled()
	if handled != w.handled {
		w.handled = handled
		return true
	}
	passed := w.st.passedOn() // which costs a system call
	moved := passed != w.passed
	w.passed = passed
	return moved
}

// answered takes the peer's number into account.
func (w *IdleWatch) answered(there uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked.IsZero() {
		return // nobody has asked
	}
	if !w.heard || there != w.there {
		now := time.Now()
		w.moved, w.quiet = now, now // it was before, by as long as the answer took at most
	} else if w.asked.After(w.moved) {
		w.quiet = w.asked
	}
	w.there, w.heard, w.asked = there, true, time.Time{}
}

// Of a session's peer, whether it answers PROBE.
const (
	peerUnknown uint32 = iota
	peerAnswers
	peerMute
)

func (s *Session) isMute() bool { return s.answers.Load() == peerMute }

// unanswered notes that a PROBE has got no answer for too long.
func (s *Session) unanswered() { s.answers.CompareAndSwap(peerUnknown, peerMute) }

// probed answers the peer's PROBE of a stream. One that is not here, or here no more,
// does not move.
func (s *Session) probed(id uint32) {
	var moved uint64
	if st := s.stream(id); st != nil {
		moved = st.moved()
	}
	s.tell(appendProgress(nil, id, moved))
}

// progressed acts on the peer's PROGRESS.
func (s *Session) progressed(id uint32, moved uint64) {
	s.answers.Store(peerAnswers)
	if st := s.stream(id); st != nil {
		if w := st.idle.Load(); w != nil {
			w.answered(moved)
		}
	}
}

func (s *Session) stream(id uint32) *Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

func appendProbe(dst []byte, id uint32) []byte {
	return appendFrame(dst, controlProbe, binary.BigEndian.AppendUint32(nil, id)...)
}

func appendProgress(dst []byte, id uint32, moved uint64) []byte {
	body := binary.BigEndian.AppendUint32(nil, id)
	return appendFrame(dst, controlProgress, binary.BigEndian.AppendUint64(body, moved)...)
}

func parseProgress(b []byte) (id uint32, moved uint64, err error) {
	if len(b) != 12 {
		return 0, 0, fmt.Errorf("%w: PROGRESS of %d bytes", errProtocol, len(b))
	}
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:]), nil
}
