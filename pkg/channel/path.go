package channel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// What a Channel asks of a Conn that is its path. None of it may be called
// with the channel's mu held, but for interruptRead, resumeRead and abort: the
// writer asks the channel for bytes with its own mu held.

// asPath makes a Conn, on which nothing was read or written yet, a path of c.
func (p *Conn) asPath(c *Channel, epoch uint64, unused bool) {
	p.channel, p.epoch, p.unused = c, epoch, unused
	p.w.channel = c
}

// kick sees to it that the channel's bytes get sent: at once by this goroutine,
// if inline says so and nothing else is on its way.
func (w *writer) kick(inline bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && !w.busy {
		w.sendLocked(inline)
	}
}

// signalAck sees to it that an ACK is sent, without waiting for that.
func (w *writer) signalAck() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.ack = true
		w.signalLocked()
	}
}

// interruptRead makes a Read of the path, this one or the next, return
// os.ErrDeadlineExceeded until resumeRead.
func (p *Conn) interruptRead() { _ = p.nc.SetReadDeadline(past) }

func (p *Conn) resumeRead() { _ = p.nc.SetReadDeadline(time.Time{}) }

var past = time.Unix(1, 0)

// abort ends the path at once: the peer sees a reset, whoever reads or writes
// is freed. discard does the rest.
func (p *Conn) abort() { _ = sock.ResetClose(p.nc) }

// discard ends the path, after a last word where there is one, and returns
// when nothing of it runs any more.
func (p *Conn) discard(last []byte) {
	p.finishOnce.Do(func() {
		p.beginEnd()
		until := time.Now().Add(brief)
		if last != nil {
			// What was begun is finished first, for as long as that takes anybody.
			if p.w.end(last, until) == nil {
				sock.WaitSent(p.nc, time.Until(until))
			}
		}
		p.abort()
		p.w.close()
		p.dropReads()
	})
}

// part ends a path on which both sides have said their last: what is still to
// be acknowledged leaves first.
func (p *Conn) part() {
	p.finishOnce.Do(func() {
		p.beginEnd()
		until := time.Now().Add(p.linger)
		if p.w.end(nil, until) == nil {
			if cw, ok := p.nc.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
				// Until the peer has closed too: closing on unread bytes would
				// be a reset, and take the last ACK with it.
				_ = p.nc.SetReadDeadline(soonest(until, time.Now().Add(4*brief)))
				p.drain()
			}
		}
		_ = p.nc.Close()
		p.w.close()
		p.dropReads()
	})
}

// close ends the sending of a path whose nc is closed.
func (w *writer) close() {
	w.mu.Lock()
	if w.deadline != nil {
		w.deadline.Stop()
	}
	w.deadlineGen++
	w.ended = true
	w.failLocked(errPathGone)
	w.mu.Unlock()
	w.flushers.Wait()
}

// cause returns why sending has failed by itself, or nil.
func (w *writer) cause() error {
	if err := w.failure.Load(); err != nil && !errors.Is(*err, errPathGone) {
		return *err
	}
	return nil
}

// awaitAttached reads a new path of the initiator's until the responder has
// taken it into use, or says why it does not.
func (p *Conn) awaitAttached(ctx context.Context, timeout time.Duration) error {
	stop := context.AfterFunc(ctx, p.interruptRead)
	defer stop()
	if err := p.nc.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.readMu.Lock()
	defer p.readMu.Unlock()
	for p.unused {
		if p.readErr != nil {
			return p.readErr
		}
		if err := p.recordLocked(); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return fmt.Errorf("waiting for the peer to take the path: %w", err)
		}
	}
	if !stop() {
		return context.Cause(ctx)
	}
	p.resumeRead()
	return nil
}
