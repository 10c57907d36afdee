// Package socktest owns a listener of pipes for tests: nothing happens at it that the test
// does not make happen, so that time can be made up (testing/synctest). It is for tests
// only.
package socktest

import (
	"context"
	"net"
	"sync"
	"testing"
)

// A Listener accepts the conns that are made by its Dial. Its methods may be called by
// several goroutines at a time.
type Listener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

// Listen returns a listener that nobody has dialled yet, at what is no address of anything.
func Listen() *Listener { return ListenAt(&net.UnixAddr{Name: "pipe", Net: "unix"}) }

// ListenAt is Listen for a listener that says to be at addr.
func ListenAt(addr net.Addr) *Listener {
	l := &Listener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// Accept returns the next conn, or [net.ErrClosed] after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close has nobody be accepted any more. Conns go on.
func (l *Listener) Close() error { l.close(); return nil }

// Addr returns where the listener says to be.
func (l *Listener) Addr() net.Addr { return l.addr }

// Dial returns the caller's end of a conn once that is accepted: of a [net.Pipe], which
// holds nothing, so that a Write waits for its reader. It returns ctx's error if that ends
// before, and [net.ErrClosed] if the listener is closed. The caller closes the conn.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	var err error
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = near.Close(), far.Close()
	return nil, err
}

// Call is Dial for a conn that must be accepted, and is closed at the test's end.
func (l *Listener) Call(t testing.TB) net.Conn {
	t.Helper()
	nc, err := l.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}
