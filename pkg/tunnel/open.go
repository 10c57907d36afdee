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
	"errors"
	"fmt"

	"github.com/hashicorp/yamux"

	"github.com/culvert-net/culvert/pkg/code"
)

// Open opens a stream. It returns at once, and data may be written at once;
// the peer's refusal is what Read, Write and Answered return later. ctx bounds
// the call only.
func (s *Session) Open(ctx context.Context, o Open) (*Stream, error) {
	frame, err := o.frame()
	if err != nil {
		return nil, err
	}
	switch {
	case isClosed(s.lost):
		return nil, s.lossErr()
	case isClosed(s.draining):
		return nil, ErrDraining
	}
	select {
	case <-s.started:
	case <-s.lost:
		return nil, s.lossErr()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return nil, s.tooMany()
	}
	select {
	case s.unacked <- struct{}{}:
	case <-s.lost:
		<-s.slots
		return nil, s.lossErr()
	case <-ctx.Done():
		<-s.slots
		return nil, fmt.Errorf("waiting to open a stream: %w", context.Cause(ctx))
	}
	return s.openStream(ctx, frame)
}

// openStream opens the mux's stream and sends OPEN. The mux may block while
// the carrier is stuck, without regard for ctx: it does so in a goroutine that
// cleans up after itself when nobody waits any more.
func (s *Session) openStream(ctx context.Context, frame []byte) (*Stream, error) {
	type opened struct {
		st  *Stream
		err error
	}
	ch := make(chan opened, 1)
	s.spawn(func() {
		y, err := s.mux.OpenStream()
		if err != nil {
			<-s.slots
			<-s.unacked
			y = nil
		}
		var st *Stream
		if y != nil {
			st = s.newStream(y, true, s.freeSlot)
			err = st.sendFrame(frame)
		}
		ch <- opened{st, err}
	})
	select {
	case o := <-ch:
		if o.st == nil {
			return nil, s.muxErr(o.err)
		}
		if o.err != nil {
			_ = o.st.Reset(code.Aborted)
			return nil, o.err
		}
		return o.st, nil
	case <-ctx.Done():
		s.spawn(func() {
			if o := <-ch; o.st != nil {
				_ = o.st.Reset(code.Aborted)
			}
		})
		return nil, fmt.Errorf("opening a stream: %w", context.Cause(ctx))
	}
}

// muxErr turns an error of the mux into what it means.
func (s *Session) muxErr(err error) error {
	if errors.Is(err, yamux.ErrStreamsExhausted) {
		return ErrUsedUp
	}
	return s.lossErr() // the mux has shut down, or is about to
}

func (s *Session) freeSlot() { <-s.slots }

// newStream registers a stream of the mux, and calls gone when the mux no longer
// knows it. On the opening side the caller holds a place among the unanswered.
func (s *Session) newStream(y *yamux.Stream, opener bool, gone func()) *Stream {
	st := &Stream{
		s: s, y: y, id: y.StreamID(),
		win:    s.adapter.windows.onGone(y.StreamID(), gone),
		opener: opener, gone: make(chan struct{}), noWrite: make(chan struct{}),
		place: waiter{ready: make(chan struct{}, 1)},
	}
	st.active()
	s.mu.Lock()
	s.streams[st.id] = st
	early := st.win.early
	s.mu.Unlock()
	if early.aborted {
		st.aborted(early.code)
	}
	if early.stopped {
		st.stopped()
	}
	if isClosed(s.lost) { // finish may have looked before
		st.end(ending{err: s.lossErr(), lost: true})
	}
	return st
}

// forget takes a stream off the list, once this side has closed it.
func (s *Session) forget(st *Stream) {
	s.mu.Lock()
	delete(s.streams, st.id)
	s.mu.Unlock()
	st.win.ignore()
	s.adapter.windows.closed(st.id, true, false)
}
