package relay

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/turns"
)

// A pipeListener accepts what calls put in.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipeListener() *pipeListener {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.close(); return nil }

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// call returns the far end of a conn that was accepted.
func (l *pipeListener) call(t *testing.T) net.Conn {
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	l.conns <- near
	return far
}

// A handshake that is slow gives way to a caller, and not to the place's being free for
// one.
func TestNobodyGivesWayToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		relay := startRelayOn(t, ln, newLocal(t), func(c *Config) {
			c.Limits.Handshakes = 1
			c.Channel.Timeout = time.Minute
		})
		slow := ln.call(t)
		time.Sleep(10 * turns.Patience)
		synctest.Wait()
		if got := relay.log.count("handshake failed"); got != 0 || relay.Status().Handshakes != 1 {
			t.Errorf("%d handshakes have ended, %d are under way, and nobody has waited", got, relay.Status().Handshakes)
		}
		began := time.Now()
		next := ln.call(t)
		if _, err := next.Write([]byte("C")); err != nil { // which only a handshake reads
			t.Errorf("the next caller: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it had its turn after %v, and the other had long had its own", took)
		}
		_ = slow.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := slow.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("who gave way reads %v, want its end", err)
		}
		relay.stop()
	})
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}
