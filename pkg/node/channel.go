package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Channel is an end-to-end channel to another node, through whatever lies between.
// It outlives the ways that it takes: while there is none, what is sent waits.
type Channel struct {
	link *link
	ch   *channel.Channel
	over chan struct{}
	err  error // why it is over
}

// OpenChannel opens a channel to the node that serves channels at the end of onward
// and proves to be peer. It lasts until it is closed, or has been without a way for
// longer than its Grace (60 s, of [Config.Channel]). ctx bounds the call; without a
// deadline it gets one of [Config.Patience]. The error wraps what [channel.Caller] says,
// a *[channel.RefusedError] where the peer does not want the channel, or the
// *[DeliveryError] of the way.
func (n *Node) OpenChannel(ctx context.Context, onward Route, peer identity.Identifier) (*Channel, error) {
	if err := n.canChannel(); err != nil {
		return nil, err
	}
	if err := onward.Check(); err != nil {
		return nil, err
	}
	if n.isClosed() {
		return nil, ErrClosed
	}
	ctx, cancel := n.patient(ctx)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(n.tiers[0].ctx, func() { end(ErrClosed) })() // which ends first
	caller := &channel.Caller{
		Local: n.cfg.Local, Peer: peer, Routes: 1, Settings: n.channelSettings(),
		Path: func(_ context.Context, _ int, _ *channel.Instance, address int) (net.Conn, error) {
			if address > 0 {
				return nil, channel.ErrNoAddress
			}
			return n.path(onward)
		},
	}
	ch, err := caller.Dial(ctx, 0)
	if err != nil {
		if n.isClosed() {
			return nil, ErrClosed
		}
		return nil, fmt.Errorf("opening a channel over %s: %w", onward, err)
	}
	from, err := n.originOf(ch.Peer())
	if err != nil {
		ch.Fail(code.ChannelDenied, err)
		return nil, err
	}
	first, _ := n.lookup(onward[0]).(*link)
	t := n.tier(first)
	c := &Channel{link: n.newChannelLink(t, ch, from), ch: ch, over: make(chan struct{})}
	up := make(chan struct{})
	if !n.run(func() {
		defer close(c.over)
		c.err = n.runChannel(t, ch, c.link, func() { close(up) })
	}) {
		ch.Fail(code.Shutdown, ErrClosed)
		return nil, ErrClosed
	}
	select {
	case <-up:
		return c, nil
	case <-c.over:
		return nil, fmt.Errorf("opening a channel over %s: %w", onward, c.err)
	case <-ctx.Done():
		c.link.close(context.Cause(ctx))
		return nil, context.Cause(ctx)
	}
}

// Address returns what stands for the channel in routes: what follows it is on the
// other end's node.
func (c *Channel) Address() Address { return c.link.address }

// Peer returns who holds the other end.
func (c *Channel) Peer() channel.Peer { return c.ch.Peer() }

// Done is closed when the channel is over; Err says then why.
func (c *Channel) Done() <-chan struct{} { return c.over }

// Err returns why the channel is over, nil before that; after Close, too, there is an
// error.
func (c *Channel) Err() error {
	select {
	case <-c.over:
		return c.err
	default:
		return nil
	}
}

// Close ends the channel, and returns when it has ended: when the other end has what
// was sent, or after Linger (2 s, unless [Config.Channel] says another). It returns nil.
func (c *Channel) Close() error {
	c.link.close(errLinkClosed)
	<-c.over
	return nil
}

func (n *Node) canChannel() error {
	if n.cfg.Local == nil {
		return errors.New("a node without an identity (Config.Local) has no channels")
	}
	return nil
}

// channelSettings are Config.Channel, with the node told of new handshakes.
func (n *Node) channelSettings() channel.Settings {
	set := n.cfg.Channel
	if set.Linger == 0 {
		set.Linger = 2 * time.Second
	}
	var trace channel.Trace
	if set.Trace != nil {
		trace = *set.Trace
	}
	moved := trace.Moved
	trace.Moved = func(c *channel.Channel, m channel.Move) {
		n.shown(c)
		if moved != nil {
			moved(c, m)
		}
	}
	set.Trace = &trace
	return set
}

// originOf returns what is known of messages that come from peer.
func (n *Node) originOf(peer channel.Peer) (Origin, error) {
	o := Origin{Outside: true, Peer: &peer}
	if n.cfg.Attributes == nil {
		return o, nil
	}
	err := n.ask("", func() (err error) {
		o.Attributes, err = n.cfg.Attributes(peer)
		return err
	})
	return o, err
}

// shown takes what the peer has shown in another handshake.
func (n *Node) shown(c *channel.Channel) {
	n.mu.Lock()
	l := n.channels[c]
	n.mu.Unlock()
	if l == nil {
		return
	}
	from, err := n.originOf(c.Peer())
	if err != nil {
		l.close(err)
		return
	}
	l.from.Store(&from)
}

// Recheck asks [Config.Attributes] again about the peer of each channel that there is, and
// ends those that it has an error for. A program calls it when what is proven may have
// changed since the channel's last handshake, which was up to an hour ago: when a
// revocation list has come, and every few seconds where credentials end.
func (n *Node) Recheck() {
	n.mu.Lock()
	channels := slices.Collect(maps.Keys(n.channels))
	n.mu.Unlock()
	for _, c := range channels {
		n.shown(c)
	}
}

// newChannelLink returns a link over ch, of tier t.
func (n *Node) newChannelLink(t *tier, ch *channel.Channel, from Origin) *link {
	l := n.newLink(t.ctx, ch, "channel", from, 0)
	l.channel = true
	return l
}

// runChannel runs l on ch, of tier t, until either is over, and returns why.
func (n *Node) runChannel(t *tier, ch *channel.Channel, l *link, ready func()) (err error) {
	if !n.parting(t, func() { err = n.keepChannel(ch, l, ready) }) {
		ch.Fail(code.Shutdown, ErrClosed)
		return ErrClosed
	}
	return err
}

func (n *Node) keepChannel(ch *channel.Channel, l *link, ready func()) error {
	n.mu.Lock()
	n.channels[ch] = l
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.channels, ch)
		n.mu.Unlock()
	}()
	keep, stop := context.WithCancel(context.WithoutCancel(n.ctx))
	defer stop()
	var keeping sync.WaitGroup
	keeping.Go(func() { _ = ch.Run(keep) }) // the link says why it has ended
	err := n.runLink(l, anybody, ready)
	l.tellDown()
	stop()
	keeping.Wait()
	return err
}

// path makes a way to who serves channels at the end of onward.
func (n *Node) path(onward Route) (net.Conn, error) {
	t, far, err := n.newTube()
	if err != nil {
		return nil, err
	}
	t.onward = onward
	if !n.run(func() { t.pump(n.ctx, tubeOpen) }) {
		_ = far.Close()
		return nil, ErrClosed
	}
	return far, nil
}

// Bounds of what strangers can begin.
const (
	maxHandshakes = 256
	maxChannels   = 10_000
)

// A server accepts channels at an address.
type server struct {
	node    *Node
	address Address
	allow   func(channel.Peer) error
	table   *channel.Table
	hands   chan struct{} // a slot for each handshake
	turns   turns.Turns   // of those
	slots   chan struct{} // for each path
}

// ServeChannels accepts channels at address, from peers that allow lets in; its error is
// what others hear. A nil allow lets in nobody. After [Node.Stop] no new ones are
// accepted, and those that there are get no other path. The error is as of [Node.Start],
// or says that the node has no identity.
func (n *Node) ServeChannels(address Address, allow func(channel.Peer) error) error {
	if err := n.canChannel(); err != nil {
		return err
	}
	s := &server{
		node: n, address: address, allow: allow, table: channel.NewTable(n.channelSettings(), channel.Limits{}),
		hands: make(chan struct{}, maxHandshakes), slots: make(chan struct{}, maxChannels),
	}
	return n.Start(address, s, Options{Allow: Anyone}) // who they are, a handshake says
}

// Handle begins a path for whoever has sent m. While there is no place for another
// handshake it waits, and the oldest gives way: who opens one and says nothing holds
// nobody up for long.
func (s *server) Handle(ctx context.Context, _ *Self, m *Message) error {
	if len(m.Body) < tubeHead || m.Body[0] != tubeOpen {
		return errors.New("this address serves channels: open one")
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return failure(code.Busy, "", "%d channels are under way here, as many as may be", maxChannels)
	}
	if !s.turns.Take(ctx, s.hands) {
		<-s.slots
		return ErrClosed
	}
	t, far, err := s.node.newTube()
	if err != nil {
		<-s.hands
		<-s.slots
		return err
	}
	if s.node.run(func() { s.serve(t, far, m) }) {
		return nil
	}
	_ = far.Close()
	<-s.hands
	<-s.slots
	return ErrClosed
}

// serve carries a path, and the channel if the path begins one.
func (s *server) serve(t *tube, far net.Conn, m *Message) {
	defer func() { <-s.slots }()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { t.pump(s.node.ctx, tubeData) })
	_ = t.self.worker.box.put(s.node.ctx, m, nil) // which is empty
	turn, done := s.turns.Begin(s.node.ctx)
	in, err := channel.Respond(turn, far, s.node.cfg.Local, channel.PurposeChannel, s.node.cfg.Channel.Handshake)
	done()
	<-s.hands
	if err != nil {
		return // who calls hears nothing before it has proven something
	}
	if in.Resumes() {
		_, _ = s.table.Resume(in, "") // the peer was told
		return
	}
	if err := s.denied(in.Peer()); err != nil {
		_ = in.Refuse(code.ChannelDenied, bounded(err.Error()))
		return
	}
	from, err := s.node.originOf(in.Peer())
	if err != nil {
		_ = in.Refuse(code.ChannelDenied, bounded(err.Error()))
		return
	}
	ch, err := s.table.Open(in, "")
	if err != nil {
		return // the peer was told
	}
	over := s.node.tier(m.via)
	_ = s.node.runChannel(over, ch, s.node.newChannelLink(over, ch, from), func() {})
}

func (s *server) denied(p channel.Peer) error {
	if s.allow == nil {
		return errors.New("nobody may open channels here")
	}
	return s.node.ask(s.address, func() error { return s.allow(p) })
}
