package channel

import (
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// Ping asks the peer for a sign of life. It never blocks: a PING overtakes
// waiting data, and several that wait are one.
func (c *Conn) Ping() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if err := c.w.stateLocked(); c.w.err != nil || c.w.ended {
		return err
	}
	c.w.ping = true
	c.w.signalLocked()
	return nil
}

// answer queues a PONG. Of several PINGs that wait for one, the last is
// answered: a peer that floods costs no memory.
func (w *writer) answer(echo [pingLen]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.ended {
		return
	}
	w.pong, w.echo = true, echo
	w.signalLocked()
}

// SetKeepAlive makes the Conn send a PING when it has sent nothing for ping,
// and reset the path when a Read has waited and nothing authenticated was
// received for dead: that Read, and all later ones, return [ErrDead]. Zero
// turns either off. Without a Read nothing can be judged, and is not.
func (c *Conn) SetKeepAlive(ping, dead time.Duration) {
	c.keepMu.Lock()
	defer c.keepMu.Unlock()
	if c.keepDone {
		return
	}
	c.pingEvery, c.deadAfter = ping, dead
	if c.keepTimer != nil {
		c.keepTimer.Stop()
		c.keepTimer = nil
	}
	if d := c.keepStepLocked(); d > 0 {
		c.keepTimer = time.AfterFunc(d, c.keepTick)
	}
}

func (c *Conn) keepTick() {
	c.keepMu.Lock()
	defer c.keepMu.Unlock()
	if c.keepDone || c.keepTimer == nil {
		return
	}
	if d := c.keepStepLocked(); d > 0 {
		c.keepTimer.Reset(d)
	}
}

// keepStepLocked does what is due and returns after how long to look again, 0
// for never.
func (c *Conn) keepStepLocked() time.Duration {
	now := time.Since(c.base)
	var next time.Duration
	soonest := func(d time.Duration) {
		if next == 0 || d < next {
			next = max(d, time.Millisecond)
		}
	}
	if c.pingEvery > 0 {
		due := time.Duration(c.w.sent.Load()) + c.pingEvery
		if due <= now {
			_ = c.Ping() // fails when sending has failed; Reads are judged all the same
			due = now + c.pingEvery
		}
		soonest(due - now)
	}
	if c.deadAfter > 0 {
		due := now + c.deadAfter
		if since := c.waiting.Load(); since != 0 {
			due = time.Duration(max(since, c.received.Load())) + c.deadAfter
		}
		if due <= now {
			c.dead.Store(true)
			sock.ResetClose(c.nc)
			return 0
		}
		soonest(due - now)
	}
	return next
}

// stopKeepAlive returns when no PING will be sent any more.
func (c *Conn) stopKeepAlive() {
	c.keepMu.Lock()
	defer c.keepMu.Unlock()
	c.keepDone = true
	if c.keepTimer != nil {
		c.keepTimer.Stop()
	}
}
