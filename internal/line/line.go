// Package line owns an imitation of a slow, long line: a proxy that carries TCP
// connections with a rate, a delay and a buffer of the line's own, in user
// space. To the kernels of both ends the line is a socket on the loopback, so
// that what they do about loss and congestion plays no part; what stands for
// them is that a full buffer makes the sender wait. It is for tests and
// benchmarks; it loses, reorders and changes nothing.
package line

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Config is what a line is like, each direction for itself.
type Config struct {
	// Rate is how many bits per second leave the buffer, of all conns together.
	Rate int64
	// Delay is how long each bit takes from there to the far end.
	Delay time.Duration
	// Buffer is how many bytes may wait for the rate, of all conns together. It
	// should last for 2 ms at least: a process is not woken more exactly.
	Buffer int
}

// A Line carries conns. What they bring leaves in the order in which it came,
// whichever conn it is of. Its methods may be called concurrently.
//
// Bytes are carried in pieces of 1 ms of the rate, of 1,500 bytes to 64 KiB: a
// piece comes out when all of it has passed. A conn that finds the buffer full
// has one piece waiting before it, and what the kernels of its sender and of
// the line keep by themselves. One whose far end does not read is not read any
// more either, when the line has as much of it as it ever carries.
type Line struct {
	near, far lane // towards the near end, towards the far end

	life    context.Context
	end     context.CancelFunc
	mu      sync.Mutex // guards closed and, with it, conns.Add
	closed  bool
	serving sync.WaitGroup
}

// New returns a line. It starts nothing.
func New(c Config) *Line {
	l := &Line{}
	l.life, l.end = context.WithCancel(context.Background())
	l.Set(c)
	return l
}

// Set changes what the line is like for what enters it from now on.
func (l *Line) Set(c Config) {
	l.near.set(c)
	l.far.set(c)
}

// Close cuts all conns, and returns when nothing of the line runs any more.
func (l *Line) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end()
	l.serving.Wait()
}

// start runs f in a goroutine that Close waits for, and reports whether the
// line is not closed yet.
func (l *Line) start(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.serving.Go(f)
	}
	return !l.closed
}

// Serve carries each conn that ln accepts to a conn that dial makes, until ln
// is closed, ctx ends or the line is closed; it closes ln. The conns go on until
// they have ended or the line is closed.
func (l *Line) Serve(ctx context.Context, ln net.Listener, dial func(context.Context) (net.Conn, error)) error {
	for _, c := range []context.Context{ctx, l.life} {
		defer context.AfterFunc(c, func() { _ = ln.Close() })()
	}
	defer ln.Close()
	for {
		near, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("accepting a conn for the line: %w", err)
		}
		if !l.start(func() {
			far, err := dial(l.life)
			if err != nil {
				reset(near)
				return
			}
			l.Join(near, far)
		}) {
			reset(near)
		}
	}
}

// Dial returns a conn to address by the line, on which all else is as on one to
// address itself.
func (l *Line) Dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	far, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	user, near, err := pair(ctx)
	if err != nil {
		_ = far.Close()
		return nil, fmt.Errorf("making a conn into the line: %w", err)
	}
	if !l.start(func() { l.Join(near, far) }) {
		for _, c := range []net.Conn{user, near, far} {
			_ = c.Close()
		}
		return nil, fmt.Errorf("dialing %s by a line that is closed: %w", address, net.ErrClosed)
	}
	return user, nil
}

// pair returns both ends of a TCP connection.
func pair(ctx context.Context) (a, b net.Conn, err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	var d net.Dialer
	if a, err = d.DialContext(ctx, "tcp", ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	if b, err = ln.Accept(); err != nil {
		_ = a.Close()
	}
	return a, b, err
}

// Join carries what near brings to far, and what far brings to near, until both
// directions have ended, one has failed or the line is closed; it closes both.
// An end is passed on as an end, a reset as a reset, in order and after the
// delay. The conns need not be sockets.
func (l *Line) Join(near, far net.Conn) {
	there := newWay(&l.far, near, far, l.life.Done())
	back := newWay(&l.near, far, near, l.life.Done())
	there.other, back.other = back, there
	stop := context.AfterFunc(l.life, func() {
		reset(near)
		reset(far)
	})
	defer stop()
	var all sync.WaitGroup
	for _, w := range []*way{there, back} {
		all.Go(w.take)
		all.Go(w.bring)
	}
	all.Wait()
	_ = near.Close()
	_ = far.Close()
}
