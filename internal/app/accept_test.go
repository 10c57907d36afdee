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

	"github.com/culvert-net/culvert/internal/sock/socktest"
	"github.com/culvert-net/culvert/internal/turns"
)

// Where who holds a slot gives way, it does so to a conn that is there, and a listener
// that waits for one holds none. A conn that waits when all ends is closed.
func TestAcceptorHoldsNothingForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ln, begun := socktest.Listen(), &turns.Turns{}
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
		synctest.Wait()
		if len(a.slots) != 0 {
			t.Error("a slot is held, and nobody has called")
		}
		ln.Call(t)
		time.Sleep(time.Minute)
		if len(ended) > 0 {
			t.Fatalf("the only one has ended: %v", <-ended)
		}
		began := time.Now()
		ln.Call(t)
		if err := <-ended; !errors.Is(err, turns.ErrGaveWay) || time.Since(began) > time.Second {
			t.Errorf("the first ended with %v after %v, want that it gave way at once", err, time.Since(began))
		}
		third := ln.Call(t) // waits: the second is young
		synctest.Wait()
		cancel()
		running.Wait()
		conns.Wait()
		if _, err := third.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("who had no turn reads %v, want the end", err)
		}
	})
}
