package app

import (
	"context"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/internal/wait"
)

// An acceptor accepts conns and hands each to a goroutine. A slot is taken
// before Accept, and its turn by the rate waited for: meanwhile callers wait in
// the kernel's queue, not in this process. Where who holds a slot gives way to
// others, one conn waits here for a slot: nobody is to give way to nobody.
type acceptor struct {
	ln    net.Listener
	slots chan struct{} // shared by acceptors; its capacity is the bound
	turns *turns.Turns  // who holds slots, and gives way to others; nil: nobody does
	rate  *rate.Limiter // of conns, shared by acceptors; nil: none
	log   *zap.Logger
	// start runs f in a goroutine that its owner waits for.
	start func(f func())
	// handle owns nc. It gives the slot back by calling free, once, as soon as
	// it does no longer count against the bound.
	handle func(nc net.Conn, free func())

	told quiet
}

// run accepts until ctx ends, which closes the listener, or the listener fails,
// which is its error. It returns when the listener is closed and nothing of run
// itself is left; what it started is the owner's to wait for.
func (a *acceptor) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.ln.Close() })
	defer func() {
		if stop() {
			_ = a.ln.Close()
		}
	}()
	free := func() { <-a.slots }
	for {
		nc, err := a.next(ctx)
		if nc == nil {
			return err
		}
		a.start(func() { a.handle(nc, free) })
	}
}

// next returns the next conn, for which a slot is taken, or nil when ctx has ended or
// the listener failed.
func (a *acceptor) next(ctx context.Context) (net.Conn, error) {
	first := a.turns == nil
	if first && !a.turns.Take(ctx, a.slots) {
		return nil, nil
	}
	var nc net.Conn
	var err error
	if a.rate == nil || a.rate.Wait(ctx) == nil { // else ctx has ended
		nc, err = a.accept(ctx)
	}
	switch {
	case first && nc == nil:
		<-a.slots
	case !first && nc != nil && !a.turns.Take(ctx, a.slots):
		_ = sock.ResetClose(nc) // nothing was said on it
		return nil, nil
	}
	return nc, err
}

// accept returns the next conn, or nil when ctx has ended. Errors that pass,
// such as too many open files, are waited out, and told of once in a while: while
// there are too few, conns and errors can come in turn.
func (a *acceptor) accept(ctx context.Context) (net.Conn, error) {
	const least, most = 5 * time.Millisecond, time.Second
	for pause := least; ; pause = min(2*pause, most) {
		nc, err := a.ln.Accept()
		if err == nil {
			return nc, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if !sock.AcceptAgain(err) {
			a.log.Error("listener failed", zap.Stringer("address", a.ln.Addr()), zap.Error(err))
			return nil, fmt.Errorf("accepting at %s: %w", a.ln.Addr(), err)
		}
		const message = "cannot accept connections now, trying on"
		a.log.Log(a.told.level(message+err.Error(), zapcore.ErrorLevel), message, zap.Stringer("address", a.ln.Addr()), zap.Error(err))
		if !wait.Sleep(ctx, pause) {
			return nil, nil
		}
	}
}
