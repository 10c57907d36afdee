package channel

import (
	"errors"
	"net"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// Close is CloseWithReason(code.OK, "").
func (c *Channel) Close() error { return c.CloseWithReason(code.OK, "") }

// CloseWithReason sends what was written and then an authenticated CLOSE, over
// as many paths as that takes, unblocks Read and Write, and ends the channel.
// It waits for the peer to have everything, at most the Linger time; its error
// says that this is not known. Run must be running meanwhile. After the first
// call the others do nothing but wait for it.
func (c *Channel) CloseWithReason(cd code.Code, reason string) error {
	c.closeOnce.Do(func() { c.closeResult = c.close(cd, reason) })
	return c.closeResult
}

func (c *Channel) close(cd code.Code, reason string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.closing = true
		c.wakeLocked(c.unreadLocked())
		return c.err
	}
	c.stopDeadlinesLocked()
	c.closing = true
	// Nobody will read it.
	if c.peerEnd == nil {
		c.consumed = c.received
	}
	woken := c.unreadLocked()
	c.last = appendClose(nil, c.out.end, cd, reason)[typeLen:]
	c.interruptLocked()
	c.writable.Broadcast()
	c.standInLocked()
	c.changeLocked() // the CLOSE may need a path that nothing else has
	if path := c.path; path != nil {
		c.mu.Unlock()
		path.w.kick(false)
		c.mu.Lock()
	}
	c.wakeLocked(woken)
	err := c.lingerLocked()
	c.endLocked()
	return err
}

func (c *Channel) stopDeadlinesLocked() {
	for _, d := range []*deadline{&c.readUntil, &c.writeUntil} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
}

// unreadLocked gives up what has come and nobody will read, and returns whom to
// wake.
func (c *Channel) unreadLocked() []*Channel { return c.set.Buffers.give(c.in.drop(c.in.end)) }

// wakeLocked wakes channels, whose locks it takes without this one's.
func (c *Channel) wakeLocked(woken []*Channel) {
	if woken == nil {
		return
	}
	c.mu.Unlock()
	wake(woken)
	c.mu.Lock()
}

// lingerLocked waits until the peer has everything, and then a little for its
// own close.
func (c *Channel) lingerLocked() error {
	until := time.Now().Add(c.set.Linger)
	timer := time.AfterFunc(c.set.Linger, c.wakeClose)
	defer timer.Stop()
	for !c.closed && c.err == nil && time.Now().Before(until) {
		if c.path == nil && (c.peerEnd != nil || c.out.base == c.out.end) {
			// The peer misses nothing but the word: this side's end or, after its
			// own, that everything is here, which may have been lost with the path.
			if soon := time.Now().Add(c.set.Linger / 10); soon.Before(until) {
				until = soon
				timer.Reset(c.set.Linger / 10)
			}
		}
		c.writable.Wait()
	}
	switch {
	case !c.closed && c.peerEnd == nil:
		if c.err != nil {
			return c.err
		}
		return errors.New("channel closed without the peer's word that it has everything")
	case !c.closed:
		return nil // it has ended by itself and needs no telling
	}
	until = soonest(until, time.Now().Add(partTime))
	timer.Reset(max(0, time.Until(until)))
	for c.peerEnd == nil && c.err == nil && c.path != nil && time.Now().Before(until) {
		c.writable.Wait()
	}
	return nil
}

func (c *Channel) wakeClose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writable.Broadcast()
}

// endLocked ends a channel that was closed.
func (c *Channel) endLocked() {
	if c.err != nil {
		return
	}
	path := c.path
	c.overLocked(net.ErrClosed)
	if path == nil {
		return
	}
	c.path = nil
	if c.closed && c.peerEnd != nil {
		path.interruptRead() // frees the stand-in
		c.background.Go(path.part)
	} else {
		path.abort()
		c.background.Go(func() { path.discard(nil) })
	}
	c.changeLocked()
}

// Fail ends the channel at once, without a word to the peer: what a program
// knows of it (another instance has taken the peer's place, say) is more than
// the channel can find out.
func (c *Channel) Fail(cd code.Code, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(&LostError{Code: cd, Err: err}, "")
}

// failLocked ends the channel for err. With a word, the peer is told on the
// path that it has broken the protocol.
func (c *Channel) failLocked(err error, word string) {
	if c.err != nil {
		return
	}
	path, offset := c.path, min(c.next, c.out.end)
	c.overLocked(err)
	switch {
	case path == nil:
	case word != "":
		c.dropPathLocked(path, appendClose(nil, offset, code.Protocol, word))
	default:
		c.dropPathLocked(path, nil)
	}
}

// overLocked is the one place where a channel becomes over.
func (c *Channel) overLocked(err error) {
	c.err = err
	c.end()
	c.leftLocked()
	c.tick.Stop()
	c.pacer.Stop()
	if c.grace != nil {
		c.grace.Stop()
	}
	c.stopDeadlinesLocked()
	freed := c.out.drop(c.out.end)
	if c.peerEnd == nil || c.closing {
		freed += c.in.drop(c.in.end)
	}
	if woken := c.set.Buffers.give(freed); woken != nil {
		c.background.Go(func() { wake(woken) }) // it takes their locks
	}
	c.set.Buffers.forget(c)
	if c.table != nil {
		c.table.forget(c)
	}
	c.readable.Broadcast()
	c.writable.Broadcast()
	c.changeLocked()
}
