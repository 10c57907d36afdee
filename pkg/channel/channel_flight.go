package channel

import (
	"encoding/binary"
	"time"
)

// ponged acts on a PONG of p's.
func (c *Channel) ponged(p *Conn, body []byte) {
	c.mu.Lock()
	if p != c.path {
		c.mu.Unlock()
		return
	}
	f := &c.flight
	sent := binary.BigEndian.Uint64(body)
	// Probes and the keepalive's PINGs both bear the time since the path's base.
	if now := time.Since(p.base); sent <= uint64(now) {
		c.ping = max(now-time.Duration(sent), time.Microsecond)
	}
	f.pong(sent, c.next, c.smalls.Load())
	c.backlog.Store(int64(f.backlog()))
	more := c.moreLocked()
	if c.writing {
		c.writable.Broadcast() // the bound on what is unsent may have grown
	}
	c.answerLocked(p, body)
	c.mu.Unlock()
	if more {
		p.w.kick(false)
	}
}

// pinged takes a PING of p's into account, which the record layer answers.
func (c *Channel) pinged(p *Conn, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == c.path {
		c.flight.pinged(binary.BigEndian.Uint64(body), c.onPath)
	}
}

// Brisk says that a frame is about to be written that is small and that somebody
// waits for: bulk is not to stand in its way for a while. It is cheap.
func (c *Channel) Brisk() { c.smalls.Add(1) }

// Backlog returns how many bytes may wait before the channel without more delay
// than they are worth: few milliseconds of the path's rate when that is slow.
func (c *Channel) Backlog() int { return int(c.backlog.Load()) }

// onPace goes on with what was held back for the pace.
func (c *Channel) onPace() {
	c.mu.Lock()
	path := c.path
	c.mu.Unlock()
	if path != nil {
		path.w.kick(false)
	}
}

// endingLocked reports whether either side has begun to close: the flight is over
// then. A peer that has said its last word answers no PING, and one that has
// everything goes: what comes to it then, it answers with a reset, which can
// destroy the last word on its way.
func (c *Channel) endingLocked() bool { return c.closing || c.peerEnd != nil }

// probeDueLocked reports whether a probe goes before everything else.
func (c *Channel) probeDueLocked() bool {
	return !c.endingLocked() && c.flight.due(c.next, c.confirmed, c.out.end)
}

// flightRoomLocked is how many bytes may be put on their way now, before the next
// probe. What the pace holds back comes later, by the pacer. There is room for
// none only while something else is to come that makes some.
func (c *Channel) flightRoomLocked() uint64 {
	if c.endingLocked() {
		return maxWindow
	}
	n := c.flight.room(c.next, c.confirmed)
	if wait := c.flight.paced(); n > 0 && wait > 0 {
		c.pacer.Reset(wait)
		return 0
	}
	return min(n, c.flight.untilProbe(c.next, c.confirmed))
}
