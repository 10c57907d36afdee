package node

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/code"
)

// connectTime bounds how long another node may take to say that it is one, beyond
// the dial, which its caller bounds.
const connectTime = 10 * time.Second

// Serve takes the conns that other nodes make to ln, until ctx or the node ends, or
// ln fails, which is its error. It closes ln, and returns when nothing of what it has
// begun runs any more. Who comes by such a conn is nobody that is known; what it may
// reach is for [Options.Allow] to say.
func (n *Node) Serve(ctx context.Context, ln net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(n.ctx, stop)()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer stop()
	pause := time.Duration(0)
	for {
		if !n.turns.Take(ctx, n.slots) {
			return nil
		}
		nc, err := ln.Accept()
		if err != nil {
			<-n.slots
			if ctx.Err() != nil {
				return nil
			}
			if !sock.AcceptAgain(err) {
				return err
			}
			// The process has no more files, say: others have to end first.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			wait.Sleep(ctx, pause)
			continue
		}
		pause = 0
		conns.Go(func() {
			defer func() { <-n.slots }()
			n.serveConn(ctx, nc)
		})
	}
}

// serveConn speaks with the node that has made nc. While it has said nothing, and others
// wait for its place, it may have to give way.
func (n *Node) serveConn(ctx context.Context, nc net.Conn) {
	l := n.newLink(n.ctx, nc, "conn", Origin{Outside: true}, n.cfg.Keepalive)
	l.listens = true
	defer context.AfterFunc(ctx, func() { l.close(errLinkClosed) })()
	turn, done := n.turns.Begin(ctx)
	done = sync.OnceFunc(done)
	defer done()
	defer context.AfterFunc(turn, func() {
		if err := context.Cause(turn); errors.Is(err, turns.ErrGaveWay) {
			l.close(err)
		}
	})()
	_ = n.runLink(l, func(h hello) error {
		done()
		return n.succeed(l, h)
	}, func() {})
	l.tellDown()
	n.mu.Lock()
	if n.series[l.hello.series] == l {
		delete(n.series, l.hello.series)
	}
	n.mu.Unlock()
}

// runLink runs l, with a place on the node from when the other side has said that it
// is a node, which it has to do in time, and greet takes that. It calls ready then. The
// caller calls tellDown.
func (n *Node) runLink(l *link, greet func(hello) error, ready func()) error {
	late := time.AfterFunc(connectTime, func() {
		l.close(failure(code.Timeout, "", "what answers has not said within %s that it is a node", connectTime))
	})
	defer late.Stop()
	defer l.cancel(errLinkClosed)
	var telling sync.WaitGroup // nothing of the link's waits for the program to hear of it
	err := l.run(func(h hello) error {
		if err := greet(h); err != nil {
			return err
		}
		late.Stop()
		if err := n.enter(l); err != nil {
			return err
		}
		telling.Go(l.tellUp)
		ready()
		return nil
	})
	n.remove(l.address, l)
	telling.Wait()
	return err
}

// anybody is a greet that takes each hello alike.
func anybody(hello) error { return nil }

// A dialling is the one conn that the node has, or makes, to a transport's address.
type dialling struct {
	before *link         // whose place its conn takes; nil: none
	made   chan struct{} // closed when link or err is set
	link   *link
	err    error
}

// over reports whether the conn could not be made, or has ended.
func (d *dialling) over() bool {
	select {
	case <-d.made:
		return d.link == nil || d.link.ctx.Err() != nil
	default:
		return false
	}
}

// transport returns the link to the node behind a transport's address, which it makes
// if there is none, or the one there was has ended. Without wait it returns nil where that
// would take time.
func (n *Node) transport(ctx context.Context, a Address, wait bool) (*link, error) {
	n.mu.Lock()
	d := n.dials[a]
	if d == nil || d.over() {
		if n.closed {
			n.mu.Unlock()
			return nil, ErrClosed
		}
		d = d.next()
		n.dials[a] = d
		n.running.Go(func() { n.dial(a, d) })
	}
	n.mu.Unlock()
	if !wait {
		select {
		case <-d.made:
			return d.link, d.err
		default:
			return nil, nil
		}
	}
	select {
	case <-d.made:
		return d.link, d.err
	case <-ctx.Done():
		return nil, timely(context.Cause(ctx))
	}
}

// next returns what comes after d, which is over, or nil.
func (d *dialling) next() *dialling {
	next := &dialling{made: make(chan struct{})}
	switch {
	case d == nil:
	case d.link == nil:
		next.before = d.before
	default:
		d.link.replace()
		next.before = d.link
	}
	return next
}

// dial makes the conn of d and keeps it until it ends. Who waits for it hears before the
// trace does, which may be what waits.
func (n *Node) dial(a Address, d *dialling) {
	l, err := n.keepDialled(a, d)
	if d.link == nil {
		why := asDelivery(err, code.Unreachable, "")
		d.err = failure(why.Code, "", "no conn to %s: %s", a, why.Reason)
		close(d.made)
	}
	if l != nil {
		l.tellDown()
	}
	n.mu.Lock()
	if n.dials[a] == d {
		delete(n.dials, a)
	}
	n.mu.Unlock()
}

// keepDialled returns the link whose end the trace is to hear of, nil for none, and why it,
// or the attempt to make one, is over.
func (n *Node) keepDialled(a Address, d *dialling) (*link, error) {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Patience)
	defer cancel()
	network, address := a.transport()
	nc, err := n.cfg.Dial(ctx, network, address)
	if err != nil {
		return d.before, err
	}
	l := n.newLink(n.ctx, nc, "conn", Origin{Outside: true}, n.cfg.Keepalive)
	l.says, l.before = n.nextOf(a), d.before
	return l, n.runLink(l, func(h hello) error {
		l.address = n.addressOf("to", string(a)+"\x00"+string(h.series[:]))
		return nil
	}, func() {
		d.link, d.before = l, nil
		close(d.made)
	})
}

// nextOf returns what says that a conn is the next one to a.
func (n *Node) nextOf(a Address) hello {
	return hello{series: n.mac("series", string(a)), attempt: n.attempts.Add(1)}
}
