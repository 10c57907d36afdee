package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/culvert-net/culvert/pkg/code"
)

// abortGrace is how long a reader may take to come to the RST that stands
// behind data in the stream, once an ABORT has overtaken it. One that waits for
// the carrier has the session's patience.
const abortGrace = time.Second

// maxQueue bounds what waits for a peer that does not read its control stream:
// twice what 10,000 streams can have to say at once.
const maxQueue = 1 << 20

// A control is the session's first stream, for what cannot or need not go
// inside the stream it is about.
type control struct {
	mu       sync.Mutex
	queue    []byte // frames to be sent: of each a stream has one at most, and there is one DRAIN
	drained  bool
	wake     chan struct{} // capacity 1
	attached chan *yamux.Stream
}

func (c *control) init() {
	c.wake = make(chan struct{}, 1)
	c.attached = make(chan *yamux.Stream, 1)
}

func (c *control) attach(y *yamux.Stream) { c.attached <- y }

// push queues a frame. It reports false when the peer takes none.
func (c *control) push(frame []byte) bool {
	c.mu.Lock()
	ok := len(c.queue) < maxQueue
	if ok {
		c.queue = append(c.queue, frame...)
	}
	c.mu.Unlock()
	c.signal()
	return ok
}

// tell queues a frame for the control stream.
func (s *Session) tell(frame []byte) {
	if !s.control.push(frame) {
		s.failProtocol(fmt.Errorf("%w: control stream is not read", errProtocol))
	}
}

func (c *control) drain(reason string) {
	c.mu.Lock()
	if !c.drained {
		c.drained = true
		c.queue = appendFrame(c.queue, controlDrain, []byte(code.CutReason(reason))...)
	}
	c.mu.Unlock()
	c.signal()
}

// move queues a MOVE, if there is room: it is a courtesy.
func (c *control) move(reason string) {
	c.push(appendFrame(nil, controlMove, []byte(code.CutReason(reason))...))
}

func (c *control) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *control) take() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.queue
	c.queue = nil
	return b
}

// controlLoop opens or awaits the control stream and sends what is queued for
// it, and what the adapter holds back for too long; another goroutine reads.
func (s *Session) controlLoop() {
	y := s.controlStream()
	if y == nil {
		return
	}
	defer func() { _ = y.SetReadDeadline(time.Unix(1, 0)) }() // ends readControl
	s.spawn(func() { s.readControl(y) })
	hold := time.NewTimer(holdTime)
	defer hold.Stop()
	for {
		if b := s.control.take(); len(b) > 0 {
			if _, err := y.Write(b); err != nil {
				return
			}
			continue
		}
		select {
		case <-s.control.wake:
		case <-s.adapter.held:
			hold.Reset(holdTime)
		case <-hold.C:
			s.adapter.flush()
		case <-s.lost:
			return
		}
	}
}

func (s *Session) controlStream() *yamux.Stream {
	if s.client {
		y, err := s.mux.OpenStream()
		if err != nil {
			return nil
		}
		// Only now: a stream opened beside it could take its number.
		close(s.started)
		return y
	}
	select {
	case y := <-s.control.attached:
		return y
	case <-s.lost:
		return nil
	}
}

// readControl acts on the peer's control frames until the session is over. The
// end of the control stream is the session's.
func (s *Session) readControl(y *yamux.Stream) {
	var head [frameHeader]byte
	body := make([]byte, maxControl)
	for {
		if _, err := io.ReadFull(y, head[:]); err != nil {
			break
		}
		t, n := parseHeader(head)
		if n > maxControl {
			s.failProtocol(fmt.Errorf("%w: control frame of %d bytes", errProtocol, n))
			return
		}
		if _, err := io.ReadFull(y, body[:n]); err != nil {
			break
		}
		if err := s.handleControl(t, body[:n]); err != nil {
			s.failProtocol(err)
			return
		}
	}
	if !s.mux.IsClosed() {
		s.failProtocol(fmt.Errorf("%w: control stream ended", errProtocol))
	}
}

func (s *Session) handleControl(t frameType, body []byte) error {
	switch t {
	case controlAbort:
		id, c, err := parseAbort(body)
		if err != nil {
			return err
		}
		if st := s.streamOr(id, func(e *early) { e.aborted, e.code = true, c }); st != nil {
			st.aborted(c)
		}
	case controlStop:
		id, err := parseStream("STOP", body)
		if err != nil {
			return err
		}
		if st := s.streamOr(id, func(e *early) { e.stopped = true }); st != nil {
			st.stopped()
		}
	case controlProbe:
		id, err := parseStream("PROBE", body)
		if err != nil {
			return err
		}
		s.probed(id)
	case controlProgress:
		id, moved, err := parseProgress(body)
		if err != nil {
			return err
		}
		s.progressed(id, moved)
	case controlDrain:
		s.drainOnce.Do(func() { close(s.draining) })
	case controlMove:
		select {
		case s.moving <- struct{}{}:
		default: // one wish is as good as two
		}
	}
	return nil
}

// streamOr returns the stream, or notes what is said of it until the session
// has it.
func (s *Session) streamOr(id uint32, note func(*early)) *Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[id]; st != nil {
		return st
	}
	if w := s.adapter.windows.get(id); w != nil {
		note(&w.early)
	}
	return nil
}

// Answered waits until the peer has said whether the stream is open, and
// returns its refusal, or why there is no answer. It must not be called
// together with Read; ctx bounds the call only.
func (st *Stream) Answered(ctx context.Context) error {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = st.y.SetReadDeadline(time.Unix(1, 0))
		close(fired)
	})
	err := st.awaitAnswer()
	if stop() {
		return err
	}
	<-fired
	st.mu.Lock()
	if !st.over {
		_ = st.y.SetReadDeadline(st.readUntil)
	}
	st.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}
