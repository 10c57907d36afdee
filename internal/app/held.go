package app

import (
	"context"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A held session is one that a link keeps.
type held struct {
	link    *link
	session session
	since   time.Time
	retired chan struct{} // closed, with the link's mu, when it takes no new streams
	idle    chan struct{} // closed when it is retired and has no streams
	done    chan struct{} // closed when Run has returned

	uses int // streams; guarded by the link's mu

	// Of the goroutine that rechecks.
	refreshed time.Time // when a path was last asked for that shows the peer's credentials anew
	departure departure
}

// awaitPath waits until h has a path, is retired, or ctx ends.
func (h *held) awaitPath(ctx context.Context) {
	for {
		_, changed, err := h.session.Path()
		if err == nil {
			return
		}
		select {
		case <-changed:
		case <-h.retired:
			return
		case <-ctx.Done():
			return
		}
	}
}

// release ends a use that acquire, open or take began.
func (h *held) release() { h.link.release(h) }

// hold runs h's session until it is over.
func (l *link) hold(ctx context.Context, h *held) {
	l.running.Go(func() { l.attend(h) })
	err := h.session.Run(ctx)
	l.retire(h, err)
	l.mu.Lock()
	delete(l.all, h)
	l.mu.Unlock()
	close(h.done)
	l.trace.ended(h, err, time.Since(h.since) >= settled)
}

// attend retires h when its session is over, and ends the session when h is
// retired and its last stream has ended, or when another process has taken the
// place of its peer.
func (l *link) attend(h *held) {
	for {
		_, pathChanged, down := h.session.Path()
		changed, err := l.replacedBy(h, down)
		if err != nil {
			h.session.Fail(code.Replaced, err)
			return
		}
		idle := h.idle
		if down != nil {
			idle = nil // its close would reach nobody, and the peer hold it for the grace time
		}
		select {
		case <-idle:
			h.session.Close(code.Draining, "all streams have moved to another channel")
			return
		case <-h.session.Lost():
			l.retire(h, h.session.Err())
			return
		case <-pathChanged:
		case <-changed:
		}
	}
}

// replacedBy says that h's peer is no more: h has no path, and a later session
// is with another process of the same identity and name. A peer that can be
// reached may finish its streams, whoever else has its name. Otherwise it
// returns what is closed when that may have changed, beside h's path.
func (l *link) replacedBy(h *held, down error) (changed <-chan struct{}, err error) {
	l.mu.Lock()
	changed = l.changed // first: what comes after is seen by another call
	l.mu.Unlock()
	was := h.session.Peer()
	if down == nil || was.Name == "" {
		return changed, nil
	}
	siblings := []*link{l}
	if l.siblings != nil {
		siblings = l.siblings()
	}
	for _, other := range sessionsOf(siblings) {
		is := other.session.Peer()
		if is.Identifier == was.Identifier && is.Name == was.Name && is.Instance != was.Instance && other.since.After(h.since) {
			return nil, fmt.Errorf("another instance of %s has started as %q", is.Identifier, is.Name)
		}
	}
	return changed, nil
}

// retire keeps new streams from h, which ends when it has none, for the reason
// given.
func (l *link) retire(h *held, why error) {
	if l.retired(h, why) {
		l.tell()
	}
}

// retired is retire, and reports whether it was the first.
func (l *link) retired(h *held, why error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.isRetired() {
		return false
	}
	close(h.retired)
	if l.current == h {
		l.current, l.ended = nil, why
		l.changeLocked()
	}
	if h.uses == 0 {
		close(h.idle)
	}
	return true
}

func (h *held) isRetired() bool {
	select {
	case <-h.retired:
		return true
	default:
		return false
	}
}
