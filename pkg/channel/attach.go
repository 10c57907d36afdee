package channel

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// install makes p, which the responder has taken into use, the path of the
// initiator's channel. An error ends p.
func (c *Channel) install(p *Conn, route int, cause Cause) error {
	c.mu.Lock()
	a := p.attach
	err := c.mayInstallLocked(p)
	if err != nil {
		c.mu.Unlock()
		p.discard(p.complaint(err))
		return err
	}
	if old := c.path; old != nil {
		c.dropPathLocked(old, nil)
	}
	c.window = min(uint64(a.window), maxWindow)
	c.route, c.peer = route, p.peer
	c.useLocked(p, a.received, a.start, Move{Cause: cause, Route: route})
	c.mu.Unlock()
	c.started(p)
	return nil
}

// mayInstallLocked checks an ATTACHED against what can be true. A lie ends the
// channel.
func (c *Channel) mayInstallLocked(p *Conn) error {
	a := p.attach
	var lie error
	switch {
	case c.err != nil:
		return c.err
	case a.epoch != p.epoch:
		lie = fmt.Errorf("%w: ATTACHED of attempt %d, asked for %d", ErrProtocol, a.epoch, p.epoch)
	case p.epoch < c.installed:
		return errors.New("a later attempt has made the path")
	case a.received < c.confirmed || a.received > c.sentMax:
		lie = fmt.Errorf("%w: ATTACHED after %d bytes, outside %d to %d", ErrProtocol, a.received, c.confirmed, c.sentMax)
	case a.start > c.received:
		lie = fmt.Errorf("%w: ATTACHED from byte %d, %d are here", ErrProtocol, a.start, c.received)
	case a.window < minWindow:
		lie = fmt.Errorf("%w: ATTACHED with a window of %d bytes", ErrProtocol, a.window)
	default:
		c.installed = p.epoch
		return nil
	}
	c.failLocked(&LostError{Code: code.Protocol, Err: lie}, "")
	return lie
}

// useLocked makes p the path. The peer has received all before offset next;
// the first byte that p brings is the one at start.
func (c *Channel) useLocked(p *Conn, next, start uint64, m Move) {
	first := c.pathUp.IsZero()
	m.Resent = int64(c.sentMax - min(c.sentMax, next))
	if !c.lostAt.IsZero() {
		m.Down = time.Since(c.lostAt)
	}
	c.path, c.next, c.onPath, c.cause = p, next, start, m.Cause
	c.keysAt, c.ping = p.base, 0
	if !first {
		c.changes++
	}
	c.flight.reset(next, p.base)
	c.backlog.Store(int64(c.flight.backlog()))
	c.acked = c.consumed // said on p before anything else
	c.pathUp, c.lostAt, c.lostErr = time.Now(), time.Time{}, nil
	if woken := c.set.Buffers.give(c.trimLocked()); woken != nil {
		c.background.Go(func() { wake(woken) }) // it takes their locks
	}
	if c.grace != nil {
		c.grace.Stop()
		c.grace = nil
	}
	if c.table != nil {
		c.table.attached(c)
	}
	if c.closing {
		c.standInLocked()
	}
	c.readable.Broadcast()
	c.writable.Broadcast()
	c.tickLocked()
	c.changeLocked()
	if f := c.set.Trace.Moved; f != nil && !first && !c.closing && c.peerEnd == nil {
		c.tellLocked(func() { f(c, m) })
	}
}

// resume makes in's conn the path of the responder's channel, or says why not.
func (c *Channel) resume(in *Incoming, via string) error {
	r := in.channel
	c.mu.Lock()
	switch {
	case c.err != nil:
		c.mu.Unlock()
		return &RefusedError{Code: code.UnknownChannel, Reason: "the channel is over"}
	case r.Epoch <= c.epoch:
		defer c.mu.Unlock()
		return &RefusedError{Code: code.Stale, Reason: fmt.Sprintf("attempt %d comes after attempt %d", r.Epoch, c.epoch)}
	case r.Received > c.sentMax || r.Window < minWindow:
		defer c.mu.Unlock()
		err := fmt.Errorf("%w: resume after %d bytes, of %d sent, with a window of %d", ErrProtocol, r.Received, c.sentMax, r.Window)
		c.failLocked(&LostError{Code: code.Protocol, Err: err}, "")
		return &RefusedError{Code: code.Protocol, Reason: err.Error()}
	}
	cause := Lost
	if old := c.path; old != nil {
		cause = Moved
		c.path = nil // stops it
		old.interruptRead()
		c.leftLocked()
		c.leaving = old
	}
	p := in.conn
	c.epoch, c.via, c.peer, c.peerAddr = r.Epoch, via, p.peer, in.peerAddr()
	c.window = min(r.Window, maxWindow)
	c.attachLocked(p, max(r.Received, c.confirmed), Move{Cause: cause, Route: -1, Via: via})
	c.mu.Unlock()
	c.started(p)
	return nil
}

// started does for a path that was taken into use what cannot be done under mu.
func (c *Channel) started(p *Conn) {
	p.SetKeepAlive(c.set.Keepalive, 2*c.set.Keepalive)
	p.w.signalAck()
}

// attachLocked takes p into use at the responder, which says so with the first
// record.
func (c *Channel) attachLocked(p *Conn, start uint64, m Move) {
	a := attached{received: c.received, epoch: c.epoch, start: start, window: uint32(c.set.Window)}
	p.asPath(c, c.epoch, false)
	p.w.first = a.append(nil)
	c.useLocked(p, start, c.received, m)
}

var _ net.Conn = (*Channel)(nil)
