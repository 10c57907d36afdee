package relay

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// errStopping is the cause of a context that ended with Serve's.
var errStopping = errors.New("relay is stopping")

// A watch looks after a caller while its request is worked on: one that leaves
// shall not keep its place, and one that talks before the answer is refused,
// since it cannot know yet to whom it talks.
type watch struct {
	serve  context.Context // Serve's
	ctx    context.Context // ends when the caller leaves or talks, and with Serve's
	cancel context.CancelCauseFunc
	conn   *channel.Conn
	done   chan struct{}
	err    error // why the watch ended, once done is closed; nil when stop ended it
	unhook func() bool
}

func watchCaller(ctx context.Context, conn *channel.Conn) *watch {
	w := &watch{serve: ctx, conn: conn, done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	w.unhook = context.AfterFunc(ctx, func() { w.cancel(errStopping) })
	go w.run()
	return w
}

func (w *watch) run() {
	defer close(w.done)
	if w.err = w.look(); w.err != nil {
		w.cancel(w.err)
	}
}

func (w *watch) look() error {
	var b [1]byte
	switch _, err := w.conn.Read(b[:]); {
	case err == nil:
		return errEarly
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil // stop's
	default:
		return err
	}
}

var errEarly = declinef(code.Protocol, "bytes came before the answer")

// stop ends the watch. Its error is a *declinedError when the caller has talked,
// errStopping at the relay's end, and else says how the caller left; without
// one the conn has been read up to here and not further.
func (w *watch) stop() error {
	_ = w.conn.SetReadDeadline(past)
	<-w.done
	_ = w.conn.SetReadDeadline(time.Time{})
	w.unhook()
	w.cancel(nil)
	switch {
	case w.err != nil:
		return w.err
	case w.conn.Buffered() > 0: // part of a record
		return errEarly
	case w.serve.Err() != nil:
		return errStopping // whatever it was that Serve's end has ended first
	default:
		return nil
	}
}
