package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// An arrival is a message that comes in more than one piece. The inflow's lock guards
// what can change; what is read into body, the reader alone has.
type arrival struct {
	m      *Message
	number uint32 // in its flow
	total  int    // bytes of the body

	got     int // bytes of the body
	body    []byte
	charged int                     // bytes that have taken credit, and were not settled
	stream  *stream                 // takes the body, of one that goes on to another node
	claim   *claim                  // for the rest of the body, of one that stays
	granted bool                    // the rest takes no credit
	refused *DeliveryError          // the rest is not wanted, as the sender was told
	whole   bool                    // all has come
	queued  bool                    // it has a place in the flow's queue, until it is settled
	over    bool                    // it is not to be delivered any more, and its sender knows
	late    *DeliveryError          // it has come whole, and gives way to others
	stop    context.CancelCauseFunc // ends the wait for its mailbox; nil: it has not begun
}

// length returns how many bytes m's body has, come or not.
func (m *Message) length() int {
	if m.stream != nil {
		return m.stream.total
	}
	return len(m.Body)
}

// begin notes that h's message comes, in pieces.
func (in *inflow) begin(h head, charged int) *arrival {
	a := &arrival{m: in.message(h), number: in.count, total: h.length, charged: charged}
	in.mu.Lock()
	in.under = a
	in.mu.Unlock()
	return a
}

// add takes the next piece of a's body, n bytes that r has next.
func (in *inflow) add(a *arrival, n int, r *bufio.Reader) error {
	if a.got+n > a.total {
		return wireError("a message is longer than it said")
	}
	in.mu.Lock()
	body, s, c, granted, refused := a.body, a.stream, a.claim, a.granted, a.refused != nil
	in.mu.Unlock()
	if refused {
		if _, err := r.Discard(n); err != nil {
			return err
		}
	} else {
		at, room := len(body), n // the credit bounds what comes
		if granted {
			room = a.total - at
		}
		body = slices.Grow(body, room)[:at+n]
		if _, err := io.ReadFull(r, body[at:]); err != nil {
			return err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	a.got += n
	a.whole = a.got == a.total
	switch {
	case a.refused != nil: // perhaps just now
		in.wastedLocked(a)
	case s != nil:
		s.put(body)
	default:
		a.body = body
		if a.granted {
			c.came(n, a.whole)
		}
	}
	return nil
}

// ask sees to it that the rest of a comes: that it has room on this node, or goes on to
// the next one in pieces, or is not sent at all. What is to be said is said when the
// sender has no credit: then all that comes of the message takes none. One that fits what
// the flow may hold has its credit when what is before it is delivered.
func (in *inflow) ask(a *arrival) {
	in.mu.Lock()
	if in.left > 0 || a.whole || a.granted || a.refused != nil || a.claim != nil || a.stream != nil {
		in.mu.Unlock()
		return
	}
	in.giveLocked()
	more := in.left > 0 || messageHead+a.total <= in.window
	in.mu.Unlock()
	if more {
		return
	}
	// Who may not, and what leads nowhere, gets no room.
	to, _, err := in.link.node.resolve(a.m)
	switch to.(type) {
	case *link, Address:
	default:
		if err == nil {
			in.claim(a, to)
			return
		}
	}
	if err != nil {
		in.refuse(a, asDelivery(err, code.Internal, ""))
		return
	}
	in.pass(a)
}

// claim asks for room for the rest of a, which is for what is at to: the path of a channel
// has room of its own, which is not promised to what comes through it.
func (in *inflow) claim(a *arrival, to place) {
	account := in.link.account
	if k, ok := to.(*worker); ok && k.room != nil {
		account = k.room
	}
	if a.total > account.budget.share {
		in.refuse(a, failure(code.Limit, a.m.Onward[0], "a message of %d bytes has no room there", a.total))
		return
	}
	c := &claim{account: account, n: a.total - a.got}
	c.grant = func() { in.grant(a) }
	c.giveWay = func() { in.giveWay(a) }
	in.mu.Lock()
	// Credit that was given since ask has looked: what the sender takes of it and what it is
	// granted would mix.
	if in.left > 0 || in.ended {
		in.mu.Unlock()
		return
	}
	a.claim = c
	in.mu.Unlock()
	account.budget.take(c)
}

// grant tells the sender that there is room for the rest of a.
func (in *inflow) grant(a *arrival) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended || in.under != a || a.refused != nil {
		return // who has ended it releases the claim
	}
	a.granted = true
	in.link.control(frameGrant, in.number, binary.BigEndian.AppendUint32(nil, a.number))
	in.giveLocked()
}

// pass has a go on to the next node as it comes.
func (in *inflow) pass(a *arrival) {
	in.mu.Lock()
	defer in.mu.Unlock()
	a.stream = newStream(in, a)
	a.m.stream = a.stream
	a.stream.put(a.body)
	a.body = nil
	in.queueLocked(queued{m: a.m, a: a})
}

// passedOn settles n bytes of a's that have gone on.
func (in *inflow) passedOn(a *arrival, n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n = min(n, a.charged)
	a.charged -= n
	in.settleLocked(n)
}

// refuse tells the sender that the rest of a is not wanted, and why. False: all of it
// has come, or it was refused already.
func (in *inflow) refuse(a *arrival, why *DeliveryError) bool {
	in.mu.Lock()
	if a.refused != nil || a.whole || in.ended {
		in.mu.Unlock()
		return false
	}
	a.refused, a.body = why, nil
	in.link.control(frameRefuse, in.number, append(binary.BigEndian.AppendUint32(nil, a.number), why.encode()...))
	c := a.yieldLocked()
	in.wastedLocked(a)
	in.mu.Unlock()
	c.release()
	if f := in.link.node.trace.Lost; f != nil {
		f(why)
	}
	return true
}

// giveWay ends a, which has held room for too long while others wait for it.
func (in *inflow) giveWay(a *arrival) {
	if in.refuse(a, failure(code.Limit, "", "the message came too slowly, and others wait for its room")) {
		return
	}
	in.mu.Lock()
	if a.claim == nil || in.ended { // delivered, or given up
		in.mu.Unlock()
		return
	}
	a.late = failure(code.Limit, a.m.Onward[0], "the mailbox has taken nothing for %s, and others wait for the message's room", in.link.node.cfg.Patience.Round(time.Second))
	if a.stop != nil {
		a.stop(a.late) // who waits with it says so
	}
	said := in.passOverLocked(a)
	in.mu.Unlock()
	said()
}

// passOverLocked ends a where it gives way and waits behind others in the queue: whatever
// those wait for, its room is free at once. What it returns is to be called without the
// lock.
func (in *inflow) passOverLocked(a *arrival) (said func()) {
	if a.late == nil || !a.queued || a.stop != nil || a.over {
		return func() {}
	}
	c := a.yieldLocked()
	a.m.Body = nil
	return func() {
		c.release()
		in.link.node.tell(a.m, a.late)
	}
}

// yieldLocked ends a, but for the credit that it has taken, and returns its claim, to be
// released without the lock.
func (a *arrival) yieldLocked() (c *claim) {
	c, a.claim = a.claim, nil
	a.over, a.body = true, nil
	return c
}

// drop forgets the message that is under way.
func (in *inflow) drop() error {
	in.mu.Lock()
	a := in.under
	if a == nil {
		in.mu.Unlock()
		return wireError("a message is dropped that has not begun")
	}
	in.under = nil
	in.count++
	c := a.yieldLocked()
	in.wastedLocked(a)
	if a.stream != nil {
		a.stream.fail(errGivenUp)
	}
	in.mu.Unlock()
	c.release()
	return nil
}
