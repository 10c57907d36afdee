package app

import (
	"context"
	"errors"

	"github.com/culvert-net/culvert/internal/trace"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// acquire returns the session for one more stream, and waits until ctx ends for
// one that has a path. The error is a *noChannelError, or errFinished where the link
// makes no sessions any more. The caller calls release once.
func (l *link) acquire(ctx context.Context) (*held, error) {
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	for {
		l.mu.Lock()
		h, changed := l.current, l.changed
		var pathChanged <-chan struct{}
		if h != nil {
			var err error
			if _, pathChanged, err = h.session.Path(); err == nil {
				h.uses++
				l.mu.Unlock()
				return h, nil
			}
		}
		l.mu.Unlock()
		poke(l.hurry)
		select {
		case <-changed:
		case <-pathChanged:
		case <-l.done:
			return nil, errFinished
		case <-ctx.Done():
			return nil, l.noChannel()
		}
	}
}

func (l *link) noChannel() error { return &noChannelError{to: l.outlet.String(), last: l.lastError()} }

// open opens a stream, and waits for a session until ctx ends. The session is to be
// released when the stream has ended.
func (l *link) open(ctx context.Context, o tunnel.Open) (*tunnel.Stream, *held, error) {
	for {
		h, err := l.acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		trace.From(ctx).Event(trace.EventChannel)
		st, err := h.session.Open(ctx, o)
		if err == nil {
			trace.From(ctx).Event(trace.EventOpenSent)
			return st, h, nil
		}
		h.release()
		switch {
		case ctx.Err() != nil:
			return nil, nil, err
		case errors.Is(err, tunnel.ErrDraining):
			// Which the link is about to notice.
			select {
			case <-h.retired:
			case <-ctx.Done():
				return nil, nil, err
			}
		case spent(err):
			l.retire(h, err)
		default:
			return nil, nil, err
		}
	}
}

// spent reports whether err is a session's that opens no more streams.
func spent(err error) bool {
	var lost *tunnel.LossError
	return errors.As(err, &lost) || errors.Is(err, tunnel.ErrUsedUp)
}

// available returns the session that a stream can be opened on at once, or nil,
// and the streams that the link has.
func (l *link) available() (h *held, streams int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.availableLocked()
}

func (l *link) availableLocked() (h *held, streams int) {
	for h := range l.all {
		streams += h.uses
	}
	if h = l.current; h == nil {
		return nil, streams
	}
	select {
	case <-h.session.Draining():
		return nil, streams
	default:
	}
	if _, _, err := h.session.Path(); err != nil {
		return nil, streams
	}
	return h, streams
}

// take is acquire for a session that is available, nil if none is.
func (l *link) take() *held {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, _ := l.availableLocked()
	if h != nil {
		h.uses++
	}
	return h
}

// release ends a use that acquire began.
func (l *link) release(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.uses--; h.uses == 0 && h.isRetired() {
		close(h.idle)
	}
}
