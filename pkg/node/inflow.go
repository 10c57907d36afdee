package node

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

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

	under *Message // whose body is coming
	total int      // bytes of that body

	mu       sync.Mutex
	window   int // what the sender may have sent and not delivered
	left     int // of that, what it has not sent
	lent     int // of left, or of what is held, what is the budget's for one large message
	grown    int // of window, what is the budget's
	owed     int // delivered, and not yet given back
	claim    *claim
	ended    bool // the link has
	closing  bool // the sender has no more
	queue    []*Message
	draining bool // a goroutine delivers the queue
}

// read takes the other side's frames until the link ends.
func (l *link) read(ready func(), parts *sync.WaitGroup) error {
	r := bufio.NewReaderSize(l.nc, 32<<10)
	var hello [len(preamble)]byte
	if _, err := io.ReadFull(r, hello[:]); err != nil {
		return ended(err)
	}
	if hello != preamble {
		return wireError("what answers is no node of this version: it began with %q", hello[:])
	}
	ready()
	defer l.endInflows()
	var scratch [frameHead]byte
	for {
		f, err := readFrame(r, &scratch)
		if err != nil {
			return ended(err)
		}
		l.seen.Store(int64(time.Since(l.born)))
		if err := l.awaitAnswered(); err != nil {
			return err
		}
		if err := l.take(f, r, parts); err != nil {
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
func (l *link) take(f frame, r *bufio.Reader, parts *sync.WaitGroup) error {
	switch f.typ {
	case framePing:
		l.mu.Lock()
		l.pong = true // one, however many were asked for
		l.mu.Unlock()
		l.poke()
		return nil
	case framePong:
		return nil
	case frameClosed:
		return l.over(f.flow)
	case frameCredit:
		var b [4]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return err
		}
		return l.credited(f.flow, b[:])
	case frameOpen:
		return l.opened(f, r)
	}
	in := l.in[f.flow]
	if in == nil {
		return wireError("a frame of type %d for flow %d, which there is not", f.typ, f.flow)
	}
	switch f.typ {
	case frameData:
		return in.data(f.length, r, parts)
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
func (in *inflow) data(n int, r *bufio.Reader, parts *sync.WaitGroup) error {
	if err := in.spend(n); err != nil {
		return err
	}
	if in.under == nil {
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
		if err := in.begin(h); err != nil {
			return err
		}
		n -= messageHead
	}
	m := in.under
	if len(m.Body)+n > in.total {
		return wireError("a message is longer than it said")
	}
	at := len(m.Body)
	m.Body = slices.Grow(m.Body, n)[:at+n] // bounded by the credit
	if _, err := io.ReadFull(r, m.Body[at:]); err != nil {
		return err
	}
	if len(m.Body) < in.total {
		in.ask(in.total - len(m.Body))
		return nil
	}
	in.under = nil
	in.deliver(m, parts)
	return nil
}

// begin makes the message that h announces.
func (in *inflow) begin(h head) error {
	from := *in.link.from.Load()
	from.Carried = h.flags&flagCarried != 0
	if len(in.back) > MaxRoute || h.hops == 0 {
		return wireError("a message that has passed too many hops")
	}
	in.total = h.length
	in.under = &Message{
		Onward: in.onward, Return: in.back, From: from, Body: make([]byte, 0, min(h.length, startCredit)),
		id: h.id, kind: h.kind, hops: h.hops - 1, via: in.link,
	}
	return nil
}

// spend takes n bytes of the sender's credit.
func (in *inflow) spend(n int) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n > in.left {
		return wireError("%d bytes on flow %d, which had credit for %d", n, in.number, in.left)
	}
	in.left -= n
	return nil
}

// ask sees to it that the sender gets credit for the rest of a message: what is owed
// to it, and of the node's budget what lacks then.
func (in *inflow) ask(rest int) {
	in.mu.Lock()
	lacks := rest - in.left
	if lacks <= 0 || in.claim != nil || in.ended {
		in.mu.Unlock()
		return
	}
	in.giveLocked()
	if lacks = rest - in.left; lacks <= 0 {
		in.mu.Unlock()
		return
	}
	in.claim = &claim{} // the place of the one to come
	in.mu.Unlock()
	c := in.link.node.budget.take(lacks, func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.claim = nil
		if in.ended {
			in.link.node.budget.give(lacks, 0)
			return
		}
		in.lent += lacks
		in.left += lacks
		in.credit(lacks)
	})
	in.mu.Lock()
	if in.claim != nil { // not granted yet
		in.claim = c
	}
	in.mu.Unlock()
}

// credit tells the sender that it may send more.
func (in *inflow) credit(n int) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	in.link.control(frameCredit, in.number, b[:])
}

// giveLocked gives the sender what it is owed.
func (in *inflow) giveLocked() {
	if in.owed > 0 {
		in.left += in.owed
		in.credit(in.owed)
		in.owed = 0
	}
}

// settle counts n bytes as delivered.
func (in *inflow) settle(n int) {
	in.mu.Lock()
	back := min(n, in.lent)
	in.lent -= back
	in.owed += n - back
	if !in.ended && in.left < in.window/4 && in.window < mostCredit && in.link.node.budget.grow(in.window) {
		more := in.window
		in.window += more
		in.grown += more
		in.owed += more
	}
	if in.owed >= in.window/2 {
		in.giveLocked()
	}
	in.mu.Unlock()
	in.link.node.budget.give(back, 0)
}

// drop forgets the message that is under way.
func (in *inflow) drop() error {
	if in.under == nil {
		return wireError("a message is dropped that has not begun")
	}
	n := messageHead + len(in.under.Body)
	in.under = nil
	in.mu.Lock()
	c := in.claim
	in.mu.Unlock()
	if c != nil && in.link.node.budget.drop(c) {
		in.mu.Lock()
		in.claim = nil
		in.mu.Unlock()
	}
	in.settle(n)
	return nil
}

// deliver brings m on: at once if that goes without waiting and nothing is before
// it, else on a goroutine that lasts until nothing waits.
func (in *inflow) deliver(m *Message, parts *sync.WaitGroup) {
	in.mu.Lock()
	if in.draining {
		in.queue = append(in.queue, m)
		in.mu.Unlock()
		return
	}
	in.mu.Unlock()
	size := messageHead + len(m.Body) // who takes it may change it
	ok, err := in.link.node.offer(m)
	if err != nil {
		in.link.node.tell(m, asDelivery(err, code.Internal, ""))
	}
	if ok || err != nil {
		in.settle(size)
		return
	}
	in.mu.Lock()
	in.queue = append(in.queue, m)
	in.draining = true
	in.mu.Unlock()
	parts.Go(in.drain)
}

// drain delivers what waits.
func (in *inflow) drain() {
	n := in.link.node
	for {
		in.mu.Lock()
		if len(in.queue) == 0 || in.ended {
			in.draining = false
			in.queue = nil
			done := in.closedLocked()
			in.mu.Unlock()
			done()
			return
		}
		m := in.queue[0]
		in.queue[0] = nil
		in.queue = in.queue[1:]
		in.mu.Unlock()
		size := messageHead + len(m.Body)
		if err := n.deliver(in.link.ctx, m, nil); err != nil && in.link.ctx.Err() == nil {
			n.tell(m, asDelivery(err, code.Internal, ""))
		}
		in.settle(size)
	}
}

// close takes the sender's word that there is no more.
func (in *inflow) close() error {
	if in.under != nil {
		return wireError("a flow ends in the middle of a message")
	}
	in.mu.Lock()
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
// gives back what the flow has of the node's budget.
func (in *inflow) endLocked() (done func()) {
	n, grown, c, b := in.lent+in.grown, in.grown, in.claim, in.link.node.budget
	in.ended, in.lent, in.grown = true, 0, 0
	return func() {
		if c != nil && c.grant != nil {
			b.drop(c) // one that was granted just now finds that the flow has ended
		}
		b.give(n, grown)
	}
}

// endInflows ends the flows of a link that is over.
func (l *link) endInflows() {
	for _, in := range l.in {
		done := func() {}
		in.mu.Lock()
		if !in.ended {
			done = in.endLocked()
		}
		in.mu.Unlock()
		done()
	}
}
