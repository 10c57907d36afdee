package node

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/culvert-net/culvert/pkg/code"
)

// Conns between two nodes take each other's place: a node makes the next one to an address
// when it has given up the one before. That messages of one sender along one route stay in
// order then, here and at all nodes behind, rests on this:
//
//   - The other node sends nothing by a conn before that has its place here ([Node.succeed],
//     [link.maySpeak]): what is read late, when a later one has come and gone, brings nothing.
//   - From when one has its place, no message of those before gets to its own, whatever has
//     held it up ([Message.land]).
//   - All have one address on return routes ([Node.addressOf]), at either end: nodes behind
//     see one sender and one route, and what goes on to them from one conn and from the next
//     is one flow. Where another node answers at the address, say one that was started anew,
//     that is another one.

// A succession is a link's part in that.
type succession struct {
	replaced atomic.Bool // no message that has come by the link gets to its place any more

	telling sync.Mutex // guards what follows; the trace is told within
	before  *link      // whose end the trace is to be told of first; nil: none, or it was
	told    told
}

// told is what the trace knows of a link.
type told int

const (
	nothing told = iota
	up
	down
)

// errReplaced says that another conn of a series has come.
var errReplaced = errors.New("the other node has made another conn in this one's stead")

// succeed has l take the place of the conn of its series, with which the messages are lost
// that have come by that and wait. The other node does so when it has given that conn up,
// and knows.
func (n *Node) succeed(l *link, h hello) error {
	if h.series == ([16]byte{}) {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.series[h.series]
	if before != nil {
		if before.hello.attempt >= h.attempt {
			return wireError("a conn of attempt %d has come after that of attempt %d", h.attempt, before.hello.attempt)
		}
		before.replace()
	}
	l.hello, l.address = h, n.addressOf("from", string(h.series[:]))
	l.says.series = n.mac("node", string(h.series[:]))
	l.before = before
	n.series[h.series] = l
	return nil
}

// addressOf returns the address of this end of all conns to, or from, another node, which
// nobody else can guess.
func (n *Node) addressOf(way, which string) Address {
	return ownAddressOf("conn", n.mac(way, which))
}

// mac returns what only this node can make of a few words, the first of a few.
func (n *Node) mac(use, which string) [16]byte {
	mac := hmac.New(sha256.New, n.secret[:])
	_, _ = mac.Write([]byte(use + "\x00" + which)) // never fails
	return [16]byte(mac.Sum(nil))
}

// enter gives l its place on the node, where that of one that it succeeds may still be.
func (n *Node) enter(l *link) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	old := n.table[l.address]
	if before, ok := old.(*link); ok && before.ctx.Err() != nil {
		old = nil
	}
	switch {
	case n.closed:
		return ErrClosed
	case old != nil: // of two that are made at a time, the later one
		return failure(code.Replaced, l.address, "the address is taken")
	}
	n.table[l.address] = l
	return nil
}

// replace ends the link, whose place another one takes. It is over before a message is
// refused that it has brought: who has that in hand does not count it as delivered.
func (l *link) replace() {
	l.cancel(errReplaced)
	l.replaced.Store(true)
}

// land says why m, which a link may have brought, may not take its place, in a mailbox or
// among what goes on by another link; it is asked under that one's lock, and m has its place
// before that is given up. What another link brings from when this one is replaced takes its
// place under the same lock: behind m, or m is refused.
func (m *Message) land() error {
	if m.under != nil && m.under.replaced.Load() {
		return m.under.lost()
	}
	m.under = nil
	return nil
}

// tellUp tells the trace that the link is up, behind the end of those that it succeeds. It
// may take as long as the program does to hear of that.
func (l *link) tellUp() {
	l.telling.Lock()
	defer l.telling.Unlock()
	l.beforeDownLocked()
	if l.told != nothing { // another one has come meanwhile
		return
	}
	l.told = up
	if f := l.node.trace.LinkUp; f != nil {
		f(l.address, *l.from.Load(), l.nc.RemoteAddr())
	}
}

// tellDown tells the trace that the link, which is over, is down, and why, if it knows the
// link.
func (l *link) tellDown() {
	l.telling.Lock()
	defer l.telling.Unlock()
	l.beforeDownLocked()
	if f := l.node.trace.LinkDown; f != nil && l.told == up {
		f(l.address, context.Cause(l.ctx))
	}
	l.told = down
}

func (l *link) beforeDownLocked() {
	if l.before != nil {
		l.before.tellDown()
		l.before = nil
	}
}
