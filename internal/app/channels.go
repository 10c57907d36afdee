package app

import (
	"fmt"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
)

const (
	// maxChannels bounds an outlet's channels, maxPeerChannels those of one
	// peer.
	maxChannels     = 4096
	maxPeerChannels = 64
	// Peers that may use no service share a small part of that. They are let in
	// so that they can be told, and the log can say, what they asked for.
	maxStrangers        = 64
	maxStrangerChannels = 4
)

// channels is the table of an outlet's channels, which bounds them.
type channels struct {
	policy *OutletPolicy
	most   int // in all
	// evict ends the peer's channel that has been without a path for longest, and
	// returns it, or nil: what processes leave that are no more keeps nobody out.
	evict func(peer identity.Identifier) *channel.Channel

	mu        sync.Mutex
	all       map[*openChannel]struct{}
	perPeer   map[identity.Identifier]int
	listed    map[identity.Identifier]int              // those of perPeer that are no strangers'
	leaving   map[*channel.Channel]identity.Identifier // evicted and not released yet: not counted any more
	strangers int
	draining  string // why; "" while not
}

// An openChannel is one entry of the table.
type openChannel struct {
	peer    channel.Peer
	since   time.Time
	session *lasting
	listed  bool // when it was opened, the peer might use something

	// Of the goroutine that rechecks.
	told      bool // streams of it were cut for all that the peer may not any more
	departure departure

	mu      sync.Mutex
	streams map[*served]struct{}
}

func newChannels(p *OutletPolicy, most int, evict func(identity.Identifier) *channel.Channel) *channels {
	return &channels{
		policy: p, most: most, evict: evict, all: map[*openChannel]struct{}{},
		perPeer: map[identity.Identifier]int{}, listed: map[identity.Identifier]int{},
		leaving: map[*channel.Channel]identity.Identifier{},
	}
}

// A refusal is why a peer gets no channel.
type refusal struct {
	code   code.Code
	reason string // what the peer is told
	remedy string // what this outlet's operator can do, for the log alone
}

// logged returns what the log says.
func (r *refusal) logged() string {
	if r.remedy == "" {
		return r.reason
	}
	return r.reason + ": " + r.remedy
}

// A reservation is the place of one channel in the table. Whether it is a
// stranger's is decided when it is made: a policy may say something else later.
type reservation struct {
	peer   identity.Identifier
	listed bool
}

// reserve counts a channel of the peer, or says why there is no room for it. At
// the peer's own limit it takes the place of one that has no path. A reservation
// is undone by release.
func (c *channels) reserve(p policy.Peer) (*reservation, *refusal) {
	listed, most := c.policy.knows(p), maxPeerChannels
	if !listed {
		most = maxStrangerChannels
	}
	peer := p.ID
	c.mu.Lock()
	defer c.mu.Unlock()
	n := -len(c.leaving)
	for _, k := range c.perPeer {
		n += k
	}
	switch {
	case c.draining != "":
		return nil, &refusal{code.Draining, c.draining, ""}
	case !listed && c.strangers >= maxStrangers:
		return nil, &refusal{
			code.Limit, fmt.Sprintf("%s is allowed no service here", peer),
			fmt.Sprintf("%d channels of such peers are open already; if it is to use a service, list it under allow: in this outlet's settings", maxStrangers),
		}
	case n >= c.most:
		return nil, &refusal{
			code.Limit, fmt.Sprintf("there are %d channels here already", c.most),
			"that is the most; start another outlet of this identity beside this one",
		}
	}
	for c.countLocked(peer) >= most {
		old := c.evict(peer)
		if old == nil {
			return nil, &refusal{
				code.Limit, fmt.Sprintf("%s has %d channels here already, all of them in use", peer, most),
				"that is the most of one identity; give some of its processes identities of their own",
			}
		}
		c.leaving[old] = peer
	}
	c.perPeer[peer]++
	if listed {
		c.listed[peer]++
	} else {
		c.strangers++
	}
	return &reservation{peer, listed}, nil
}

// countLocked returns how many places the peer has taken.
func (c *channels) countLocked(peer identity.Identifier) int {
	n := c.perPeer[peer]
	for _, p := range c.leaving {
		if p == peer {
			n--
		}
	}
	return n
}

// release undoes reserve. ch is the channel that the place was used for, nil if
// it was not.
func (c *channels) release(r *reservation, ch *channel.Channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leaving, ch)
	uncount(c.perPeer, r.peer)
	if r.listed {
		uncount(c.listed, r.peer)
	} else {
		c.strangers--
	}
}

// uncount takes one off a count, and the entry out with the last.
func uncount(counts map[identity.Identifier]int, peer identity.Identifier) {
	if counts[peer]--; counts[peer] <= 0 {
		delete(counts, peer)
	}
}

// knows reports whether the peer has a channel here as one that may use a
// service, or may use one now by its identifier.
func (c *channels) knows(peer identity.Identifier) bool {
	c.mu.Lock()
	n := c.listed[peer]
	c.mu.Unlock()
	return n > 0 || c.policy.knows(policy.Peer{ID: peer})
}

// add enters a channel, which is told at once if the outlet drains.
func (c *channels) add(ch *openChannel) {
	c.mu.Lock()
	c.all[ch] = struct{}{}
	reason := c.draining
	c.mu.Unlock()
	if reason != "" {
		ch.session.Drain(reason)
	}
}

func (c *channels) remove(ch *openChannel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, ch)
}

// drain asks all peers to open no more streams here, and lets in no new ones.
func (c *channels) drain(reason string) {
	c.mu.Lock()
	c.draining = reason
	c.mu.Unlock()
	for _, ch := range c.list() {
		ch.session.Drain(reason)
	}
}

// move asks the peers whose paths come by via to make others.
func (c *channels) move(via, reason string) {
	for _, ch := range c.list() {
		if ch.session.ch.State().Via == via {
			ch.session.Move(reason)
		}
	}
}

func (c *channels) list() []*openChannel {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*openChannel, 0, len(c.all))
	for ch := range c.all {
		list = append(list, ch)
	}
	return list
}

func (c *channels) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}
