package app

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
)

// A reservation is the place of one channel in the table. Whether it is a stranger's is
// decided when it is taken, and when [channels.reclass] is called: a policy may say
// something else later.
type reservation struct {
	peer identity.Identifier
	left atomic.Int64 // bytes that may still come

	// Guarded by the table's mu.
	listed  bool         // the peer is no stranger
	number  uint64       // later places have higher ones
	ch      *openChannel // nil until there is one
	timer   *time.Timer  // ends a stranger's channel; nil: it may stay
	over    *refusal     // why the channel has to end; nil: it need not
	yielded bool         // given to another: not counted any more
}

// reserve counts a channel of the peer, or says why there is no room for it. At
// the peer's own limit it takes the place of one that has no path. A place is given
// back by release.
func (c *channels) reserve(p policy.Peer) (*reservation, *refusal) {
	listed := c.known(p)
	c.mu.Lock()
	taken, yielding, r := c.reserveLocked(p.ID, listed)
	var ch *openChannel
	var over *refusal
	if yielding != nil {
		ch, over = yielding.ch, yielding.over
	}
	c.mu.Unlock()
	if ch != nil {
		c.end(ch, over)
	}
	return taken, r
}

func (c *channels) reserveLocked(peer identity.Identifier, listed bool) (taken, yielding *reservation, r *refusal) {
	most := maxPeerChannels
	if !listed {
		most = c.bounds.eachStranger
	}
	if c.draining != "" {
		return nil, nil, &refusal{code.Draining, c.draining, ""}
	}
	for c.countLocked(peer) >= most {
		old := c.evict(peer)
		if old == nil {
			return nil, nil, &refusal{
				code.Limit, fmt.Sprintf("%s has %d channels here already, all of them in use", peer, most),
				"that is the most of one identity; give some of its processes identities of their own",
			}
		}
		c.leaving[old] = peer
	}
	switch {
	case !listed && len(c.strangers)-c.leavingLocked(false) >= c.bounds.strangers:
		if yielding = c.oldestLocked(); yielding == nil {
			return nil, nil, &refusal{
				code.Limit, fmt.Sprintf("%s is allowed no service here", peer),
				fmt.Sprintf("%d channels of such peers are open already; if it is to use a service, list it under allow: in this outlet's settings", c.bounds.strangers),
			}
		}
		c.yieldLocked(yielding)
	case listed && c.listed-c.leavingLocked(true) >= c.bounds.all:
		return nil, nil, &refusal{
			code.Limit, fmt.Sprintf("there are %d channels here already", c.bounds.all),
			"that is the most; start another outlet of this identity beside this one",
		}
	}
	c.last++
	taken = &reservation{peer: peer, number: c.last}
	if c.places[peer] == nil {
		c.places[peer] = map[*reservation]struct{}{}
	}
	c.places[peer][taken] = struct{}{}
	c.classLocked(taken, listed)
	return taken, yielding, nil
}

// oldestLocked returns the place that a stranger is to give to another: the
// oldest that is idle, or the oldest; nil if there is none that could.
func (c *channels) oldestLocked() *reservation {
	if !c.bounds.yields {
		return nil
	}
	var idle, busy *reservation
	for p := range c.strangers {
		if p.ch == nil {
			continue
		}
		oldest := &busy
		if c.bounds.idle == nil || c.bounds.idle(p.peer) {
			oldest = &idle
		}
		if *oldest == nil || p.number < (*oldest).number {
			*oldest = p
		}
	}
	if idle == nil {
		return busy
	}
	return idle
}

func (c *channels) yieldLocked(p *reservation) {
	p.over = &refusal{code: code.Limit, reason: "too many whom nobody knows here are waiting, and this channel has been idle for longest: try again"}
	p.yielded = true
	c.unclassLocked(p)
}

// classLocked counts a place as a stranger's or not, and bounds it accordingly.
func (c *channels) classLocked(p *reservation, listed bool) {
	p.listed = listed
	p.left.Store(math.MaxInt64)
	if listed {
		c.listed++
		return
	}
	c.strangers[p] = struct{}{}
	if c.bounds.bytes > 0 {
		p.left.Store(c.bounds.bytes)
	}
	if c.bounds.time > 0 {
		p.timer = time.AfterFunc(c.bounds.time, func() { c.expire(p) })
	}
}

// unclassLocked is the reverse of classLocked.
func (c *channels) unclassLocked(p *reservation) {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if p.listed {
		c.listed--
	} else {
		delete(c.strangers, p)
	}
}

// expire ends the channel of a peer that has been a stranger for too long.
func (c *channels) expire(p *reservation) {
	c.mu.Lock()
	c.reclassLocked(p.peer)
	if p.listed || p.timer == nil {
		c.mu.Unlock()
		return
	}
	over := &refusal{code: code.NotEnrolled, reason: fmt.Sprintf("%s has not become a member within %s", p.peer, c.bounds.time)}
	ch := p.ch
	p.over = over
	c.mu.Unlock()
	if ch != nil {
		c.end(ch, over)
	}
}

// reclass counts the peer's places as what the peer is now, a stranger's or not:
// by its identifier alone, so that it is for tables whose bounds have a time. It is
// called after each change: whoever is last sees the last.
func (c *channels) reclass(peer identity.Identifier) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reclassLocked(peer)
}

func (c *channels) reclassLocked(peer identity.Identifier) {
	if len(c.places[peer]) == 0 {
		return
	}
	listed := c.known(policy.Peer{ID: peer})
	for p := range c.places[peer] {
		if p.listed != listed && !p.yielded {
			c.unclassLocked(p)
			c.classLocked(p, listed)
		}
	}
}

// countLocked returns how many places the peer has taken.
func (c *channels) countLocked(peer identity.Identifier) (n int) {
	for p := range c.places[peer] {
		if !p.yielded {
			n++
		}
	}
	for _, p := range c.leaving {
		if p == peer {
			n--
		}
	}
	return n
}

// leavingLocked returns how many places of strangers, or of others, are those of
// channels that were evicted and have not ended yet.
func (c *channels) leavingLocked(listed bool) (n int) {
	for _, peer := range c.leaving {
		if c.hasListedLocked(peer) == listed {
			n++
		}
	}
	return n
}

// isListed reports whether a place is that of a peer that is no stranger.
func (c *channels) isListed(p *reservation) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.listed
}

// hasListed reports whether the peer has a place that is no stranger's.
func (c *channels) hasListed(peer identity.Identifier) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasListedLocked(peer)
}

func (c *channels) hasListedLocked(peer identity.Identifier) bool {
	for p := range c.places[peer] {
		if p.listed {
			return true
		}
	}
	return false
}

// occupy says for which channel a place was taken. The channel has to end at once
// where that has been decided meanwhile.
func (c *channels) occupy(p *reservation, ch *openChannel) {
	c.mu.Lock()
	if c.bounds.time > 0 {
		c.reclassLocked(p.peer) // it may have changed between the question and the place
	}
	p.ch, ch.listed, ch.place = ch, p.listed, p
	over := p.over
	c.mu.Unlock()
	if over != nil {
		c.end(ch, over)
	}
}

// release gives a place back. ch is the channel that it was used for, nil if it was
// not.
func (c *channels) release(p *reservation, ch *channel.Channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leaving, ch)
	if !p.yielded {
		c.unclassLocked(p)
	}
	p.timer = nil
	delete(c.places[p.peer], p)
	if len(c.places[p.peer]) == 0 {
		delete(c.places, p.peer)
	}
}

// spend notes that n bytes have come, and reports whether they are too many.
func (p *reservation) spend(n int) (tooMany bool) { return p.left.Add(-int64(n)) < 0 }

// A meteredChannel is a channel under a session that ends when its peer, a
// stranger, sends more than it may: what it sends may be kept for as long as nobody
// reads it.
type meteredChannel struct {
	*channel.Channel
	place  *reservation
	exceed func() // ends the session, and says why
}

var errTooMuch = errors.New("a stranger has sent more than it may")

// Read is that of the channel.
func (m *meteredChannel) Read(b []byte) (int, error) {
	n, err := m.Channel.Read(b)
	if m.place.spend(n) {
		m.exceed()
		return 0, errTooMuch
	}
	return n, err
}
