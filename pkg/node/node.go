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
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A Config is what a node is made of. The zero value is a node without an identity,
// which reaches others and opens no channels.
type Config struct {
	// Local is the node's part in the handshakes of channels; see [channel.NewLocal].
	Local *channel.Local
	// Attributes returns what a peer's credentials prove now, in a map that nobody changes
	// any more; nil proves nothing. It is asked at each handshake: when a channel is opened,
	// when it has another path, and once an hour. What it says counts until then, or until
	// [Node.Recheck]. An error ends the channel.
	Attributes func(channel.Peer) (map[string]string, error)
	// Dial reaches transports' addresses; nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Transit says which messages from outside may be carried on to a transport's
	// address that stands in their route, where neither a hop of this node's ([Hop.To]) nor
	// a worker ([Self.ForwardTo]) has named it; nil refuses all.
	Transit func(from Origin, to Address) error
	// Patience bounds sends and requests that have no deadline, and how long a message of
	// more than a few KiB may wait for a full mailbox while others need its room; 0 means
	// 30 s.
	Patience time.Duration
	// Buffer is how many bytes of messages that are larger than a few KiB may be on
	// their way to workers of this node, of all conns together; 0 means 64 MiB, [MaxBody] is
	// the least. Whoever has proven no identity shares a half of it with all others of
	// that kind; nobody has more than a quarter, or MaxBody where that is more.
	Buffer int
	// MaxConns is how many conns of others are served at a time, of all listeners
	// together; 0 means 1,024. Others wait in the listeners' backlog; meanwhile one that
	// has said nothing for 2 s gives way.
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
// must not wait for anything, but for what LinkUp and LinkDown may.
type Trace struct {
	// Panicked has what the worker at address panicked with, and the stack; or a func that
	// says who may reach that address, or may do what at the node where it is empty: then
	// nobody may.
	Panicked func(address Address, value any, stack []byte)
	// LinkUp and LinkDown say that another node can be reached by a conn or a channel,
	// and why no more. Conns that take each other's place have one address: the end of one
	// is told before the next one is said to be up. Nothing that comes or goes waits for either:
	// LinkUp may be told when messages of the link were handled already. They may send and
	// ask, also by the next conn; what is not for within them is [Node.Close], and
	// [Channel.Close] of the channel that they are told of, both of which wait for them.
	LinkUp   func(address Address, from Origin, remote net.Addr)
	LinkDown func(address Address, err error)
	// Stalled says that a send or request of the worker at from, or of the node itself where
	// that is empty, has waited for room along onward for a second: for a mailbox, or a conn.
	// It goes on waiting, until its deadline. Workers of several nodes that wait so for each
	// other are seen by it only.
	Stalled func(from Address, onward Route)
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
	// Channels end before what they run over, with which they say farewell: first those
	// that run over other channels.
	tiers    [2]tier
	inbox    Route // of requests that no worker makes
	budget   *budget
	slots    chan struct{} // of MaxConns
	turns    turns.Turns   // of conns that have said nothing yet
	secret   [32]byte      // makes the names of series
	attempts atomic.Uint64 // to make conns

	circles circles
	words   words

	mu       sync.Mutex
	closed   bool
	table    map[Address]place
	dials    map[Address]*dialling
	pending  map[uint64]*pending
	channels map[*channel.Channel]*link
	series   map[[16]byte]*link // of conns that others have made
	running  sync.WaitGroup
}

// A tier is of channels that end at the same time.
type tier struct {
	ctx      context.Context
	stop     context.CancelFunc
	farewell sync.WaitGroup
}

// tier returns that of a channel whose way begins with l, nil where that is no link.
func (n *Node) tier(l *link) *tier {
	if l != nil && l.channel {
		return &n.tiers[0]
	}
	return &n.tiers[1]
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
	n := &Node{cfg: cfg, table: map[Address]place{}, dials: map[Address]*dialling{}, pending: map[uint64]*pending{}, channels: map[*channel.Channel]*link{}, series: map[[16]byte]*link{}}
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
	n.budget = newBudget(n.cfg.Buffer, n.cfg.Patience)
	_, _ = rand.Read(n.secret[:]) // never fails
	n.ctx, n.stop = context.WithCancel(context.Background())
	for i := range n.tiers {
		n.tiers[i].ctx, n.tiers[i].stop = context.WithCancel(n.ctx)
	}
	address := ownAddress("requests")
	n.inbox = Route{address}
	n.table[address] = inbox{}
	return n
}

// Local returns the node's part in handshakes, nil if it has no identity.
func (n *Node) Local() *channel.Local { return n.cfg.Local }

// Close ends all that runs on the node, and returns nil when it has: workers have handled
// the message that they are at, whose context ends; it is not for within Handle. Channels
// tell their other ends; that may take the channels' Linger where those do not answer.
// [Node.Serve] returns, too, for whoever waits for it. What is asked of the node from then
// on, or is under way, fails with [ErrClosed].
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	for i := range n.tiers {
		n.tiers[i].stop()
		n.tiers[i].farewell.Wait()
	}
	n.stop()
	n.running.Wait()
	n.budget.close()
	return nil
}

func (n *Node) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
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

// parting has f run, in which a channel of tier t does, unless the node is closed.
func (n *Node) parting(t *tier, f func()) bool {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return false
	}
	t.farewell.Add(1)
	n.mu.Unlock()
	defer t.farewell.Done()
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
	if f := n.trace.Stalled; f != nil {
		from, onward := Address(""), m.Onward
		if by != nil {
			from = by.address
		}
		defer time.AfterFunc(stallTime, func() { f(from, onward) }).Stop()
	}
	if _, err := n.deliver(ctx, m, by, true); err != nil {
		if n.isClosed() {
			return ErrClosed // what follows from that says less
		}
		return err
	}
	return nil
}

// stallTime is how long a send may wait before the trace is told.
const stallTime = time.Second

// deliver brings m to the place on this node that is next on its onward route, or on
// its way to another node, and reports whether it did: with wait, it waits until there
// is room for it there, else it does only what goes at once.
func (n *Node) deliver(ctx context.Context, m *Message, by *worker, wait bool) (bool, error) {
	to, m, err := n.resolve(m)
	if err != nil {
		return false, err
	}
	if a, ok := to.(Address); ok {
		l, err := n.transport(ctx, a, wait)
		if l == nil {
			return false, err
		}
		to = l
	}
	if _, away := to.(*link); !away && m.stream != nil {
		return false, failure(code.NoWorker, "", "the way of the message has changed while it came")
	}
	switch t := to.(type) {
	case nil:
		return true, nil
	case inbox:
		return n.answered(m)
	case *worker:
		asks := m.request
		m.request = nil // it leaves by no link, or the worker's
		if !wait {
			return t.box.try(m)
		}
		return true, timely(t.put(ctx, m, asks))
	case *link:
		if m.via != nil && len(m.Return) > 0 {
			m.via.reached.add(t)
		}
		switch {
		case !wait:
			return t.try(m)
		case m.request != nil:
			m.request.by = t
		}
		if by != nil {
			by.wrote.Store(true)
		}
		return true, timely(t.send(ctx, m))
	}
	return false, failure(code.Internal, m.Onward[0], "the address leads nowhere")
}

// timely says in our words that a wait has taken too long.
func timely(err error) error {
	var de *DeliveryError
	if !errors.As(err, &de) && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errPatience)) {
		return failure(code.Timeout, "", "the next hop has taken nothing in time: a mailbox is full there, or further on")
	}
	return err
}

// resolve follows m through this node's hops to what takes it: a *worker, a *link, an
// inbox, a transport's Address, or nil where nobody wants it. It returns m as it gets
// there. It changes nothing, and may be asked about a message that has only begun.
func (n *Node) resolve(m *Message) (to place, at *Message, err error) {
	for {
		if len(m.Onward) == 0 {
			return nil, m, failure(code.NoWorker, "", "the route ends before a worker")
		}
		next := m.Onward[0]
		if next.isTransport() {
			if err := n.transits(m, next); err != nil {
				return nil, m, err
			}
			return next, m.onTo(), m.leaves(next)
		}
		switch p := n.lookup(next).(type) {
		case inbox:
			return p, m, n.expected(m)
		case *worker:
			switch ends := len(m.Onward) == 1; {
			case m.kind == failed && !ends: // the worker has only forwarded what was lost
				if m, err = passed(m.onTo(), p.address, nil); err != nil {
					return nil, m, err
				}
				continue
			case m.id != 0 && m.kind != plain && ends: // of a request that the worker has made
				return inbox{}, m, n.expected(m)
			case m.kind == failed && !p.mourns:
				return nil, m, nil
			}
			return p, m.onTo(), p.admits(m)
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

// transits says why m may not go on to a transport's address.
func (n *Node) transits(m *Message, to Address) error {
	if !m.From.Outside || m.vouched > 0 {
		return nil
	}
	if n.cfg.Transit == nil {
		return failure(code.WorkerDenied, "", "this node carries nothing from outside on to %s", quoted(to))
	}
	return n.allowed(func(from Origin) error { return n.cfg.Transit(from, to) }, m.From, "")
}

// onTo returns m without the address that it has reached.
func (m *Message) onTo() *Message {
	n := *m
	n.Onward = m.Onward[1:]
	n.vouched = max(m.vouched, 1) - 1
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
	return k.node.allowed(k.opt.Allow, m.From, k.address)
}

// tell tells m's sender that it was lost.
func (n *Node) tell(m *Message, err *DeliveryError) {
	if f := n.trace.Lost; f != nil {
		f(err)
	}
	n.word(m, err)
}

// tellWithin is tell that waits, until s is over, where there is no room for the word.
func (n *Node) tellWithin(s *spell, m *Message, err *DeliveryError) {
	if f := n.trace.Lost; f != nil {
		f(err)
	}
	if word := m.lost(err); word != nil {
		s.deliver(word)
	}
}

// word is tell but for the trace.
func (n *Node) word(m *Message, err *DeliveryError) {
	word := m.lost(err)
	if word == nil {
		return
	}
	if told, err := n.deliver(n.ctx, word, nil, false); !told && err == nil {
		n.words.later(n, word)
	}
}

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// ownAddress returns an address of the node's own that nobody can guess.
func ownAddress(what string) Address {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return ownAddressOf(what, b)
}

// ownAddressOf returns the address of the node's own that b stands for.
func ownAddressOf(what string, b [16]byte) Address {
	return Address(own + what + "-" + strings.ToLower(encoding.EncodeToString(b[:])))
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}
