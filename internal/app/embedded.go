package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// What follows is of inlets and outlets in somebody else's program, where a stream ends
// at the program itself and not at a socket ([Dialer], [Host]). They have what the
// daemons have but for what is the whole process's: endpoints, its log, its service
// manager, its confinement.

// embedded works until ctx ends, and returns when everything it started has ended. Its
// error, which failed is told first, says why it has ended before.
func (b *base) embedded(ctx context.Context, failed func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var keeping sync.WaitGroup
	var enrolling error
	b.keepUp(kept, &keeping, func(err error) {
		enrolling = err
		failed(err)
		cancel() // nothing but another ticket helps
	})
	err := b.work(ctx)
	stop()
	keeping.Wait()
	return errors.Join(err, enrolling)
}

// A Failure says why a program got no stream, or how one has ended, by a code that both
// sides know.
type Failure struct {
	Code   code.Code
	Reason string // one line, printable
	Err    error  // what is behind it
}

func (f *Failure) Error() string { return f.Reason }

// Unwrap returns what is behind it.
func (f *Failure) Unwrap() error { return f.Err }

// failure returns an end as a program hears of it. cause, if there is one, is what has
// ended the program's own wait.
func failure(e *streamEnd, err, cause error) *Failure {
	if cause != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	return &Failure{Code: codeOf(e.label), Reason: code.Printable(e.reason), Err: err}
}

// codeOf returns the code of a label. Of those that have none, it is that which the
// other side would use.
func codeOf(label string) code.Code {
	switch label {
	case remedy.WrongIdentity:
		return code.IdentityDenied
	case remedy.Version:
		return code.Protocol
	case remedy.Cancelled:
		return code.Aborted
	}
	for c, name := range code.All() {
		if name == label {
			return c
		}
	}
	return code.Unreachable
}

// A Carried stream ends at this program. It is the program's until Settle.
type Carried struct {
	*tunnel.Stream
	Service string
	Client  string // the far client's address, as its inlet claims; "": it claims none

	leaving atomic.Bool // see Leave
	peer    func() channel.Peer
	trust   *trust
	settled func(err error)
	once    sync.Once
}

// Who returns the other end's identity, and what its credentials say of it now. The
// map is the caller's.
func (c *Carried) Who() (channel.Peer, map[string]string) {
	p := c.peer()
	j := c.trust.judge(p)
	attr := make(map[string]string, len(j.Attr))
	for k, v := range j.Attr {
		attr[k] = v
	}
	return p, attr
}

// Leave says that the program has done with the stream but for what is to be said at its
// end, which Settle follows.
func (c *Carried) Leave() { c.leaving.Store(true) }

// Settle says that the program is done with the stream, which has ended with err, or
// cleanly. Only the first call counts.
func (c *Carried) Settle(err error) { c.once.Do(func() { c.settled(err) }) }

// cut ends a stream that the program may not have done with.
func (c *Carried) cut(k code.Code, why error) {
	_ = c.Reset(k) // it is over either way
	c.Settle(why)
}

// end says how a settled stream has ended.
func (c *Carried) end(err error) streamEnd {
	k, reason := streamCode(err, code.Aborted)
	p := c.Progress()
	return streamEnd{label: known(k), reason: reason, sent: p.Sent, received: p.Received}
}

// A stoppedError is why nothing begins any more at what was closed, which is its text.
type stoppedError string

func (e stoppedError) Error() string { return string(e) + " is closed" }

// Is reports whether target says as much in fewer words.
func (e stoppedError) Is(target error) bool { return target == errShutdown || target == net.ErrClosed }
