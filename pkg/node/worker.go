package node

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A Worker handles the messages that come to an address, one at a time and in
// order. An error of Handle is told to the message's sender: a [DeliveryError] as it is,
// another one as worker_failed with its text. The worker goes on. m is Handle's, which may
// keep it and answer later; self may be kept, too, and used by other goroutines.
//
// ctx ends when the worker is stopped, and says that it is the worker which waits: pass it
// on to what Handle sends. So a send or request that would wait, by way of whichever other
// workers, for this one fails with circle. Goroutines that Handle starts, and that send by
// themselves, have another context.
type Worker interface {
	Handle(ctx context.Context, self *Self, m *Message) error
}

// A WorkerFunc is a func as a Worker.
type WorkerFunc func(ctx context.Context, self *Self, m *Message) error

// Handle implements Worker.
func (f WorkerFunc) Handle(ctx context.Context, self *Self, m *Message) error { return f(ctx, self, m) }

// A LossHandler is a Worker that wants to know what became of messages that it has
// sent: err is what happened, and where. A worker that is one is made anew as one
// ([Options.Restart]). HandleLoss is called in turn with Handle, once for each message
// that is known to be lost or, where a conn has ended, may be: of that it is called again
// if it is known then. But words that find no room in the mailbox are given up when that
// has not moved for a second, or more than 1,024 wait. Where a conn has ended, the words of
// what was sent along one route have that second together. From other nodes it is a hint, as good as the way that the message was sent
// along: whoever is on it can say such a thing.
type LossHandler interface {
	HandleLoss(ctx context.Context, self *Self, err *DeliveryError)
}

// Options are a worker's. The zero value is the default.
type Options struct {
	// Allow says which messages from other nodes reach the worker; its error is told to
	// their senders. Nil lets in nothing from outside. It is asked about each message,
	// about one of more than a few KiB also when that begins; by many goroutines at once, of
	// which each reads a conn: it must not wait for anything.
	Allow func(Origin) error
	// Mailbox is how many messages may wait; 0 means 256. MailboxBytes is how many
	// bytes of bodies, and 64 for each; 0 means 1 MiB. One message always has room.
	Mailbox, MailboxBytes int
	// Restart makes the worker that goes on after a panic; nil means that the same
	// one does. It is called before the next message is handled; if it panics, too, or
	// returns nil, the worker stops.
	Restart func() Worker
	// Restarts is how many panics within a minute are survived; 0 means 5, less than
	// 0 none. One more stops the worker.
	Restarts int
}

func (o *Options) setDefaults() {
	if o.Mailbox <= 0 {
		o.Mailbox = 256
	}
	if o.MailboxBytes <= 0 {
		o.MailboxBytes = 1 << 20
	}
	if o.Restarts == 0 {
		o.Restarts = 5
	}
}

// A worker is one that runs on a node.
type worker struct {
	node    *Node
	address Address
	self    *Self
	opt     Options
	box     *mailbox
	cancel  context.CancelFunc
	ended   chan struct{}
	room    *account    // of its own, for messages to it; nil: the node's
	mourns  bool        // the handler is a LossHandler
	wrote   atomic.Bool // something went to another node

	waits atomic.Pointer[waiting] // what its Handle waits for; the node's circles guards what is stored

	// The goroutine's.
	handler Worker
	panics  []time.Time // of the last minute
}

// Start runs w at address, until it or the node is stopped, or has panicked too
// often. The error says that the address is none or w is nil, that something is there
// already (a *[DeliveryError] with replaced), or that the node is closed ([ErrClosed]).
func (n *Node) Start(address Address, w Worker, opt Options) error {
	if err := address.checkChosen(); err != nil {
		return err
	}
	_, err := n.start(address, w, opt)
	return err
}

func (n *Node) start(address Address, w Worker, opt Options) (*worker, error) {
	if w == nil {
		return nil, fmt.Errorf("there is no worker to start at %s: it is nil", quoted(address))
	}
	opt.setDefaults()
	k := &worker{node: n, address: address, opt: opt, handler: w, box: newMailbox(opt.Mailbox, opt.MailboxBytes), ended: make(chan struct{})}
	k.box.over = n.ctx.Done()
	_, k.mourns = w.(LossHandler)
	if t, ok := w.(*tube); ok {
		k.room = t.room.account(Origin{})
	}
	k.self = &Self{worker: k, route: Route{address}}
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(n.ctx)
	if err := n.add(address, k); err != nil {
		k.cancel()
		return nil, err
	}
	if !n.run(func() { k.run(ctx) }) {
		k.cancel()
		n.remove(address, k)
		return nil, ErrClosed
	}
	return k, nil
}

// Stop ends what was started at address: by [Node.Start], [Node.StartHop],
// [Node.StartRelay] or [Node.ServeChannels]. It returns when a worker has handled the
// message it is at, which ctx bounds the wait for: the worker stops however that ends. Of
// what waits in its mailbox, which is lost, the senders hear. The address is free then.
//
// A worker that stops itself waits for nothing: it uses [Self.Stop]. The error is ctx's, or
// says that nothing runs there (a *[DeliveryError] with no_worker).
func (n *Node) Stop(ctx context.Context, address Address) error {
	switch p := n.lookup(address).(type) {
	case *worker:
		p.cancel()
		select {
		case <-p.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case *hop:
		n.remove(address, p)
		return nil
	}
	return failure(code.NoWorker, address, "there is nothing of that name to stop")
}

// run handles messages until the worker is stopped.
func (k *worker) run(ctx context.Context) {
	defer close(k.ended)
	defer k.cancel()
	why := failure(code.WorkerStopped, k.address, "the worker has stopped")
	var at *Message // that is handled now
	defer func() {  // when a handler ends its goroutine, too
		if e, ok := k.handler.(ender); ok {
			e.ended()
		}
		k.node.remove(k.address, k)
		if at != nil {
			k.node.tell(at, why)
		}
		for _, m := range k.box.close(why) {
			k.node.tell(m, why)
		}
	}()
	for {
		m, ok := k.box.take(ctx)
		if !ok || ctx.Err() != nil {
			if ok {
				k.node.tell(m, why)
			}
			break
		}
		at = m
		panicked, err := k.handle(ctx, m)
		at = nil
		if err != nil {
			k.node.tell(m, err)
		}
		if panicked {
			if end := k.again(); end != nil {
				why = end
				break
			}
		}
	}
}

// An ender is a worker of the node's own that has something to end with it.
type ender interface{ ended() }

// handle has m handled; an error is for its sender.
func (k *worker) handle(ctx context.Context, m *Message) (panicked bool, err *DeliveryError) {
	t := &turn{Context: ctx, worker: k}
	defer func() {
		t.over.Store(true)
		m.awaited.end() // who has m now may answer it, this worker's Handle does not
		if p := recover(); p != nil {
			k.panicked(p)
			panicked, err = true, failure(code.WorkerFailed, k.address, "the worker has panicked")
		}
	}()
	if m.kind == failed {
		if h, ok := k.handler.(LossHandler); ok {
			h.HandleLoss(t, k.self, decodeNotice(m.Body))
		}
		return false, nil
	}
	if herr := k.handler.Handle(t, k.self, m); herr != nil {
		err := asDelivery(herr, code.WorkerFailed, k.address)
		if err.At == "" { // what this node could not send further on
			err = &DeliveryError{err.Code, k.address, err.Reason}
		}
		return false, err
	}
	return false, nil
}

// panicked notes a panic with p. It is called while that is recovered from.
func (k *worker) panicked(p any) {
	k.panics = append(k.panics, time.Now())
	k.node.panicked(k.address, p)
}

// again sees to it that the worker goes on after a panic, or returns why it does not.
func (k *worker) again() (end *DeliveryError) {
	for time.Since(k.panics[0]) > time.Minute {
		k.panics = k.panics[1:]
	}
	if len(k.panics) > max(k.opt.Restarts, 0) {
		return failure(code.WorkerStopped, k.address, "the worker has panicked too often and does not go on")
	}
	if k.opt.Restart == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			k.panicked(p)
			end = failure(code.WorkerStopped, k.address, "the worker has panicked, and so has what was to make another one")
		}
	}()
	if k.handler = k.opt.Restart(); k.handler == nil {
		return failure(code.WorkerStopped, k.address, "the worker has panicked, and there is no other one")
	}
	return nil
}

// put puts m into the worker's mailbox. Where that, or what it asks for, would be waited
// for round a circle of workers, it says so. asks is nil where it asks for nothing.
func (k *worker) put(ctx context.Context, m *Message, asks *pending) error {
	if asks != nil {
		if by := turnOf(ctx, k.node); by != nil { // it waits until there is an answer
			m.awaited = &waiting{by: by, to: k}
			if !k.node.circles.wait(m.awaited) {
				return failure(code.Circle, k.address, "it waits, by way of others perhaps, for who asks it")
			}
			asks.awaited.Store(m.awaited)
		}
	}
	if ok, err := k.box.try(m); ok || err != nil {
		return err
	}
	by := turnOf(ctx, k.node)
	if by == nil || asks != nil {
		return k.box.put(ctx, m, nil)
	}
	w := &waiting{by: by, to: k}
	if !k.node.circles.wait(w) {
		return failure(code.Circle, k.address, "its mailbox is full, and it waits, by way of others perhaps, for the sender")
	}
	defer w.end()
	return k.box.put(ctx, m, w)
}
