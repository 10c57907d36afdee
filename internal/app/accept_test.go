package app

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/turns"
)

// A pipeListener accepts what is put into it.
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

// Where who holds a slot gives way, it does so to a conn that is there, and a listener
// that waits for one holds none. A conn that waits when all ends is closed.
func TestAcceptorHoldsNothingForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ln, begun := newPipeListener(), &turns.Turns{}
		ended := make(chan error, 3)
		var conns, running sync.WaitGroup
		a := &acceptor{ln: ln, slots: make(chan struct{}, 1), turns: begun, log: zap.NewNop(), start: conns.Go, handle: func(nc net.Conn, free func()) {
			turn, done := begun.Begin(ctx)
			<-turn.Done()
			ended <- context.Cause(turn)
			done()
			free()
			_ = nc.Close()
		}}
		running.Go(func() { _ = a.run(ctx) })
		call := func() net.Conn {
			near, far := net.Pipe()
			ln.conns <- near
			return far
		}
		synctest.Wait()
		if len(a.slots) != 0 {
			t.Error("a slot is held, and nobody has called")
		}
		call()
		time.Sleep(time.Minute)
		if len(ended) > 0 {
			t.Fatalf("the only one has ended: %v", <-ended)
		}
		began := time.Now()
		call()
		if err := <-ended; !errors.Is(err, turns.ErrGaveWay) || time.Since(began) > time.Second {
			t.Errorf("the first ended with %v after %v, want that it gave way at once", err, time.Since(began))
		}
		third := call() // waits: the second is young
		synctest.Wait()
		cancel()
		running.Wait()
		conns.Wait()
		if _, err := third.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("who had no turn reads %v, want the end", err)
		}
	})
}
