package channel

import (
	"net"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// A fate is what happens to one direction of a path, at which byte; -1 for
// never.
type fate struct {
	Die  int // the path is reset there, in both directions
	Flip int // that byte arrives changed
	Hold int // what follows arrives only after the path that comes next is in use, even when this one was closed
}

var noFate = fate{-1, -1, -1}

// A wildConn is an end of a path whose bytes meet a fate on their way out. As
// in a network, what was written arrives though the conn was closed since.
type wildConn struct {
	net.Conn
	fate
	release <-chan struct{}

	mu     sync.Mutex
	more   sync.Cond
	queue  []byte
	sent   int
	closed bool
}

// wild gives a path's two directions their fates. What is held goes on when
// release is closed. Its goroutines are the lab's.
func (l *lab) wild(a, b net.Conn, fates [2]fate, release <-chan struct{}) (net.Conn, net.Conn) {
	ends := [2]*wildConn{{Conn: a}, {Conn: b}}
	for i, w := range ends {
		w.fate, w.release, w.more.L = fates[i], release, &w.mu
		l.serving.Go(w.pump)
	}
	return ends[0], ends[1]
}

func (w *wildConn) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	w.queue = append(w.queue, p...)
	w.more.Signal()
	return len(p), nil
}

func (w *wildConn) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.closed {
		err = net.ErrClosed
	}
	return n, err
}

func (w *wildConn) SetReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	return w.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing: Write never waits.
func (w *wildConn) SetWriteDeadline(time.Time) error { return nil }

func (w *wildConn) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }

// CloseWrite stands for the socket's: nothing is to follow.
func (w *wildConn) CloseWrite() error { return net.ErrClosed }

func (w *wildConn) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	w.closed = true
	_ = w.Conn.SetReadDeadline(past)
	_ = w.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // the peer may not read any more
	w.more.Signal()
	return nil
}

// pump carries bytes until the end of the path.
func (w *wildConn) pump() {
	defer func() { _ = sock.ResetClose(w.Conn) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.queue) == 0 {
			if w.closed {
				return
			}
			w.more.Wait()
		}
		n := len(w.queue)
		for _, at := range []int{w.Die, w.Hold} {
			if at > w.sent {
				n = min(n, at-w.sent)
			}
		}
		if w.sent == w.Hold {
			w.mu.Unlock()
			<-w.release
			w.mu.Lock()
		} else if w.closed && w.sent < w.Hold {
			return // what it was to hold never came
		}
		if w.sent == w.Die {
			return
		}
		p := w.queue[:n]
		w.queue = w.queue[n:]
		if i := w.Flip - w.sent; w.Flip >= 0 && i >= 0 && i < n {
			p[i] ^= 0x40
		}
		w.mu.Unlock()
		_, err := w.Conn.Write(p)
		w.mu.Lock()
		w.sent += n
		if err != nil {
			return
		}
	}
}
