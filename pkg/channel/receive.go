package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// Read returns data in order. While a Read waits it is the one that reads the
// path, so a program that always reads pays no hand-off; when none comes for a
// while, a stand-in reads instead, so that control records are always handled.
func (c *Channel) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	defer c.tickLocked() // the path is not to be without a reader for long
	for {
		if err := c.readStateLocked(); err != nil {
			if c.closing {
				c.standInLocked() // at once: Close waits for what the path brings
			}
			return 0, err
		}
		switch {
		case len(b) == 0:
			return 0, nil
		case c.in.base < c.in.end:
			return c.unholdLocked(b), nil
		case c.peerEnd != nil:
			return 0, c.peerEnd
		case c.reading, c.path == nil:
			c.waiting++
			c.readable.Wait()
			c.waiting--
		default:
			if n := c.readPathLocked(b); n > 0 {
				c.consumeLocked(n)
				return n, nil
			}
		}
	}
}

// readStateLocked returns why nothing can be read, or nil. Once the peer's CLOSE
// has come, what came before it and the end stay readable, whatever becomes of
// the channel: the peer has this side's word for them.
func (c *Channel) readStateLocked() error {
	err := c.stateLocked(&c.readUntil)
	if c.peerEnd != nil && c.err != nil && !c.closing {
		return nil
	}
	return err
}

// unholdLocked returns bytes that the stand-in has received.
func (c *Channel) unholdLocked(b []byte) int {
	n := c.in.copyAt(c.in.base, b)
	woken := c.set.Buffers.give(c.in.drop(c.in.base + uint64(n)))
	c.consumeLocked(n)
	c.wakeLocked(woken)
	return n
}

// consumeLocked counts what Read returns, and lets the peer know in time.
func (c *Channel) consumeLocked(n int) {
	if c.peerEnd != nil {
		return // the CLOSE has counted all of it
	}
	c.consumed += uint64(n)
	if path := c.path; path != nil && c.consumed-c.acked >= ackBytes {
		c.acked = c.consumed
		c.mu.Unlock()
		path.w.signalAck()
		c.mu.Lock()
	}
}

// tickLocked sees to it that onTick comes, if it has anything to do.
func (c *Channel) tickLocked() {
	read := c.reading || c.peerEnd != nil && !c.closing
	if c.ticking || c.err != nil || c.path == nil || read && c.consumed == c.acked {
		return
	}
	c.ticking = true
	c.readsAtTick = c.reads
	c.tick.Reset(tickTime)
}

// onTick sends the ACK that is due and, when no Read has come for a while,
// starts the stand-in.
func (c *Channel) onTick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ticking = false
	path := c.path
	if c.err != nil || path == nil {
		return
	}
	if c.reads == c.readsAtTick {
		c.standInLocked()
	}
	c.keeper.checkKeysLocked(path)
	if c.consumed > c.acked {
		c.acked = c.consumed
		c.mu.Unlock()
		path.w.signalAck()
		c.mu.Lock()
	}
	c.tickLocked()
}

func (c *Channel) standInLocked() {
	if c.reading || c.path == nil || c.err != nil || c.peerEnd != nil && !c.closing {
		return
	}
	c.reading = true
	c.background.Go(c.standIn)
}

// standIn reads the path until a Read waits to do so. It is started with
// reading set.
func (c *Channel) standIn() {
	buf := wireBufs.Get().(*wireBuf)
	defer wireBufs.Put(buf)
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.reading = false
		if c.waiting > 0 && !c.closing || c.path == nil || c.err != nil || c.peerEnd != nil && !c.closing {
			c.readable.Broadcast()
			return
		}
		n := c.readPathLocked(buf[:])
		switch {
		case n == 0:
		case c.closing:
			c.consumed += uint64(n) // nobody will read it
			c.tickLocked()
		default:
			c.holdLocked(buf[:n])
		}
	}
}

// holdLocked keeps what no Read was there for. The window bounds it.
func (c *Channel) holdLocked(b []byte) {
	for len(b) > 0 {
		if c.in.room() == 0 {
			c.set.Buffers.force()
			c.in.grow()
		}
		b = b[c.in.append(b):]
	}
	c.readable.Broadcast()
}

// readPathLocked reads from the path into b, once, without mu, and returns how
// many new bytes that has brought: none when the path has changed meanwhile.
func (c *Channel) readPathLocked(b []byte) int {
	path := c.path
	c.reading = true
	c.mu.Unlock()
	n, err := path.Read(b)
	c.mu.Lock()
	c.reading = false
	if c.waiting > 0 {
		c.readable.Broadcast()
	}
	if path != c.path {
		return 0
	}
	if n > 0 {
		return c.receivedLocked(b[:n])
	}
	switch {
	case err == nil: // the peer has closed
	case errors.Is(err, os.ErrDeadlineExceeded):
		path.resumeRead() // it was to look at the state again
	case path.lie != nil:
		c.failLocked(&LostError{Code: code.Protocol, Err: path.lie}, path.lie.Error())
	default:
		c.lostLocked(path, err)
	}
	return 0
}

// needsPath reports whether the two sides still have to tell each other
// something. After the peer's CLOSE that is this side's own, once it comes.
func (c *Channel) needsPath() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peerEnd == nil || c.closing && !c.closed
}

// receivedLocked counts what the path has brought and cuts off what is here
// already.
func (c *Channel) receivedLocked(b []byte) int {
	skip := min(c.received-c.onPath, uint64(len(b)))
	c.onPath += uint64(len(b))
	n := uint64(copy(b, b[skip:]))
	if c.received+n-c.consumed > uint64(c.set.Window) || c.peerEnd != nil && n > 0 {
		err := fmt.Errorf("%w: DATA beyond the window or the end", ErrProtocol)
		c.failLocked(&LostError{Code: code.Protocol, Err: err}, err.Error())
		return 0
	}
	c.received += n
	return int(n)
}

// control acts on a record of p that is the channel's. It is called inside
// p.Read, in order with the data.
func (c *Channel) control(p *Conn, t recordType, body []byte) error {
	if p.unused != (t == typeAttached) {
		return fmt.Errorf("%w: record of type %d out of place", ErrProtocol, t)
	}
	switch t {
	case typeAck:
		if len(body) != ackLen {
			return fmt.Errorf("%w: ACK of %d bytes", ErrProtocol, len(body))
		}
		return c.ackedTo(p, binary.BigEndian.Uint64(body))
	case typeClose:
		return c.peerClosed(p, body)
	case typeAttached:
		a, err := parseAttached(body)
		if err != nil {
			return err
		}
		p.attach, p.unused = a, false
		return nil
	}
	return fmt.Errorf("%w: record of type %d", ErrProtocol, t)
}

// peerClosed takes the peer's CLOSE, which the path brings after all data. One
// that says why may come earlier, when the peer does not wait for anything.
func (c *Channel) peerClosed(p *Conn, body []byte) error {
	offset, cd, reason, err := parseClose(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	switch {
	case p != c.path:
		c.mu.Unlock()
		return nil
	case offset != c.onPath || cd == code.OK && offset != c.received || c.peerEnd != nil:
		defer c.mu.Unlock()
		if c.peerEnd != nil && offset == c.onPath && offset+1 == c.received {
			c.onPath++ // sent again: this side's ACK was lost
			return nil
		}
		return fmt.Errorf("%w: CLOSE after %d bytes, %d received", ErrProtocol, offset, c.received)
	}
	c.peerEnd = io.EOF
	if cd != code.OK {
		c.peerEnd = &CloseError{Code: cd, Reason: reason}
	}
	// The CLOSE counts as a byte. Who has closed has no use for backpressure
	// any more: it is told at once that everything is here.
	c.received++
	c.onPath++
	c.acked, c.consumed = c.received, c.received
	p.look = true
	c.readable.Broadcast()
	c.writable.Broadcast()
	c.mu.Unlock()
	p.w.signalAck()
	return nil
}

// lostLocked gives a path up that has ended by itself.
func (c *Channel) lostLocked(path *Conn, err error) {
	if path != c.path {
		return
	}
	if cause := path.w.cause(); cause != nil && !path.dead.Load() {
		err = cause
	}
	c.dropPathLocked(path, nil)
	c.lostAt, c.lostErr = time.Now(), err
	c.held = c.lostAt.Sub(c.pathUp)
	if c.table != nil {
		c.grace = time.AfterFunc(c.set.Grace, c.graceOver)
		if tooMany := c.table.detached(c); tooMany != nil {
			c.background.Go(func() { endTooMany(tooMany) }) // it takes their locks
		}
	}
	if f := c.set.Trace.Lost; f != nil && !c.closing && c.peerEnd == nil {
		route := c.route
		c.tellLocked(func() { f(c, route, err) })
	}
}

func endTooMany(channels []*Channel) {
	err := &LostError{Code: code.Limit, Err: errors.New("too many channels wait for a path, and this one has for longest")}
	for _, c := range channels {
		c.failDetached(err)
	}
}

// failDetached ends a channel that still has no path, and reports whether it was
// this call that did.
func (c *Channel) failDetached(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path != nil || c.err != nil {
		return false
	}
	c.failLocked(err, "")
	return true
}

// graceOver ends a channel whose initiator has made no path for too long.
func (c *Channel) graceOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == nil && time.Since(c.lostAt) >= c.set.Grace { // else the timer was stopped too late
		c.failLocked(&LostError{Code: code.Timeout, Err: fmt.Errorf("no path for %s: %w", c.set.Grace, c.lostErr)}, "")
	}
}

// leftLocked ends the path that another has taken the place of. It is not ended
// before the initiator has the word that it is not used any more: to the
// initiator its end would be a loss.
func (c *Channel) leftLocked() {
	if old := c.leaving; old != nil {
		c.leaving = nil
		old.abort()
		c.background.Go(func() { old.discard(nil) })
	}
}

// dropPathLocked ends the path, with last as its last record if that is not
// nil.
func (c *Channel) dropPathLocked(path *Conn, last []byte) {
	c.path = nil
	c.leftLocked()
	if last == nil {
		path.abort() // at once: whoever reads or writes is in the way of others
	}
	c.background.Go(func() { path.discard(last) })
	c.readable.Broadcast()
	c.writable.Broadcast()
	c.changeLocked()
}
