package channel

import (
	"fmt"
	"io"
	"math"
	"net"
)

// Write accepts all of p or returns an error. No bytes of another Write come
// between those of p.
func (c *Channel) Write(p []byte) (int, error) { return c.Writev(nil, p, false) }

// Writev is Write of head and body, one behind the other, as writev(2) is. more
// says that others are about to write, too: then little is not sent at once by
// the caller, but by another goroutine together with theirs.
func (c *Channel) Writev(head, body []byte, more bool) (n int, err error) {
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
		c.writing, c.holdback = false, false
		c.writable.Broadcast()
	}()
	size := len(head) + len(body)
	for {
		if err := c.writeStateLocked(); err != nil {
			return n, err
		}
		k := c.acceptLocked(head[min(n, len(head)):], body[max(0, n-len(head)):])
		n += k
		c.holdback = n < size
		if path := c.path; k > 0 && path != nil {
			// Nor by this goroutine if it has to look at the time.
			inline := size <= inlineMax && !more && c.writeUntil.at.IsZero()
			c.mu.Unlock()
			path.w.kick(inline)
			c.mu.Lock()
		}
		if c.next < c.out.end && c.flight.beginning(c.next, c.confirmed) {
			c.standInLocked() // the rest waits for a PONG, which a program that only writes does not read
		}
		if n == size {
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

// acceptLocked keeps as much of head and body, in this order, as the peer's
// window, the bound on what is unsent and the budget have room for.
func (c *Channel) acceptLocked(head, body []byte) (n int) {
	size := c.acceptableLocked(len(head) + len(body))
	for n < size {
		if room := c.out.room(); room < wholePiece(size-n) {
			switch {
			case c.set.Buffers.take(c.out.held(), c):
				c.out.grow()
			case room == 0:
				return n
			}
		}
		k := c.out.append(head[:min(len(head), size-n)])
		head = head[k:]
		n += k
		if len(head) == 0 {
			k = c.out.append(body[:min(len(body), size-n)])
			body = body[k:]
			n += k
		}
	}
	return n
}

// wholePiece returns how much room the first of size bytes are worth waiting
// for, or leaving room for others unused, so that they are one record and are
// sealed from where they stand: few are not, nor are the last of many.
func wholePiece(size int) int {
	if size < RecordData/4*3 {
		return 1
	}
	return min(size, RecordData)
}

// acceptableLocked returns how many of size bytes may be accepted now.
func (c *Channel) acceptableLocked(size int) int {
	window := c.window - min(c.window, c.out.end-c.out.base)
	unsent := c.out.end - c.next
	most := uint64(c.flight.backlog())
	if c.path == nil && c.flight.limit == math.MaxUint64 {
		most = unsentMax // whatever the next path is like
	}
	room := int(most - min(most, unsent))
	switch whole := wholePiece(size); {
	case room >= size:
	case room >= RecordData && whole == RecordData:
		room -= room % RecordData
	case room < whole && unsent > 0:
		return 0 // until that has left
	}
	return int(min(window, uint64(min(size, room))))
}

// sendable reports whether p, if it is the path, has something to send.
func (c *Channel) sendable(p *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p == c.path && c.moreLocked()
}

// moreLocked reports whether the path has something to send now.
func (c *Channel) moreLocked() bool {
	return c.next == c.out.end && c.closing || c.next < c.out.end && c.flightRoomLocked() > 0 || c.probeDueLocked()
}

// sendEndLocked is the offset after all there is to send, CLOSE included.
func (c *Channel) sendEndLocked() uint64 {
	if c.closing {
		return c.out.end + 1
	}
	return c.out.end
}

// fill returns the plaintext of the next record for p, if it is not longer than
// dst: in dst, or in a chunk that is pinned until the caller has sealed it and
// calls unpin. There is none for nil. Its caller owns p's sending.
func (c *Channel) fill(p *Conn, dst []byte) (plain []byte, pinned *chunk) {
	c.mu.Lock()
	f := &c.flight
	switch {
	case p != c.path:
	case c.probeDueLocked():
		if len(dst) >= typeLen+pingLen {
			dst[0] = byte(typePing)
			plain = dst[:typeLen+f.probe(c.next, c.confirmed, dst[typeLen:])]
		}
		c.mu.Unlock()
		return plain, nil
	case c.next == c.sendEndLocked():
		if !c.holdback { // else the writer has more, for which there was no room
			f.idle(c.next, c.confirmed)
		}
	case c.next < c.out.end:
		if room := min(c.flightRoomLocked(), f.record()); room > 0 {
			plain, pinned = c.recordLocked(dst, room)
		}
	case len(dst) >= typeLen+len(c.last):
		dst[0] = byte(typeClose)
		plain = dst[:typeLen+copy(dst[typeLen:], c.last)]
		c.next++
	}
	if plain == nil {
		c.mu.Unlock()
		return nil, nil
	}
	c.sentMax = max(c.sentMax, c.next)
	if c.writing {
		c.writable.Broadcast()
	}
	woken := c.set.Buffers.give(c.trimLocked())
	c.mu.Unlock()
	wake(woken)
	return plain, pinned
}

// recordLocked returns the next DATA record's plaintext, of at most that many
// bytes, for fill.
func (c *Channel) recordLocked(dst []byte, most uint64) (plain []byte, pinned *chunk) {
	from := c.out.at(c.next)
	data := from.from(c.next)
	data = data[:min(uint64(len(data)), most)]
	if len(data) > len(dst)-typeLen {
		return nil, nil
	}
	if c.next == from.base {
		plain, pinned = from.plain[:typeLen+len(data)], from
		pinned.pins++
	} else {
		dst[0] = byte(typeData)
		plain = dst[:typeLen+copy(dst[typeLen:], data)]
	}
	c.next += uint64(len(data))
	c.flight.sent(len(data), c.next, c.confirmed)
	return plain, pinned
}

// unpin says that the record in a chunk is sealed.
func (c *Channel) unpin(pinned *chunk) {
	c.mu.Lock()
	pinned.pins--
	c.mu.Unlock()
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
