package node

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
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
		select {
		case n.slots <- struct{}{}:
		case <-ctx.Done():
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

// serveConn speaks with the node that has made nc.
func (n *Node) serveConn(ctx context.Context, nc net.Conn) {
	l := n.newLink(n.ctx, nc, "conn", Origin{Outside: true}, n.cfg.Keepalive)
	defer context.AfterFunc(ctx, func() { l.close(errLinkClosed) })()
	_ = n.runLink(l, func() {})
}

// runLink runs l, with a place on the node from when the other side has said that it
// is a node, which it has to do in time. It calls ready then.
func (n *Node) runLink(l *link, ready func()) error {
	late := time.AfterFunc(connectTime, func() {
		l.close(failure(code.Timeout, "", "what answers has not said within %s that it is a node", connectTime))
	})
	defer late.Stop()
	defer l.cancel(errLinkClosed)
	up := false
	err := l.run(func() {
		late.Stop()
		if err := n.add(l.address, l); err != nil {
			l.close(err)
			return
		}
		up = true
		if f := n.trace.LinkUp; f != nil {
			f(l.address, *l.from.Load(), l.nc.RemoteAddr())
		}
		ready()
	})
	n.remove(l.address, l)
	if f := n.trace.LinkDown; f != nil && up {
		f(l.address, err)
	}
	return err
}

// A dialling is the one conn that the node has, or makes, to a transport's address.
type dialling struct {
	made chan struct{} // closed when link or err is set
	link *link
	err  error
}

// over reports whether the conn was made and has ended.
func (d *dialling) over() bool {
	select {
	case <-d.made:
		return d.link != nil && d.link.ctx.Err() != nil
	default:
		return false
	}
}

// transport returns the link to the node behind a transport's address, for m.
func (n *Node) transport(ctx context.Context, m *Message, a Address) (*link, error) {
	if m.From.Outside && m.vouched == 0 {
		if n.cfg.Transit == nil {
			return nil, failure(code.WorkerDenied, "", "this node carries nothing from outside on to %s", quoted(a))
		}
		if err := n.cfg.Transit(m.From, a); err != nil {
			return nil, failure(code.WorkerDenied, "", "%s", bounded(err.Error()))
		}
	}
	n.mu.Lock()
	d := n.dials[a]
	if d == nil || d.over() {
		if n.closed {
			n.mu.Unlock()
			return nil, ErrClosed
		}
		d = &dialling{made: make(chan struct{})}
		n.dials[a] = d
		n.running.Go(func() { n.dial(a, d) })
	}
	n.mu.Unlock()
	select {
	case <-d.made:
		return d.link, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// dial makes the conn of d and keeps it until it ends.
func (n *Node) dial(a Address, d *dialling) {
	over := func(err error) {
		n.mu.Lock()
		if n.dials[a] == d {
			delete(n.dials, a)
		}
		n.mu.Unlock()
		if d.link == nil && d.err == nil {
			why := asDelivery(err, code.Unreachable, "")
			d.err = failure(why.Code, "", "no conn to %s: %s", a, why.Reason)
			close(d.made)
		}
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Patience)
	defer cancel()
	network, address := a.transport()
	nc, err := n.cfg.Dial(ctx, network, address)
	if err != nil {
		over(err)
		return
	}
	l := n.newLink(n.ctx, nc, "conn", Origin{Outside: true}, n.cfg.Keepalive)
	over(n.runLink(l, func() {
		d.link = l
		close(d.made)
	}))
}
