// Package tunnel owns the streams on a channel: a yamux session behind an
// adapter, a fair gate before it, and inside each stream small frames that keep
// an end, an abort and a refusal apart, which yamux cannot. The inlet's side
// opens streams, the outlet's side accepts them.
//
// It is the only importer of yamux. It does not dial, does not decide who may
// use a service, and does not log.
package tunnel

import (
	"context"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// acceptLoop takes the peer's streams off the mux, each into a goroutine that
// waits for its OPEN.
func (s *Session) acceptLoop() {
	first := true
	for {
		y, err := s.mux.AcceptStream()
		if err != nil {
			return
		}
		switch {
		case first != (y.StreamID() == controlStream):
			s.failProtocol(fmt.Errorf("%w: stream %d before the control stream", errProtocol, y.StreamID()))
			return
		case first:
			first = false
			s.control.attach(y)
			continue
		}
		select {
		case s.slots <- struct{}{}:
			st := s.newStream(y, false, s.freeSlot)
			s.spawn(func() { s.awaitOpen(st) })
		default:
			s.refuseMux(s.newStream(y, false, func() {}))
		}
	}
}

// tooMany says what the limit is.
func (s *Session) tooMany() error {
	return fmt.Errorf("%w: %d are open, which is the most: try again when one has ended", ErrTooMany, cap(s.slots))
}

// refuseMux answers a stream for which there is no room. It waits for the
// carrier: were the refusals not as fast as the peer, streams that it has closed
// already would count against it.
func (s *Session) refuseMux(st *Stream) {
	e := ending{err: &ResetError{Code: code.Limit}, last: appendRefused(nil, code.Limit, s.tooMany().Error()), deserted: true}
	if st.conclude(e) {
		st.leave(e)
	}
}

// A Request is a stream that the peer wants. Exactly one of Accept and Refuse
// is to be called.
type Request struct {
	Open
	st *Stream
}

// Peer returns who asks.
func (r *Request) Peer() channel.Peer { return r.st.s.carrier.Peer() }

// StreamID returns the stream's number in its session.
func (r *Request) StreamID() uint32 { return r.st.id }

// Accept tells the peer that its stream is open.
func (r *Request) Accept() (*Stream, error) {
	if err := r.st.sendFrame(appendFrame(nil, frameOpened)); err != nil {
		_ = r.st.Reset(code.Aborted)
		return nil, err
	}
	return r.st, nil
}

// Refuse tells the peer why there will be no stream. It returns at once.
func (r *Request) Refuse(c code.Code, reason string) {
	if c == code.OK {
		c = code.Aborted
	}
	r.st.end(ending{err: &ResetError{Code: c}, last: appendRefused(nil, c, reason), deserted: true})
}

// OnCancel has f called when the peer has given the stream up or the session is
// over, at once if that is so already. f must not block. Another f takes its place, nil
// for nothing.
func (r *Request) OnCancel(f func()) {
	r.st.mu.Lock()
	r.st.onGone = f
	over := r.st.over
	r.st.mu.Unlock()
	if over && f != nil {
		f()
	}
}

// awaitOpen reads a new stream's OPEN and hands it to Accept.
func (s *Session) awaitOpen(st *Stream) {
	timer := time.AfterFunc(s.cfg.Patience, func() { _ = st.Reset(code.Timeout) })
	o, err := st.readOpen()
	if !timer.Stop() || err != nil {
		_ = st.Reset(code.Aborted)
		return
	}
	select {
	case s.requests <- &Request{Open: o, st: st}:
	case <-st.gone:
	case <-s.lost:
		_ = st.Reset(code.Aborted)
	}
}

// Accept returns the next stream that the peer wants.
func (s *Session) Accept(ctx context.Context) (*Request, error) {
	select {
	case r := <-s.requests:
		return r, nil
	case <-s.lost:
		return nil, s.lossErr()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
