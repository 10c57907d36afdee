package node

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/culvert-net/culvert/pkg/code"
)

// Self is what a running worker has of itself: how it sends. All its methods may be called
// concurrently, also beside Handle, with a context that is not Handle's.
type Self struct {
	worker *worker
	route  Route // of the address alone
}

// Address returns the worker's address.
func (s *Self) Address() Address { return s.worker.address }

// Node returns the node that the worker is on.
func (s *Self) Node() *Node { return s.worker.node }

// Stop stops the worker when it has handled the message that it is at. It returns at
// once.
func (s *Self) Stop() { s.worker.cancel() }

// Send sends body along onward. It returns when the next hop has taken the message; see
// [Node.Send] for that, for body and the error. Answers come to the worker, as messages:
// from other nodes if [Options.Allow] lets them in. Losses come if it is a [LossHandler].
func (s *Self) Send(ctx context.Context, onward Route, body []byte) error {
	return s.send(ctx, &Message{Onward: onward, Return: s.route, Body: body, hops: maxHops})
}

// Reply sends body the way that m has come, as the answer to the request if m is one. A
// request takes one answer; others are lost. See [Node.Send] for body and the error.
func (s *Self) Reply(ctx context.Context, m *Message, body []byte) error {
	if len(m.Return) == 0 {
		return failure(code.NoWorker, "", "the message says no way back")
	}
	return s.send(ctx, m.answer(s.route, body))
}

// Forward sends m on along what is left of its onward route, with this worker on its
// return route, and with the body that m has now. m is not to be used afterwards. Where
// m has come from outside and its route goes on to a transport's address,
// [Config.Transit] is asked; a worker that wants it carried there says so by
// [Self.ForwardTo].
func (s *Self) Forward(ctx context.Context, m *Message) error {
	return s.ForwardTo(ctx, m, nil)
}

// ForwardTo is Forward with more addresses before the rest of the onward route, which
// the worker vouches for: a transport's address among them is not asked about.
func (s *Self) ForwardTo(ctx context.Context, m *Message, first Route) error {
	n, err := passed(m, s.worker.address, first)
	if err != nil {
		return err
	}
	return s.send(ctx, n)
}

// Request sends body along onward and returns the answer; see [Node.Request]. Within Handle
// the worker handles nothing else meanwhile: a worker on this node that waits itself for
// this one to go on, or is this one, is not asked, and the error is circle.
func (s *Self) Request(ctx context.Context, onward Route, body []byte) (*Message, error) {
	return s.worker.node.request(ctx, s.worker, s.route, onward, body)
}

func (s *Self) send(ctx context.Context, m *Message) error {
	ctx, cancel := s.worker.node.patient(ctx)
	defer cancel()
	return s.worker.node.send(ctx, m, s.worker)
}

// passed returns m as it goes on from the hop at address, by way of more addresses
// first. Without an address it leaves nothing on the return route.
func passed(m *Message, at Address, more Route) (*Message, error) {
	if m.hops <= 1 {
		return nil, failure(code.TooManyHops, at, "the message has passed %d hops", maxHops)
	}
	n := *m
	n.hops--
	n.vouched = uint8(len(more)) // a route has MaxRoute at most
	if len(more) > 0 {
		n.Onward = more.Then(m.Onward...)
	}
	if len(m.Return) > 0 && at != "" {
		n.Return = m.Return.with(at)
	}
	if len(n.Onward) > MaxRoute || len(n.Return) > MaxRoute {
		return nil, failure(code.TooManyHops, at, "a route of the message would have more than %d addresses", MaxRoute)
	}
	return &n, nil
}

// patient returns ctx, with a deadline if it has none.
func (n *Node) patient(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, n.cfg.Patience, errPatience)
}

var errPatience = errors.New("nothing has moved for as long as a sender without a deadline waits (Patience)")

// Send sends body, of up to [MaxBody] bytes, along onward, from nobody: there is no
// answer, and nobody hears of a loss behind the next hop. It returns when that has taken
// the message: the worker's mailbox on this node, or the conn to the next one. body is
// not the sender's any more, whatever comes of it: a worker on this node gets it as it is.
//
// The error is a *[DeliveryError], [ErrClosed], or ctx's if that was cancelled; when its
// deadline has passed it is a DeliveryError with timeout, which is
// [context.DeadlineExceeded], too. A ctx without a deadline gets one of [Config.Patience].
//
// What Send sends and what [Node.Request] asks come from two senders, and what the one says
// may overtake what the other does. A worker's [Self] is one.
func (n *Node) Send(ctx context.Context, onward Route, body []byte) error {
	ctx, cancel := n.patient(ctx)
	defer cancel()
	return n.send(ctx, &Message{Onward: onward, Body: body, hops: maxHops}, nil)
}

// Request sends body along onward and returns the answer, which is the caller's. Its
// error is as of [Node.Send], also where the request or the answer is known to be lost
// later: when the conn that it has left by ends, with link_lost.
//
// Where onward begins with a channel, the answer has come through it, from the peer
// that its [Origin] names.
func (n *Node) Request(ctx context.Context, onward Route, body []byte) (*Message, error) {
	return n.request(ctx, nil, n.inbox, onward, body)
}

// A pending request waits for its answer.
type pending struct {
	answer chan *Message // buffered
	via    *link         // the answer has to come by; nil: any way
	by     *link         // the request has left by; nil: by none. Of who sends it

	awaited atomic.Pointer[waiting] // of the worker that asks
}

func (n *Node) request(ctx context.Context, by *worker, back, onward Route, body []byte) (answer *Message, err error) {
	defer func() {
		if err != nil && n.isClosed() {
			answer, err = nil, ErrClosed
		}
	}()
	ctx, cancel := n.patient(ctx)
	defer cancel()
	p := &pending{answer: make(chan *Message, 1)}
	if len(onward) > 0 {
		p.via, _ = n.lookup(onward[0]).(*link)
	}
	id := n.await(p)
	defer n.forget(id)
	defer func() { p.awaited.Load().end() }()
	err = n.send(ctx, &Message{Onward: onward, Return: back, Body: body, id: id, hops: maxHops, request: p}, by)
	if err != nil {
		return nil, err
	}
	over := make(<-chan struct{})
	if p.by != nil { // the answer comes back by it, too
		over = p.by.done
	}
	select {
	case m := <-p.answer:
		return m.answered()
	case <-over:
		select {
		case m := <-p.answer: // just before that
			return m.answered()
		default:
			return nil, p.by.lost()
		}
	case <-ctx.Done():
	case <-n.ctx.Done():
		return nil, ErrClosed
	}
	if errors.Is(context.Cause(ctx), errPatience) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, failure(code.Timeout, "", "no answer in time")
	}
	return nil, context.Cause(ctx)
}

// answered returns m, or what it says of the request.
func (m *Message) answered() (*Message, error) {
	if m.kind == failed {
		return nil, decodeNotice(m.Body)
	}
	return m, nil
}

// await gives p an id that nobody can guess.
func (n *Node) await(p *pending) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		id := randomID()
		if _, ok := n.pending[id]; !ok && id != 0 {
			n.pending[id] = p
			return id
		}
	}
}

func (n *Node) forget(id uint64) {
	n.mu.Lock()
	delete(n.pending, id)
	n.mu.Unlock()
}

// expected says why nobody waits for m, which is an answer, or word of a loss.
func (n *Node) expected(m *Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pendingLocked(m) == nil {
		return failure(code.NoWorker, m.Onward[0], "nobody waits for this answer any more")
	}
	return nil
}

func (n *Node) pendingLocked(m *Message) *pending {
	p := n.pending[m.id]
	// Where the answer has to come by a channel, this node may say that it does not.
	if p == nil || m.id == 0 || m.kind == plain || p.via != nil && m.via != nil && p.via.address != m.via.address {
		return nil
	}
	return p
}

// answered gives m to who waits for it.
func (n *Node) answered(m *Message) (bool, error) {
	n.mu.Lock()
	p := n.pendingLocked(m)
	if p != nil {
		delete(n.pending, m.id)
	}
	n.mu.Unlock()
	if p == nil {
		return false, failure(code.NoWorker, m.Onward[0], "nobody waits for this answer any more")
	}
	p.awaited.Load().end() // who has answered may ask back at once
	p.answer <- m
	return true, nil
}
