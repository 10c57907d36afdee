package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/code"
)

// Times of registrations: each is renewed thrice before it ends.
const (
	renewEvery = 10 * time.Second
	lease      = 3*renewEvery + renewEvery/2
)

// maxRegistrations bounds the names of one relay.
const maxRegistrations = 1 << 16

// A Relay lets nodes that nobody can dial be reached by names: they register, by a
// conn or channel of their own, and messages to the name go there. The zero Relay
// serves peers of channels, under their identifiers, to this node alone.
type Relay struct {
	// Register says who may have which name; nil lets peers have their identifiers,
	// which the channel that they register by has proven.
	Register func(from Origin, name Address) error
	// Allow says which messages from other nodes go to such names; nil means none. The
	// node behind a name asks its own workers' Allow beside that.
	Allow func(Origin) error
}

// A registering is what a node sends to a relay.
type registering struct {
	Name  string `cbor:"1,keyasint"`
	Entry string `cbor:"2,keyasint"` // where on that node the messages go on
	End   bool   `cbor:"3,keyasint,omitempty"`
}

// maxRegistering is how many bytes that has at most: two addresses, and what is around.
const maxRegistering = 2*(MaxAddress+4) + 8

// StartRelay makes r serve registrations at address, until [Node.Stop], with which the
// names end, too. There are up to 65,536 of them: one more is refused, and none of those
// there are gives way. The error is as of [Node.Start].
func (n *Node) StartRelay(address Address, r Relay) error {
	s := &relay{Relay: r, node: n, names: map[Address]*forwarder{}}
	return n.Start(address, s, Options{Allow: Anyone, Mailbox: 1024}) // Register decides
}

// A relay is the worker that takes registrations.
type relay struct {
	Relay
	node *Node

	mu    sync.Mutex
	names map[Address]*forwarder
}

// A forwarder is the place of a registered name.
type forwarder struct {
	relay   *relay
	address Address
	owner   string // who may renew it
	to      Route
	via     *link
	timer   *time.Timer
	unhook  func() bool
}

// lead returns m as it goes on. A name leads one way, so it is not on the return
// route: what comes back goes on by the links.
func (f *forwarder) lead(m *Message) (*Message, error) {
	if m.From.Outside { // also what says to be an answer: none goes this way
		if err := f.relay.node.allowed(f.relay.Allow, m.From, f.address); err != nil {
			return nil, err
		}
	}
	return passed(m.onTo(), "", f.to)
}

// Handle takes a registration, its renewal or its end.
func (r *relay) Handle(ctx context.Context, self *Self, m *Message) error {
	var g registering
	if len(m.Body) > maxRegistering {
		return fmt.Errorf("this is no registration: it has %d bytes", len(m.Body))
	}
	if err := canon.Unmarshal(m.Body, &g); err != nil {
		return fmt.Errorf("this is no registration: %w", err)
	}
	name, entry := Address(g.Name), Address(g.Entry)
	if err := errors.Join(name.checkChosen(), entry.Check()); err != nil {
		return err
	}
	if entry.isTransport() || len(m.Return) == 0 {
		return errors.New("a registration says where on its node messages go on, and has a way back")
	}
	if err := r.node.ask(self.Address(), func() error { return r.may(m.From, name) }); err != nil {
		return failure(code.RegisterDenied, self.Address(), "%s", bounded(err.Error()))
	}
	if err := r.register(m, name, entry, g.End); err != nil {
		return err
	}
	return self.Reply(ctx, m, nil)
}

func (r *relay) may(from Origin, name Address) error {
	if r.Register != nil {
		return r.Register(from, name)
	}
	if err := speaks(from); err != nil {
		return err
	}
	if string(name) != from.Peer.Identifier.String() {
		return fmt.Errorf("%s may register under its own identifier only", from.Peer.Identifier)
	}
	return nil
}

// ownerOf says whose registration another one may take the place of.
func ownerOf(m *Message) string {
	if m.From.Peer != nil && !m.From.Carried {
		return m.From.Peer.Identifier.String()
	}
	if m.via != nil {
		return string(m.via.address)
	}
	return ""
}

func (r *relay) register(m *Message, name, entry Address, end bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.names[name]
	switch {
	case old != nil && old.owner != ownerOf(m):
		return failure(code.Replaced, name, "somebody else is registered under that name")
	case old == nil && len(r.names) >= maxRegistrations:
		return failure(code.Limit, name, "there are %d registrations already", maxRegistrations)
	}
	if end {
		if old != nil {
			r.endLocked(old)
		}
		return nil
	}
	back := m.Return
	f := &forwarder{relay: r, address: name, owner: ownerOf(m), to: back[:len(back)-1].Then(entry), via: m.via}
	var before place
	if old != nil {
		before = old
	}
	if err := r.node.replace(name, before, f); err != nil {
		return err
	}
	if old != nil {
		r.endLocked(old)
	}
	r.names[name] = f
	f.timer = time.AfterFunc(lease, func() { r.end(f) })
	f.unhook = func() bool { return true }
	if f.via != nil {
		f.unhook = context.AfterFunc(f.via.ctx, func() { r.end(f) })
	}
	return nil
}

func (r *relay) end(f *forwarder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[f.address] == f {
		r.endLocked(f)
	}
}

// ended ends all names, when the relay has stopped.
func (r *relay) ended() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.names {
		r.endLocked(f)
	}
}

func (r *relay) endLocked(f *forwarder) {
	f.timer.Stop()
	f.unhook()
	delete(r.names, f.address)
	r.node.remove(f.address, f)
}

// A Registration keeps a name at a relay.
type Registration struct {
	stop context.CancelFunc
	over chan struct{}
	err  error
}

// Register registers this node under name at the relay that is at the end of onward,
// and keeps it so until the registration is closed, over losses of the way there, after
// which somebody else may have the name: then it tries until they have let go. Where onward
// begins with a channel, it ends with that.
// Messages to the name come to the addresses of this node that follow it on their
// routes. ctx bounds the first attempt, whose error it is when that fails: a
// *[DeliveryError] with register_denied where the relay does not let this node have the
// name, with replaced where somebody else has it.
func (n *Node) Register(ctx context.Context, onward Route, name Address) (*Registration, error) {
	if err := name.checkChosen(); err != nil {
		return nil, err
	}
	entry := ownAddress("registered")
	h := &hop{Hop{Allow: Anyone}, n, entry} // the places behind it decide
	if err := n.add(entry, h); err != nil {
		return nil, err
	}
	ask := func(ctx context.Context, end bool) (*link, error) {
		body, err := canon.Marshal(registering{string(name), string(entry), end})
		if err != nil {
			return nil, err
		}
		m, err := n.Request(ctx, onward, body)
		if err != nil {
			return nil, err
		}
		return m.via, nil
	}
	via, err := ask(ctx, false)
	if err != nil {
		n.remove(entry, h)
		return nil, fmt.Errorf("registering %s at %s: %w", quoted(name), onward, err)
	}
	r := &Registration{over: make(chan struct{})}
	keep, stop := context.WithCancel(n.ctx)
	r.stop = stop
	if !n.run(func() {
		defer close(r.over)
		defer n.remove(entry, h)
		r.err = keepRegistered(keep, via, ask, func() bool {
			return strings.HasPrefix(string(onward[0]), own) && n.lookup(onward[0]) == nil
		})
	}) {
		stop()
		n.remove(entry, h)
		return nil, ErrClosed
	}
	return r, nil
}

// keepRegistered renews until ctx ends, the relay refuses, or the channel to it is gone
// for good.
func keepRegistered(ctx context.Context, via *link, ask func(ctx context.Context, end bool) (*link, error), gone func() bool) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, time.Second
	for {
		lost := make(<-chan struct{})
		if via != nil {
			lost = via.ctx.Done()
		}
		select {
		case <-lost: // the relay has forgotten the name
		case <-time.After(renewEvery):
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_, _ = ask(last, true) // it ends by itself, too
			return nil
		}
		for pause.Reset(); ; {
			try, cancel := context.WithTimeout(ctx, renewEvery)
			l, err := ask(try, false)
			cancel()
			var de *DeliveryError
			if errors.As(err, &de) && de.Code == code.RegisterDenied {
				return err
			}
			if err == nil || ctx.Err() != nil {
				via = l
				break
			}
			if gone() {
				return err
			}
			wait.Sleep(ctx, pause.NextBackOff())
		}
	}
}

// Done is closed when the registration is over; Err says then why, nil after Close.
func (r *Registration) Done() <-chan struct{} { return r.over }

// Err returns why the registration is over, nil before that.
func (r *Registration) Err() error {
	select {
	case <-r.over:
		return r.err
	default:
		return nil
	}
}

// Close ends the registration, and tells the relay.
func (r *Registration) Close() error {
	r.stop()
	<-r.over
	return nil
}
