package channel

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// A memConn is an end of a path in memory, for tests under synctest. Bytes
// written into a hole vanish, and so does the news of the end that writes them.
type memConn struct {
	in, out *memWay

	mu     sync.Mutex
	timers [2]*time.Timer // of the deadlines to read and to write
}

// A memWay is one direction.
type memWay struct {
	mu     sync.Mutex
	change sync.Cond
	buf    []byte
	hole   bool
	gone   bool // the writing end has gone, and this is known
	closed bool // the reading end has closed
	late   bool // the reader's deadline
	lateW  bool // the writer's
	most   int  // bytes on their way
}

// memPair returns both ends of a path.
func memPair(testing.TB) (net.Conn, net.Conn) { return memPairOf(1 << 20) }

// memPairOf returns both ends of a path that holds so many bytes each way, and
// one Write.
func memPairOf(most int) (net.Conn, net.Conn) {
	ways := [2]*memWay{{most: most}, {most: most}}
	for _, w := range ways {
		w.change.L = &w.mu
	}
	return &memConn{in: ways[0], out: ways[1]}, &memConn{in: ways[1], out: ways[0]}
}

// hole makes what this end says vanish from now on.
func (c *memConn) hole() { c.out.set(func(w *memWay) { w.hole = true }) }

func (w *memWay) set(f func(*memWay)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
	w.change.Broadcast()
}

func (c *memConn) Read(p []byte) (int, error) {
	w := c.in
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.closed:
			return 0, net.ErrClosed
		case w.late:
			return 0, os.ErrDeadlineExceeded
		case len(w.buf) > 0:
			n := copy(p, w.buf)
			w.buf = w.buf[n:]
			w.change.Broadcast()
			return n, nil
		case w.gone:
			return 0, io.EOF
		}
		w.change.Wait()
	}
}

func (c *memConn) Write(p []byte) (int, error) {
	c.in.mu.Lock()
	over := c.in.closed || c.in.gone
	c.in.mu.Unlock()
	w := c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case over || w.gone:
			return 0, net.ErrClosed
		case w.lateW:
			return 0, os.ErrDeadlineExceeded
		case w.hole || w.closed:
			return len(p), nil
		case len(w.buf) < w.most:
			w.buf = append(w.buf, p...)
			w.change.Broadcast()
			return len(p), nil
		}
		w.change.Wait()
	}
}

// Close is a reset for the other end.
func (c *memConn) Close() error {
	c.in.set(func(w *memWay) { w.closed = true })
	c.out.set(func(w *memWay) { w.gone = w.gone || !w.hole })
	_ = c.SetDeadline(time.Time{})
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.setTimer(0, t, func(late bool) { c.in.set(func(w *memWay) { w.late = late }) })
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.setTimer(1, t, func(late bool) { c.out.set(func(w *memWay) { w.lateW = late }) })
	return nil
}

func (c *memConn) setTimer(i int, t time.Time, set func(late bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timers[i] != nil {
		c.timers[i].Stop()
	}
	d := time.Until(t)
	set(!t.IsZero() && d <= 0)
	if !t.IsZero() && d > 0 {
		c.timers[i] = time.AfterFunc(d, func() { set(true) })
	}
}

type memAddr struct{}

func (memAddr) Network() string { return "memory" }
func (memAddr) String() string  { return "memory" }

func (c *memConn) LocalAddr() net.Addr  { return memAddr{} }
func (c *memConn) RemoteAddr() net.Addr { return memAddr{} }
