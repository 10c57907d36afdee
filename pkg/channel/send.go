package channel

import (
	"fmt"
	"io"
	"net"
)

// Write accepts all of p or returns an error. No bytes of another Write come
// between those of p.
func (c *Channel) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing {
		if err := c.writeStateLocked(); err != nil {
			return 0, err
		}
		c.writable.Wait()
	}
	c.writing = true
	defer func() {
		c.writing = false
		c.writable.Broadcast()
	}()
	for {
		if err := c.writeStateLocked(); err != nil {
			return n, err
		}
		k := c.acceptLocked(p[n:])
		n += k
		if path := c.path; k > 0 && path != nil {
			size := len(p)
			if !c.writeUntil.at.IsZero() {
				size = inlineMax + 1 // not by this goroutine, which has to look at the time
			}
			c.mu.Unlock()
			path.w.kick(size)
			c.mu.Lock()
		}
		if n == len(p) {
			return n, nil
		}
		if k == 0 {
			c.writable.Wait()
		}
	}
}

func (c *Channel) writeStateLocked() error {
	if err := c.stateLocked(&c.writeUntil); err != nil {
		return err
	}
	if c.peerEnd == io.EOF {
		return fmt.Errorf("peer has closed the channel: %w", net.ErrClosed)
	}
	return c.peerEnd
}

// acceptLocked keeps as much of p as the peer's window, the bound on what is
// unsent and the budget have room for.
func (c *Channel) acceptLocked(p []byte) (n int) {
	most := uint64(c.flight.backlog())
	room := min(c.window-min(c.window, c.out.end-c.out.base), most-min(most, c.out.end-c.next))
	p = p[:min(uint64(len(p)), room)]
	for n < len(p) {
		if c.out.room() == 0 {
			if !c.set.Buffers.take(c.out.held(), c) {
				break
			}
			c.out.grow()
		}
		n += c.out.append(p[n:])
	}
	return n
}

// sendable reports whether p, if it is the path, has something to send.
func (c *Channel) sendable(p *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p == c.path && c.moreLocked()
}

// moreLocked reports whether the path has something to send now.
func (c *Channel) moreLocked() bool {
	return c.next == c.out.end && c.closing || c.next < c.out.end && c.flightRoomLocked() > 0 || c.flight.due(c.next, c.confirmed)
}

// onPace goes on with what was held back for the pace.
func (c *Channel) onPace() {
	c.mu.Lock()
	path := c.path
	c.mu.Unlock()
	if path != nil {
		path.w.kick(inlineMax + 1)
	}
}

// flightRoomLocked is how many bytes may be put on their way now. What the pace
// holds back comes later, by the pacer. The peer's end stops its PONGs, and what
// is sent behind it is of no use.
func (c *Channel) flightRoomLocked() uint64 {
	if c.peerEnd != nil {
		return maxWindow
	}
	n := c.flight.room(c.next, c.confirmed)
	if wait := c.flight.paced(); n > 0 && wait > 0 {
		c.pacer.Reset(wait)
		return 0
	}
	return n
}

// sendEndLocked is the offset after all there is to send, CLOSE included.
func (c *Channel) sendEndLocked() uint64 {
	if c.closing {
		return c.out.end + 1
	}
	return c.out.end
}

// fill puts the body of the next record for p into dst, and says of which
// type; nothing for 0. Its caller owns p's sending.
func (c *Channel) fill(p *Conn, dst []byte) (t recordType, n int) {
	c.mu.Lock()
	f := &c.flight
	switch {
	case p != c.path:
		c.mu.Unlock()
		return 0, 0
	case f.due(c.next, c.confirmed):
		n = f.probe(c.next, c.confirmed, dst)
		c.mu.Unlock()
		return typePing, n
	case c.next == c.sendEndLocked():
		if !c.writing { // else the writer has more, for which there was no room
			f.idle(c.next, c.confirmed)
		}
		c.mu.Unlock()
		return 0, 0
	case c.next < c.out.end:
		room := min(c.flightRoomLocked(), f.untilProbe(c.next, c.confirmed), uint64(len(dst)))
		if room == 0 {
			c.mu.Unlock()
			return 0, 0
		}
		t, n = typeData, c.out.copyAt(c.next, dst[:room])
		c.next += uint64(n)
		f.sent(n)
	case len(dst) >= len(c.last):
		t, n = typeClose, copy(dst, c.last)
		c.next++
	}
	c.sentMax = max(c.sentMax, c.next)
	if c.writing {
		c.writable.Broadcast()
	}
	woken := c.set.Buffers.give(c.trimLocked())
	c.mu.Unlock()
	wake(woken)
	return t, n
}

// trimLocked gives up what the peer has consumed, and returns how many chunks
// that has freed. What the path has yet to send is kept even then: the peer has
// it from the path before, and counts on this one to bring it again.
func (c *Channel) trimLocked() (freed int) {
	return c.out.drop(max(c.out.base, min(c.confirmed, c.next, c.out.end)))
}

// ack returns what to say in an ACK on p now.
func (c *Channel) ack(p *Conn) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p == c.path {
		c.acked = c.consumed
	}
	return c.consumed
}

// ackedTo acts on the peer's ACK: it has consumed all before offset to.
func (c *Channel) ackedTo(p *Conn, to uint64) error {
	c.mu.Lock()
	if p != c.path {
		c.mu.Unlock()
		return nil // of a path that was given up meanwhile
	}
	if to < c.confirmed || to > c.sentMax {
		c.mu.Unlock()
		return fmt.Errorf("%w: ACK of %d, outside %d to %d", ErrProtocol, to, c.confirmed, c.sentMax)
	}
	c.confirmed = to
	c.leftLocked() // the first thing that the initiator says on a path
	c.keeper.checkKeysLocked(p)
	woken := c.set.Buffers.give(c.trimLocked())
	if to > c.out.end {
		c.closed = true
	}
	if c.writing || c.closed {
		c.writable.Broadcast()
	}
	c.mu.Unlock()
	wake(woken)
	return nil
}
