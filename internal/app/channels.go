package app

import (
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
	// Peers that may use no service have a few places of their own. They are let in
	// so that they can be told, and the log can say, what they asked for.
	maxStrangers        = 64
	maxStrangerChannels = 4
	// maxStrangerStreams bounds the streams of one of their channels. None is let
	// through, but each costs some KiB until it has said what it wants, for which it
	// has the grace time.
	maxStrangerStreams = 256
)

// A channelBounds says how many channels there may be, and what those of
// strangers may do.
type channelBounds struct {
	all          int // of peers that are no strangers
	strangers    int // of strangers, beside them
	eachStranger int // of one of them
	streams      int // open at once on a stranger's channel; 0: as many as on others

	// yields lets the oldest stranger's channel give way to another stranger's,
	// where there are too many: an idle one if there is one. Otherwise the other is
	// refused.
	yields bool
	idle   func(peer identity.Identifier) bool // nil: all are

	time  time.Duration // for which a stranger may have a channel; 0: any
	bytes int64         // that a stranger may send on one, each stream counting as streamCost; 0: any number
}

// streamCost is what a stranger's stream counts for, in bytes: it costs the stranger
// next to nothing, and here some lines and a question to the policy.
const streamCost = 8 << 10

// outletBounds are those of an outlet.
func outletBounds() channelBounds {
	return channelBounds{all: maxChannels, strangers: maxStrangers, eachStranger: maxStrangerChannels, streams: maxStrangerStreams}
}

// channels is the table of an outlet's channels, which bounds them.
type channels struct {
	bounds channelBounds
	// known reports whether a peer is no stranger.
	known knowing
	// evict ends the peer's channel that has been without a path for longest, and
	// returns it, or nil: what processes leave that are no more keeps nobody out.
	evict func(peer identity.Identifier) *channel.Channel
	// end ends a stranger's channel, and says why. It is called with no lock held.
	end func(ch *openChannel, r *refusal)

	mu        sync.Mutex
	all       map[*openChannel]struct{}
	places    map[identity.Identifier]map[*reservation]struct{}
	leaving   map[*channel.Channel]identity.Identifier // evicted and not released yet: not counted any more
	listed    int                                      // places of peers that are no strangers
	strangers map[*reservation]struct{}
	last      uint64 // number of the last place
	draining  string // why; "" while not
}

// An openChannel is one entry of the table.
type openChannel struct {
	peer    channel.Peer
	since   time.Time
	session *lasting
	place   *reservation // set by occupy
	listed  bool         // when it was opened, the peer might use something

	// Of the goroutine that rechecks.
	told      bool // streams of it were cut for all that the peer may not any more
	departure departure

	mu      sync.Mutex
	streams map[*served]struct{}
}

func newChannels(bounds channelBounds, known knowing, evict func(identity.Identifier) *channel.Channel) *channels {
	return &channels{
		bounds: bounds, known: known, evict: evict, end: func(*openChannel, *refusal) {}, all: map[*openChannel]struct{}{},
		places: map[identity.Identifier]map[*reservation]struct{}{}, strangers: map[*reservation]struct{}{}, leaving: map[*channel.Channel]identity.Identifier{},
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

// knows reports whether the peer has a channel here as one that may use a
// service, or may use one now by its identifier.
func (c *channels) knows(peer identity.Identifier) bool {
	return c.hasListed(peer) || c.known(policy.Peer{ID: peer})
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

// leave asks the peers to make other paths whose paths come by a way that is to be left,
// and reports whether there are any.
func (c *channels) leave(way func(via string) bool, reason string) (found bool) {
	for _, ch := range c.list() {
		if st := ch.session.ch.State(); st.Up && way(st.Via) {
			ch.session.Move(reason)
			found = true
		}
	}
	return found
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
