package node

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A Worker handles the messages that come to an address, one at a time and in
// order. An error of Handle is told to the message's sender: a [DeliveryError] as it is,
// another one as worker_failed with its text. The worker goes on. ctx ends when the worker
// is stopped; self may be kept and used by other goroutines, m is Handle's.
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
// that is known to be lost or, where a conn has ended, may be. From other nodes it is a
// hint, as good as the way that the message was sent along: whoever is on it can say
// such a thing.
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
	// bytes; 0 means 1 MiB. One message always has room.
	Mailbox, MailboxBytes int
	// Restart makes the worker that goes on after a panic; nil means that the same
	// one does.
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

	waits atomic.Pointer[worker] // whose mailbox its send waits for; the node's circles guards what is stored

	// The goroutine's.
	handler Worker
	panics  []time.Time // of the last minute
}

// Start runs w at address, until it or the node is stopped, or has panicked too
// often. The error says that the address is none, that something runs there (a
// *[DeliveryError] with replaced), or that the node is closed ([ErrClosed]).
func (n *Node) Start(address Address, w Worker, opt Options) error {
	if err := address.checkChosen(); err != nil {
		return err
	}
	_, err := n.start(address, w, opt)
	return err
}

func (n *Node) start(address Address, w Worker, opt Options) (*worker, error) {
	opt.setDefaults()
	k := &worker{node: n, address: address, opt: opt, handler: w, box: newMailbox(opt.Mailbox, opt.MailboxBytes), ended: make(chan struct{})}
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

// Stop stops the worker at address, and returns when it has handled the message it
// is at. What waits in its mailbox is lost, and the senders hear of it.
func (n *Node) Stop(address Address) error {
	k, ok := n.lookup(address).(*worker)
	if !ok {
		return failure(code.NoWorker, address, "there is no worker of that name to stop")
	}
	k.cancel()
	<-k.ended
	return nil
}

// run handles messages until the worker is stopped.
func (k *worker) run(ctx context.Context) {
	defer close(k.ended)
	defer k.cancel()
	why := failure(code.WorkerStopped, k.address, "the worker has stopped")
	var at *Message // that is handled now
	defer func() {  // when a handler ends its goroutine, too
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
		err := k.handle(ctx, m)
		at = nil
		if err != nil {
			k.node.tell(m, err)
			if k.tooOften() {
				why = failure(code.WorkerStopped, k.address, "the worker has panicked too often and does not go on")
				break
			}
		}
	}
}

// handle has m handled; an error is for its sender.
func (k *worker) handle(ctx context.Context, m *Message) (err *DeliveryError) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		err = failure(code.WorkerFailed, k.address, "the worker has panicked")
		k.panics = append(k.panics, time.Now())
		if f := k.node.trace.WorkerPanicked; f != nil {
			f(k.address, p, debug.Stack())
		}
		if k.opt.Restart != nil {
			k.handler = k.opt.Restart()
		}
	}()
	if m.kind == failed {
		if h, ok := k.handler.(LossHandler); ok {
			h.HandleLoss(ctx, k.self, decodeNotice(m.Body))
		}
		return nil
	}
	if herr := k.handler.Handle(ctx, k.self, m); herr != nil {
		return asDelivery(herr, code.WorkerFailed, k.address)
	}
	return nil
}

// tooOften reports whether the worker has panicked more often than it may.
func (k *worker) tooOften() bool {
	for len(k.panics) > 0 && time.Since(k.panics[0]) > time.Minute {
		k.panics = k.panics[1:]
	}
	return len(k.panics) > max(k.opt.Restarts, 0)
}

// put puts m into the worker's mailbox. by is the worker that sends, nil where it is
// none.
func (k *worker) put(ctx context.Context, m *Message, by *worker) error {
	if ok, err := k.box.try(m); ok || err != nil {
		return err
	}
	if by == nil {
		return k.box.put(ctx, m, nil)
	}
	if !k.node.circles.wait(by, k) {
		return failure(code.Circle, k.address, "its mailbox is full, and it waits, by way of others, for the sender")
	}
	defer by.waits.Store(nil)
	return k.box.put(ctx, m, by)
}

// circles finds workers that would wait for each other for ever.
type circles struct{ mu sync.Mutex }

// wait notes that by waits for k, unless k waits for by.
func (c *circles) wait(by, k *worker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := k; w != nil; w = w.waits.Load() {
		if w == by {
			return false
		}
	}
	by.waits.Store(k)
	return true
}
