package channel

import (
	"container/list"
	"errors"
	"fmt"
	"sync"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Limits bound the channels that a [Table] keeps without a path. Zero means
// the default. Beyond them, and when together they hold more than half of the
// [Buffers], the one that has been without for longest ends.
type Limits struct {
	Detached            int // in all; 1,024
	DetachedPerInstance int // of one peer process; 16
}

// A Table is the responder's side of channels: it opens new ones, and gives
// those that exist their next path. It is safe for concurrent use.
type Table struct {
	set    Settings
	limits Limits

	// mu may be taken with a channel's mu held, not the other way round.
	mu       sync.Mutex
	channels map[tableKey]*Channel
	waiting  *list.List // of *Channel, those without a path, the oldest first
	places   map[*Channel]*list.Element
	held     int64              // bytes that those have held when they lost their path
	perPeer  map[processKey]int // of waiting
}

// A processKey names a process: its instance alone is no more than its claim.
type processKey struct {
	peer     identity.Identifier
	instance Instance
}

func processOf(c *Channel) processKey { return processKey{c.identifier, c.instance} }

// A tableKey is what a channel is found by: a stranger who knows its name
// finds nothing.
type tableKey struct {
	peer     identity.Identifier
	instance Instance
	id       ID
}

// NewTable returns a Table whose channels have those settings.
func NewTable(set Settings, limits Limits) *Table {
	if limits.Detached <= 0 {
		limits.Detached = 1024
	}
	if limits.DetachedPerInstance <= 0 {
		limits.DetachedPerInstance = 16
	}
	return &Table{
		set: set.withDefaults(), limits: limits, channels: map[tableKey]*Channel{},
		waiting: list.New(), places: map[*Channel]*list.Element{}, perPeer: map[processKey]int{},
	}
}

func keyOf(in *Incoming) tableKey {
	p := in.conn.peer
	return tableKey{p.Identifier, p.Instance, ID(in.channel.ID)}
}

// Open accepts a new channel: the path is via, for the State. Channels of
// another instance of the same identity and name, which is not "", end: that
// process is no more. An error has been told to the peer, and in is closed.
func (t *Table) Open(in *Incoming, via string) (*Channel, error) {
	if in.Resumes() {
		return nil, in.refused(&RefusedError{Code: code.Protocol, Reason: "a channel that is to go on is not new"})
	}
	p := in.conn
	c := newChannel(ID(in.channel.ID), t.set, p.peer)
	c.table, c.via, c.window, c.peerAddr = t, via, min(in.channel.Window, maxWindow), in.peerAddr()
	c.mu.Lock() // a Resume that finds c waits until it has its first path
	replaced, ok := t.add(keyOf(in), c)
	if !ok {
		c.mu.Unlock()
		return nil, in.refused(&RefusedError{Code: code.Protocol, Reason: "there is a channel of that name already"})
	}
	c.attachLocked(p, 0, Move{})
	c.mu.Unlock()
	c.started(p)
	for _, old := range replaced {
		old.Fail(code.Replaced, fmt.Errorf("another instance of %s has started as %q", p.peer.Identifier, p.peer.Name))
	}
	return c, nil
}

// add makes c known, if its name is free, and returns the channels that c's
// process takes the place of.
func (t *Table) add(key tableKey, c *Channel) (replaced []*Channel, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.channels[key] != nil {
		return nil, false
	}
	t.channels[key] = c
	return t.replacedLocked(c.peer), true
}

// replacedLocked returns the channels of processes that peer has taken the
// place of.
func (t *Table) replacedLocked(peer Peer) (list []*Channel) {
	if peer.Name == "" {
		return nil
	}
	for key, c := range t.channels {
		// A name never changes while a process lives.
		if key.peer == peer.Identifier && key.instance != peer.Instance && c.name == peer.Name {
			list = append(list, c)
		}
	}
	return list
}

// Resume gives a channel another path. An error has been told to the peer, and
// in is closed.
func (t *Table) Resume(in *Incoming, via string) (*Channel, error) {
	t.mu.Lock()
	c := t.channels[keyOf(in)]
	t.mu.Unlock()
	if c == nil || !in.Resumes() {
		return nil, in.refused(&RefusedError{Code: code.UnknownChannel, Reason: "this instance holds no such channel"})
	}
	if err := c.resume(in, via); err != nil {
		return nil, in.refused(err)
	}
	return c, nil
}

// refused tells the peer why it gets no path, and returns err.
func (in *Incoming) refused(err error) error {
	var r *RefusedError
	if !errors.As(err, &r) {
		r = &RefusedError{Code: code.Internal}
	}
	_ = in.Refuse(r.Code, r.Reason) // the peer may have gone, which is no news
	return fmt.Errorf("path of channel %x refused: %s: %s", in.channel.ID, r.Code, r.Reason)
}

// Detached returns how many channels have no path.
func (t *Table) Detached() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting.Len()
}

// detached counts c, whose mu is held, among those without a path, and returns
// those that are too many then, for the caller to end.
func (t *Table) detached(c *Channel) (tooMany []*Channel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.places[c] != nil {
		return nil
	}
	process := processOf(c)
	if t.perPeer[process] >= t.limits.DetachedPerInstance {
		tooMany = append(tooMany, t.evictLocked(func(o *Channel) bool { return processOf(o) == process }))
	}
	if t.waiting.Len() >= t.limits.Detached {
		tooMany = append(tooMany, t.evictLocked(func(*Channel) bool { return true }))
	}
	t.places[c] = t.waiting.PushBack(c)
	t.perPeer[process]++
	c.heldDetached = int64(c.out.held() + c.in.held())
	t.held += c.heldDetached
	for t.held > t.set.Buffers.Limit()/2 && t.waiting.Len() > 1 {
		tooMany = append(tooMany, t.evictLocked(func(*Channel) bool { return true }))
	}
	return tooMany
}

// evictLocked takes the channel off the list that has waited for longest and
// is meant, and returns it, or nil if none is.
func (t *Table) evictLocked(meant func(*Channel) bool) *Channel {
	for e := t.waiting.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*Channel); meant(c) {
			t.removeLocked(c)
			return c
		}
	}
	return nil
}

// EvictOldest ends the one of a peer's channels that has been without a path for
// longest, whichever of the peer's processes has opened it, and returns it: its
// place is for another. It returns nil when all of them have a path.
func (t *Table) EvictOldest(peer identity.Identifier) *Channel {
	err := &LostError{Code: code.Limit, Err: errors.New("its identity opens more channels than it may have, and this one has been without a path for longest")}
	for {
		t.mu.Lock()
		c := t.evictLocked(func(c *Channel) bool { return c.identifier == peer })
		t.mu.Unlock()
		if c == nil || c.failDetached(err) {
			return c
		}
	}
}

func (t *Table) attached(c *Channel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(c)
}

func (t *Table) removeLocked(c *Channel) {
	e := t.places[c]
	if e == nil {
		return
	}
	t.waiting.Remove(e)
	delete(t.places, c)
	t.held -= c.heldDetached
	process := processOf(c)
	if t.perPeer[process]--; t.perPeer[process] == 0 {
		delete(t.perPeer, process)
	}
}

// forget drops a channel that is over.
func (t *Table) forget(c *Channel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(c)
	delete(t.channels, tableKey{c.identifier, c.instance, c.id})
}
