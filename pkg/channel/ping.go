package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// maxPings bounds how many calls of Ping wait at a time.
const maxPings = 64

var (
	// ErrNoPath is wrapped by Ping's error where there is no path to ping over, or
	// none any more before the answer has come.
	ErrNoPath = errors.New("channel has no path")

	errPings = fmt.Errorf("%d pings wait for their answers already", maxPings)
)

// A pinging is a call of Ping that waits.
type pinging struct {
	path  *Conn
	since time.Duration // of path's clock, from which on a PING may have been sent for it
	took  chan<- time.Duration
}

// Ping sends a PING to the peer and returns how long its PONG took: the round trip
// between the two instances over the path that there is, all relays included. Both
// records go before data that waits, but behind what is on its way already.
//
// Somebody has to Read the channel meanwhile, and Run to run. An error is ctx's
// cause, wraps [ErrNoPath], or is what the channel is over with. At most 64 calls
// wait at a time.
func (c *Channel) Ping(ctx context.Context) (time.Duration, error) {
	took := make(chan time.Duration, 1)
	p, changed, err := c.beginPing(took)
	if err != nil {
		return 0, err
	}
	defer c.endPing(took)
	if err := p.Ping(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoPath, err)
	}
	for {
		select {
		case d := <-took:
			return d, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-changed:
			if changed, err = c.pathIs(p); err != nil {
				return 0, err
			}
		}
	}
}

// beginPing notes that somebody waits for the answer to a PING that is sent from now
// on, over the path that it returns with what is closed when that may be another one.
func (c *Channel) beginPing(took chan<- time.Duration) (*Conn, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return nil, nil, net.ErrClosed
	case c.err != nil:
		return nil, nil, c.err
	case c.path == nil:
		return nil, nil, c.noPathLocked()
	case len(c.pings) == maxPings:
		return nil, nil, errPings
	}
	c.pings = append(c.pings, pinging{path: c.path, since: time.Since(c.path.base), took: took})
	return c.path, c.changed, nil
}

func (c *Channel) endPing(took chan<- time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pings = slices.DeleteFunc(c.pings, func(w pinging) bool { return w.took == took })
}

// pathIs returns what is closed when the path may be another than p, or an error if
// it is one already.
func (c *Channel) pathIs(p *Conn) (<-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, c.err
	case c.path == nil:
		return nil, c.noPathLocked()
	case c.path != p:
		return nil, fmt.Errorf("%w that it had: another one has taken its place", ErrNoPath)
	}
	return c.changed, nil
}

func (c *Channel) noPathLocked() error {
	if c.lostErr == nil {
		return ErrNoPath
	}
	return fmt.Errorf("%w: %w", ErrNoPath, c.lostErr)
}

// answerLocked tells those that wait for a PONG which they may take for theirs: its
// body, the time at which its PING was sent, is after they began and before now. A
// peer that makes up another one is not answered to.
func (c *Channel) answerLocked(p *Conn, body []byte) {
	if len(c.pings) == 0 {
		return
	}
	sent, now := binary.BigEndian.Uint64(body), time.Since(p.base)
	if sent > uint64(now) {
		return
	}
	c.pings = slices.DeleteFunc(c.pings, func(w pinging) bool {
		if w.path != p || time.Duration(sent) < w.since {
			return false
		}
		w.took <- now - time.Duration(sent) // has room for one, and comes once
		return true
	})
}
