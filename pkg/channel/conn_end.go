package channel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/code"
)

// maxDrain bounds what Close reads and throws away while it waits for the
// peer's end.
const maxDrain = 4 << 20

// brief is how long Close waits on a path that has failed: for what is there.
const brief = 50 * time.Millisecond

// Close is CloseWithReason(code.OK, "").
func (c *Conn) Close() error { return c.CloseWithReason(code.OK, "") }

// CloseWithReason sends what was written and then an authenticated CLOSE, ends
// the path, and unblocks Read and Write. It waits for both to leave, and for
// the peer to end its side, at most the Linger time; its error says that the
// close may not have arrived. After the first call the others do nothing but
// wait for it.
func (c *Conn) CloseWithReason(cd code.Code, reason string) error {
	if fault := code.Code(c.fault.Load()); fault != code.OK && cd == code.OK {
		cd = fault
	}
	c.w.mu.Lock()
	count := c.w.count
	c.w.ended = true // the count is final
	c.w.mu.Unlock()
	return c.finish(appendClose(nil, count, cd, reason))
}

// finish sends last as the final record and closes the path.
func (c *Conn) finish(last []byte) error {
	c.finishOnce.Do(func() {
		c.beginEnd()
		until := time.Now().Add(c.linger)
		if c.stopReads(); c.broken() {
			// Nobody listens any more, or nobody should be trusted to.
			until = soonest(until, time.Now().Add(brief))
		}
		_ = c.nc.SetReadDeadline(until)
		drained := make(chan bool, 1)
		go func() { drained <- c.drain() }()

		err := c.w.end(last, until)
		if cw, ok := c.nc.(interface{ CloseWrite() error }); ok && err == nil {
			_ = cw.CloseWrite()
		}
		if err != nil {
			// What the peer had said before is still there to be read.
			_ = c.nc.SetReadDeadline(soonest(until, time.Now().Add(brief)))
		}
		if peerEnded := <-drained; peerEnded {
			err = nil // it has closed by itself and needs no telling
		}
		closeErr := c.nc.Close()
		c.w.flushers.Wait()
		c.dropReads()
		c.closeErr = errors.Join(err, closeErr)
	})
	return c.closeErr
}

// beginEnd takes nc's read deadline away from SetReadDeadline, and ends the
// keepalive.
func (c *Conn) beginEnd() {
	c.deadlineMu.Lock()
	close(c.finished)
	c.deadlineMu.Unlock()
	c.stopKeepAlive()
}

func soonest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// stopReads frees a Read that waits, and returns when none is under way.
func (c *Conn) stopReads() {
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.plain = nil
}

// broken reports whether reading has failed otherwise than by the peer's end.
func (c *Conn) broken() bool {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.readErr != nil && !peerEnded(c.readErr)
}

// drain reads until the peer has ended its side, or the read deadline, and
// reports whether the peer has said so. Bytes that nobody reads would make the
// kernel answer with a reset, which can destroy the CLOSE on its way.
func (c *Conn) drain() bool {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for start := c.count; c.readErr == nil && c.count-start < maxDrain; c.plain = nil {
		if c.recordLocked() != nil {
			break
		}
	}
	return peerEnded(c.readErr)
}

// dropReads ends the read side for good.
func (c *Conn) dropReads() {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.failLocked(net.ErrClosed)
	c.releaseLocked()
}

// peerEnded reports whether err is one of the peer's authenticated ends.
func peerEnded(err error) bool {
	var ce *CloseError
	var re *RefusedError
	return errors.Is(err, io.EOF) || errors.As(err, &ce) || errors.As(err, &re)
}

// Detach gives the Conn up without a close: everything written has been sent,
// and nc is the caller's from now on, with the bytes that were read from it
// beyond the last record. It fails while decrypted data is unread or a Read is
// under way that it cannot stop; the Conn is unusable afterwards in any case.
func (c *Conn) Detach() (nc net.Conn, leftover []byte, err error) {
	done := false
	c.finishOnce.Do(func() {
		done = true
		c.detached.Store(true)
		c.beginEnd()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // frees a Read
		leftover, err = c.detach()
		_ = c.nc.SetDeadline(time.Time{})
		if err != nil {
			sock.ResetClose(c.nc)
			c.w.flushers.Wait()
			c.dropReads()
		}
	})
	if !done {
		return nil, nil, net.ErrClosed
	}
	if err != nil {
		return nil, nil, err
	}
	return c.nc, leftover, nil
}

func (c *Conn) detach() ([]byte, error) {
	if err := c.w.end(nil, time.Now().Add(c.linger)); err != nil {
		return nil, fmt.Errorf("detaching: %w", err)
	}
	c.w.flushers.Wait()
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.dead.Load() {
		return nil, fmt.Errorf("detaching: %w", ErrDead)
	}
	if c.readErr != nil {
		return nil, fmt.Errorf("detaching: %w", c.readErr)
	}
	if len(c.plain) > 0 {
		return nil, fmt.Errorf("detaching: %d bytes are unread", len(c.plain))
	}
	var leftover []byte
	if c.buf != nil {
		leftover = append(leftover, c.buf[c.r:c.n]...)
		c.r = c.n
		c.releaseLocked()
	}
	return leftover, nil
}
