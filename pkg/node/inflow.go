package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/culvert-net/culvert/pkg/code"
)

// mostCredit is how far the credit of a flow grows that uses it up.
const mostCredit = 1 << 20

// An inflow is the receiving side of a flow. What the reader alone has stands first.
type inflow struct {
	link   *link
	number uint32
	onward Route
	back   Route // with the link's address before it
	count  uint32

	mu       sync.Mutex
	under    *arrival // that comes in pieces, until its last one
	window   int      // what the sender may have sent and not delivered
	left     int      // of that, what it has not sent
	grown    int      // of window, what is the budget's
	owed     int      // delivered, and not yet given back
	more     int      // of window, what the sender does not know of
	ended    bool     // nothing more of it counts as delivered
	closing  bool     // the sender has no more
	queue    []queued
	draining bool // a goroutine delivers the queue, or what it has taken from there
}

// A queued message waits for its turn, or its place. Of one that is given up there the
// credit waits for its turn: what is given back is always that of the oldest, whom the
// sender then knows to be delivered.
type queued struct {
	m    *Message
	a    *arrival // if it has come in pieces
	size int      // of credit that it has taken, if not
}

// read takes the other side's frames until the link ends.
func (l *link) read(ready func(hello) error) error {
	r := bufio.NewReaderSize(hearing{l}, 32<<10)
	h, err := readHello(r)
	if err != nil {
		return ended(err)
	}
	if err := ready(h); err != nil {
		return err
	}
	if l.listens {
		l.speak()
	}
	defer l.endInflows()
	var scratch [frameHead]byte
	for {
		f, err := readFrame(r, &scratch)
		if err != nil {
			return ended(err)
		}
		if err := l.awaitAnswered(); err != nil {
			return err
		}
		if err := l.take(f, r); err != nil {
			return ended(err)
		}
	}
}

// ended says in our words how a conn ends. There is no clean end: a node that closes
// leaves its messages where they are.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the other node has closed the conn")
	}
	return err
}

// take handles one frame, whose body is next in r.
func (l *link) take(f frame, r *bufio.Reader) error {
	switch f.typ {
	case framePing:
		l.sign()
		return nil
	case framePong:
		return nil
	case frameClosed:
		return l.over(f.flow)
	case frameCredit, frameGrant, frameRefuse:
		return l.answered(f, r)
	case frameOpen:
		return l.opened(f, r)
	}
	in := l.in[f.flow]
	if in == nil {
		return wireError("a frame of type %d for flow %d, which there is not", f.typ, f.flow)
	}
	switch f.typ {
	case frameData:
		return in.data(f.length, r)
	case frameDrop:
		return in.drop()
	}
	delete(l.in, f.flow) // CLOSE
	return in.close()
}

func (l *link) opened(f frame, r io.Reader) error {
	b := make([]byte, f.length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	onward, back, err := parseRoutes(b)
	switch {
	case err != nil:
		return err
	case l.in[f.flow] != nil:
		return wireError("flow %d begins twice", f.flow)
	case l.begun.Load() >= maxFlows:
		return wireError("more than %d flows", maxFlows)
	}
	in := &inflow{link: l, number: f.flow, onward: onward, window: startCredit, left: startCredit}
	if len(back) > 0 {
		in.back = back.with(l.address)
	}
	l.in[f.flow] = in
	l.begun.Add(1)
	return nil
}

// data takes a piece of a message.
func (in *inflow) data(n int, r *bufio.Reader) error {
	a := in.under // which the reader alone sets
	if err := in.spend(a, n); err != nil {
		return err
	}
	if a == nil {
		if n < messageHead {
			return wireError("a message that begins with %d bytes", n)
		}
		b, err := r.Peek(messageHead)
		if err != nil {
			return err
		}
		h, err := parseHead(b)
		if err != nil {
			return err
		}
		_, _ = r.Discard(messageHead) // they were peeked at
		if len(in.back) > MaxRoute || h.hops == 0 {
			return wireError("a message that has passed too many hops")
		}
		if n -= messageHead; n == h.length {
			return in.single(h, r)
		}
		a = in.begin(h, messageHead+n)
	}
	if err := in.add(a, n, r); err != nil {
		return err
	}
	if !a.whole {
		in.ask(a)
		return nil
	}
	in.finish(a)
	return nil
}

// single takes a message that is all in one piece.
func (in *inflow) single(h head, r *bufio.Reader) error {
	m := in.message(h)
	m.Body = make([]byte, h.length) // bounded by the frame
	if _, err := io.ReadFull(r, m.Body); err != nil {
		return err
	}
	in.count++
	in.deliver(queued{m: m, size: messageHead + h.length})
	return nil
}

// finish brings a on, which has come whole.
func (in *inflow) finish(a *arrival) {
	in.mu.Lock()
	in.under = nil
	in.count++
	refused := a.refused
	in.giveLocked()
	in.mu.Unlock()
	switch {
	case refused != nil: // its sender was told too late to notice
		in.link.node.word(a.m, refused)
	case a.stream == nil:
		a.m.Body = a.body
		in.deliver(queued{m: a.m, a: a})
	}
}

// message makes the message that h announces.
func (in *inflow) message(h head) *Message {
	from := *in.link.from.Load()
	from.Carried = h.flags&flagCarried != 0
	m := &Message{Onward: in.onward, Return: in.back, From: from, id: h.id, kind: h.kind, hops: h.hops - 1, via: in.link}
	if h.kind == plain { // no other has an order, and who waits for an answer is not told that it is lost
		m.under = in.link
	}
	return m
}

// spend takes n bytes of the sender's credit, unless they need none.
func (in *inflow) spend(a *arrival, n int) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if a != nil && a.granted {
		return nil
	}
	if n > in.left {
		return wireError("%d bytes on flow %d, which had credit for %d", n, in.number, in.left)
	}
	in.left -= n
	if a != nil {
		a.charged += n
	}
	return nil
}

// giveLocked tells the sender what it is owed, but not while a message waits for room:
// what comes after it was granted would take credit or not.
func (in *inflow) giveLocked() {
	if in.under == nil || in.under.claim == nil || in.under.granted {
		in.sayLocked()
	}
}

// sayLocked is giveLocked at any time.
func (in *inflow) sayLocked() {
	if in.owed+in.more == 0 || in.ended {
		return
	}
	in.left += in.owed + in.more
	b := binary.BigEndian.AppendUint32(nil, uint32(in.owed))
	in.link.control(frameCredit, in.number, binary.BigEndian.AppendUint32(b, uint32(in.more)))
	in.owed, in.more = 0, 0
}

// settleLocked counts n bytes that have taken credit as delivered.
func (in *inflow) settleLocked(n int) {
	in.owed += n
	if !in.ended && in.left < in.window/4 && in.window < mostCredit && in.link.node.budget.grow(in.link.account, in.window) {
		in.more += in.window
		in.grown += in.window
		in.window *= 2
	}
	if in.owed+in.more >= in.window/2 || in.left == 0 { // a message may wait for the rest
		in.giveLocked()
	}
}

// wastedLocked has what a has taken of the credit come back when it is its turn. It is
// thrown away, or on its way into a stream that has ended.
func (in *inflow) wastedLocked(a *arrival) {
	switch {
	case a.queued:
	case in.draining:
		a.queued = true
		in.queue = append(in.queue, queued{m: a.m, a: a})
	default:
		in.owed += a.charged
		a.charged = 0
	}
	in.giveLocked()
}

// settle counts q as delivered, or lost, and gives its room back.
func (in *inflow) settle(q queued) {
	in.mu.Lock()
	n := q.size
	var c *claim
	if a := q.a; a != nil {
		n, a.charged, a.queued = a.charged, 0, false
		c, a.claim = a.claim, nil
	}
	in.settleLocked(n)
	in.mu.Unlock()
	c.release()
}

// deliver brings q on: at once if that goes without waiting and nothing is before
// it, else on a goroutine that lasts until nothing waits.
func (in *inflow) deliver(q queued) {
	in.mu.Lock()
	first := !in.draining && !in.ended
	in.mu.Unlock()
	if first {
		ok, err := in.link.node.deliver(in.link.ctx, q.m, nil, false)
		switch {
		case err == nil:
		case in.link.isOver():
			in.end() // no word of it gets through: see await
		default:
			in.link.node.tell(q.m, asDelivery(err, code.Internal, ""))
		}
		if ok || err != nil {
			in.settle(q)
			return
		}
	}
	in.mu.Lock()
	said := in.queueLocked(q)
	in.mu.Unlock()
	said()
}

// queueLocked has q delivered when it is its turn. What it returns is to be called
// without the lock.
func (in *inflow) queueLocked(q queued) (said func()) {
	in.queue = append(in.queue, q)
	if !in.draining {
		in.draining = true
		in.link.parts.Go(in.drain)
	}
	if q.a == nil {
		return func() {}
	}
	q.a.queued = true
	return in.passOverLocked(q.a)
}

// drain delivers what waits.
func (in *inflow) drain() {
	for {
		in.mu.Lock()
		if len(in.queue) == 0 || in.ended {
			in.draining = false
			left := in.queue
			in.queue = nil
			done := in.closedLocked()
			in.mu.Unlock()
			for _, q := range left {
				in.settle(q)
			}
			done()
			return
		}
		q := in.queue[0]
		in.queue[0] = queued{}
		in.queue = in.queue[1:]
		over := q.a != nil && q.a.over
		ctx, stop := in.turnLocked(q)
		in.mu.Unlock()
		if !over {
			in.await(ctx, q)
		}
		stop()
		in.settle(q)
	}
}

// turnLocked returns what q waits within for its place.
func (in *inflow) turnLocked(q queued) (ctx context.Context, stop func()) {
	if q.a == nil {
		return in.link.ctx, func() {}
	}
	ctx, q.a.stop = context.WithCancelCause(in.link.ctx)
	return ctx, func() { q.a.stop(nil) }
}

// await delivers q, and waits for its place.
func (in *inflow) await(ctx context.Context, q queued) {
	_, err := in.link.node.deliver(ctx, q.m, nil, true)
	switch {
	case err == nil, errors.Is(err, errGivenUp):
	case in.link.isOver():
		in.end() // it does not count as delivered, and so nothing behind it
	default:
		in.fail(q, asDelivery(err, code.Internal, ""))
	}
}

// fail says that q is lost: to who sends it if it is under way, else to where it has
// come from.
func (in *inflow) fail(q queued, why *DeliveryError) {
	if q.a == nil || !in.refuse(q.a, why) {
		in.link.node.tell(q.m, why)
	}
}

// close takes the sender's word that there is no more.
func (in *inflow) close() error {
	in.mu.Lock()
	if in.under != nil {
		in.mu.Unlock()
		return wireError("a flow ends in the middle of a message")
	}
	in.closing = true
	done := in.closedLocked()
	in.mu.Unlock()
	done()
	return nil
}

// closedLocked says that all is delivered, when it is. What it returns is to be
// called without the lock.
func (in *inflow) closedLocked() (done func()) {
	if !in.closing || in.draining || in.ended {
		return func() {}
	}
	in.link.begun.Add(-1) // before the other side may begin another one
	in.link.control(frameClosed, in.number, nil)
	return in.endLocked()
}

// endLocked ends the flow. What it returns is to be called without the lock: it
// gives back what the flow has of the node's budget, but for what waits.
func (in *inflow) endLocked() (done func()) {
	grown := in.grown
	in.ended, in.grown = true, 0
	var c *claim
	if a := in.under; a != nil {
		c, a.claim = a.claim, nil
		if a.stream != nil {
			a.stream.fail(errGivenUp)
		}
	}
	return func() {
		c.release()
		in.link.node.budget.shrink(in.link.account, grown)
	}
}

// end ends the flow with its link. Where somebody may read it, it says first what was
// delivered.
func (in *inflow) end() {
	in.mu.Lock()
	done := func() {}
	if !in.ended {
		if in.link.leaving() {
			in.sayLocked()
		}
		done = in.endLocked()
	}
	in.mu.Unlock()
	done()
}

// endInflows ends the flows of a link that is over.
func (l *link) endInflows() {
	for _, in := range l.in {
		in.end()
	}
}
