package node

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A Config is what a node is made of. The zero value is a node without an identity,
// which reaches others and opens no channels.
type Config struct {
	// Local is the node's part in the handshakes of channels; see [channel.NewLocal].
	Local *channel.Local
	// Attributes returns what a peer's credentials prove now; nil proves nothing. An
	// error ends the channel.
	Attributes func(channel.Peer) (map[string]string, error)
	// Dial reaches transports' addresses; nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Transit says which messages from outside may be carried on to a transport's
	// address that stands in their route, where neither a hop of this node's ([Hop.To]) nor
	// a worker ([Self.ForwardTo]) has named it; nil refuses all.
	Transit func(from Origin, to Address) error
	// Patience bounds sends and requests that have no deadline; 0 means 30 s.
	Patience time.Duration
	// Buffer is how many bytes of messages that are larger than a few KiB may be on
	// their way into this node, of all conns together; 0 means 64 MiB, [MaxBody] is the
	// least.
	Buffer int
	// MaxConns is how many conns of others are served at a time, of all listeners
	// together; 0 means 1,024. Others wait in the listeners' backlog.
	MaxConns int
	// Keepalive is how long a conn of a transport may be silent before it is asked for
	// a sign of life; after twice that it has ended. 0 means 5 s.
	Keepalive time.Duration
	// Channel are the settings of the node's channels.
	Channel channel.Settings
	// Trace is told what happens; nil means nobody is.
	Trace *Trace
}

// A Trace is told what happens on a node, by funcs of which any may be nil. They
// must not block.
type Trace struct {
	// WorkerPanicked has what a worker panicked with, and the stack.
	WorkerPanicked func(address Address, value any, stack []byte)
	// LinkUp and LinkDown say that another node can be reached by a conn or a channel,
	// and why no more.
	LinkUp   func(address Address, from Origin, remote net.Addr)
	LinkDown func(address Address, err error)
	// Lost is told of messages that were not delivered here.
	Lost func(err *DeliveryError)
}

// A Node runs workers and carries messages. It is made by [New]; all its methods
// may be called concurrently.
type Node struct {
	cfg   Config
	trace Trace
	ctx   context.Context // ends with the node
	stop  context.CancelFunc
	// What channels run by ends first: they say farewell over what ends after them.
	channelCtx  context.Context
	stopChannel context.CancelFunc
	inbox       Route // of requests that no worker makes
	budget      *budget
	slots       chan struct{} // of MaxConns

	circles circles

	mu       sync.Mutex
	closed   bool
	table    map[Address]place
	dials    map[Address]*dialling
	pending  map[uint64]*pending
	channels map[*channel.Channel]*link
	running  sync.WaitGroup
	farewell sync.WaitGroup // of channels
}

// A place is what an address of the node leads to: a *worker, *hop, *forwarder,
// *link or inbox.
type place any

// A leader is a place that messages pass: a hop, or a relay's name.
type leader interface {
	// lead returns m as it goes on.
	lead(m *Message) (*Message, error)
}

// inbox is the place of the node's own requests.
type inbox struct{}

// New returns a node on which nothing runs. It is to be closed.
func New(cfg Config) *Node {
	n := &Node{cfg: cfg, table: map[Address]place{}, dials: map[Address]*dialling{}, pending: map[uint64]*pending{}, channels: map[*channel.Channel]*link{}}
	if cfg.Trace != nil {
		n.trace = *cfg.Trace
	}
	if n.cfg.Patience <= 0 {
		n.cfg.Patience = 30 * time.Second
	}
	if n.cfg.Keepalive <= 0 {
		n.cfg.Keepalive = 5 * time.Second
	}
	if n.cfg.Buffer <= 0 {
		n.cfg.Buffer = 64 << 20
	}
	if n.cfg.MaxConns <= 0 {
		n.cfg.MaxConns = 1024
	}
	n.slots = make(chan struct{}, n.cfg.MaxConns)
	if n.cfg.Dial == nil {
		n.cfg.Dial = new(net.Dialer).DialContext
	}
	n.budget = newBudget(n.cfg.Buffer)
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.channelCtx, n.stopChannel = context.WithCancel(n.ctx)
	address := ownAddress("requests")
	n.inbox = Route{address}
	n.table[address] = inbox{}
	return n
}

// Local returns the node's part in handshakes, nil if it has no identity.
func (n *Node) Local() *channel.Local { return n.cfg.Local }

// Close ends all that runs on the node, and returns when it has. Channels tell their
// other ends; that may take the channels' Linger where those do not answer.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.stopChannel()
	n.farewell.Wait()
	n.stop()
	n.running.Wait()
	return nil
}

// run has f run on a goroutine that Close waits for, unless the node is closed.
func (n *Node) run(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.running.Go(f)
	return true
}

// parting has f run, in which a channel does, unless the node is closed.
func (n *Node) parting(f func()) bool {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return false
	}
	n.farewell.Add(1)
	n.mu.Unlock()
	defer n.farewell.Done()
	f()
	return true
}

func (n *Node) add(a Address, p place) error { return n.replace(a, nil, p) }

// replace puts p in the place of old at a, at once.
func (n *Node) replace(a Address, old, p place) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return ErrClosed
	case n.table[a] != old:
		return failure(code.Replaced, a, "the address is taken")
	}
	n.table[a] = p
	return nil
}

// remove takes p away from a, if it is what is there.
func (n *Node) remove(a Address, p place) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.table[a] == p {
		delete(n.table, a)
	}
}

func (n *Node) lookup(a Address) place {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.table[a]
}

// send checks what a program has made and delivers it.
func (n *Node) send(ctx context.Context, m *Message, by *worker) error {
	if err := m.Onward.Check(); err != nil {
		return failure(code.Protocol, "", "%s", err)
	}
	if err := checkBody(m.Body); err != nil {
		return err
	}
	return n.deliver(ctx, m, by)
}

// deliver brings m to the place on this node that is next on its onward route, or on
// its way to another node. It waits until there is room for it there.
func (n *Node) deliver(ctx context.Context, m *Message, by *worker) error {
	target, m, err := n.find(ctx, m)
	if err != nil {
		return err
	}
	switch t := target.(type) {
	case nil: // somebody has waited for it
		return nil
	case *worker:
		return timely(t.put(ctx, m, by))
	case *link:
		m.shown(t)
		if by != nil {
			by.wrote.Store(true)
		}
		return timely(t.send(ctx, m))
	}
	return failure(code.Internal, m.Onward[0], "the address leads nowhere")
}

// offer is deliver that does not wait: false says that it would have to.
func (n *Node) offer(m *Message) (bool, error) {
	if len(m.Onward) > 0 && m.Onward[0].isTransport() {
		return false, nil // the conn may have to be made first
	}
	target, m, err := n.find(n.ctx, m)
	if err != nil {
		return false, err
	}
	switch t := target.(type) {
	case nil:
		return true, nil
	case *worker:
		return t.box.try(m)
	case *link:
		m.shown(t)
		return t.try(m)
	}
	return false, failure(code.Internal, m.Onward[0], "the address leads nowhere")
}

// shown notes that l's other side sees the conn that m has come by, where it does.
func (m *Message) shown(l *link) {
	if m.via != nil && len(m.Return) > 0 {
		m.via.reached.add(l)
	}
}

// timely says in our words that a wait has taken too long.
func timely(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errPatience) {
		return failure(code.Timeout, "", "the next hop takes no more messages")
	}
	return err
}

// find follows m through this node's hops to the worker or link that takes it, and
// returns m as it gets there. A nil target has got it already.
func (n *Node) find(ctx context.Context, m *Message) (target place, at *Message, err error) {
	for {
		if len(m.Onward) == 0 {
			return nil, m, failure(code.NoWorker, "", "the route ends before a worker")
		}
		next := m.Onward[0]
		if next.isTransport() {
			l, err := n.transport(ctx, m, next)
			if err != nil {
				return nil, m, err
			}
			return l, m.onTo(), m.leaves(next)
		}
		switch p := n.lookup(next).(type) {
		case inbox:
			if !n.answered(m) {
				return nil, m, failure(code.NoWorker, next, "nobody waits for this answer any more")
			}
			return nil, m, nil
		case *worker:
			switch ends := len(m.Onward) == 1; {
			case m.kind == failed && !ends: // the worker has only forwarded what was lost
				if m, err = passed(m.onTo(), p.address, nil); err != nil {
					return nil, m, err
				}
				continue
			case m.id != 0 && m.kind != plain && ends: // of a request that the worker has made
				if !n.answered(m) {
					return nil, m, failure(code.NoWorker, next, "nobody waits for this answer any more")
				}
				return nil, m, nil
			case m.kind == failed && !p.mourns:
				return nil, m, nil
			}
			if err := p.admits(m); err != nil {
				return nil, m, err
			}
			return p, m.onTo(), nil
		case *link:
			// What it says may be an answer: the other side decides, and hears that it was
			// carried.
			if m.From.Outside && m.vouched == 0 && !p.reached.by(m.via) {
				return nil, m, failure(code.WorkerDenied, "", "this node carries nothing on to where its sender has had no message from")
			}
			return p, m.onTo(), m.leaves(next)
		case leader:
			if m, err = p.lead(m); err != nil {
				return nil, m, err
			}
		default:
			return nil, m, failure(code.NoWorker, next, "there is no worker of that name")
		}
	}
}

// onTo returns m without the address that it has reached.
func (m *Message) onTo() *Message {
	n := *m
	n.Onward = m.Onward[1:]
	n.vouched = max(m.vouched-1, 0)
	return &n
}

// leaves says why m cannot leave the node by the link at address: the other side would
// end the conn, which others share.
func (m *Message) leaves(at Address) error {
	switch {
	case len(m.Onward) == 1:
		return failure(code.NoWorker, "", "the route ends before a worker")
	case m.hops == 0:
		return failure(code.TooManyHops, at, "the message has passed %d hops", maxHops)
	case len(m.Return) >= MaxRoute: // the link's address comes before it
		return failure(code.TooManyHops, at, "the return route of the message would have more than %d addresses", MaxRoute)
	}
	return nil
}

// admits says why m may not reach the worker. Word of a loss is a hint, which whoever
// is on a way can give to who has sent something.
func (k *worker) admits(m *Message) error {
	if !m.From.Outside || m.kind == failed && k.wrote.Load() {
		return nil
	}
	return allowed(k.opt.Allow, m.From, k.address)
}

func allowed(allow func(Origin) error, from Origin, at Address) error {
	if allow == nil {
		return failure(code.WorkerDenied, at, "nothing from outside may reach this address")
	}
	if err := allow(from); err != nil {
		return failure(code.WorkerDenied, at, "%s", bounded(err.Error()))
	}
	return nil
}

// tell tells m's sender that it was lost.
func (n *Node) tell(m *Message, err *DeliveryError) {
	if f := n.trace.Lost; f != nil {
		f(err)
	}
	word := m.lost(err)
	if word == nil {
		return
	}
	// As far as that goes without waiting: who sends much and reads nothing is told
	// of what there is room for.
	_, _ = n.offer(word)
}

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// ownAddress returns an address of the node's own that nobody can guess.
func ownAddress(what string) Address {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return Address(own + what + "-" + strings.ToLower(encoding.EncodeToString(b[:])))
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}
