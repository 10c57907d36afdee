package authority

import (
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of the streams that [Authority.Serve] serves. Members' and strangers'
// are counted apart, so that neither keep the others out. A stream costs a stranger
// nothing, so whoever calls Serve is to bound the conns that they come by, which
// cost a handshake; there is room here for several on each of them.
const (
	maxStreams         = 16_384 // of members, in all
	maxPeerStreams     = 64     // of one member, whose processes have one each
	maxStrangers       = 2048   // of peers that are no members, in all
	maxStrangerStreams = 8      // of one of them
)

// EnrolTime is how long a peer that is no member may stay, whatever it asks.
const EnrolTime = time.Minute

// IsMember reports whether an identifier is a member's.
func (a *Authority) IsMember(id identity.Identifier) bool {
	yes, err := a.store.isMember(id)
	return yes && err == nil
}

func (s *Store) isMember(id identity.Identifier) (yes bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		yes = tx.Bucket(bucketMembers).Get(id[:]) != nil
		return nil
	})
	return yes, err
}

// Streams returns how many streams are served, and how many of them are those of
// peers that are no members.
func (a *Authority) Streams() (all, strangers int) {
	c := &a.streams
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members + len(c.strangers), len(c.strangers)
}

// Deciding reports whether a request of the peer is being answered.
func (a *Authority) Deciding(peer identity.Identifier) bool {
	c := &a.streams
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.byPeer[peer] {
		if s.deciding.Load() {
			return true
		}
	}
	return false
}

// changed tells whom it concerns that peer has become a member, or is none any
// more.
func (a *Authority) changed(peer identity.Identifier) {
	a.streams.reclass(peer, a.store)
	if t := a.cfg.Trace.Changed; t != nil {
		t(peer)
	}
}

// streams are the streams that are served. The zero value is ready.
type streams struct {
	mu        sync.Mutex
	byPeer    map[identity.Identifier]map[*stream]struct{}
	members   int
	strangers map[*stream]struct{}
	last      uint64 // number of the last stream
}

// enter counts s, or says why there is no room for it. Where strangers are too
// many, another one gives way: those who hold places and do nothing keep nobody
// from enrolling.
func (c *streams) enter(s *stream, member bool) *Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := maxStrangerStreams
	if member {
		most = maxPeerStreams
	}
	switch {
	case len(c.byPeer[s.peer]) >= most:
		return refuse(code.Limit, "%s has %d streams to the authority already, which is the most of one identity", s.peer, most)
	case member && c.members >= maxStreams:
		return refuse(code.Limit, "the authority serves %d streams of members already: try again", maxStreams)
	case !member && len(c.strangers) >= maxStrangers:
		old := c.oldestLocked()
		c.leaveLocked(old)
		old.end(refuse(code.Limit, "too many wait to be enrolled, and this stream has been idle for longest: try again"))
	}
	if c.byPeer == nil {
		c.byPeer, c.strangers = map[identity.Identifier]map[*stream]struct{}{}, map[*stream]struct{}{}
	}
	if c.byPeer[s.peer] == nil {
		c.byPeer[s.peer] = map[*stream]struct{}{}
	}
	c.byPeer[s.peer][s] = struct{}{}
	c.last++
	s.number = c.last
	c.classLocked(s, member)
	return nil
}

// oldestLocked returns the oldest stream of a stranger: of those that nothing is
// decided about now, if there are any.
func (c *streams) oldestLocked() (oldest *stream) {
	var deciding *stream
	for s := range c.strangers {
		if s.deciding.Load() {
			if deciding == nil || s.number < deciding.number {
				deciding = s
			}
		} else if oldest == nil || s.number < oldest.number {
			oldest = s
		}
	}
	if oldest == nil {
		return deciding
	}
	return oldest
}

// classLocked counts s as a member's or a stranger's, whose time begins.
func (c *streams) classLocked(s *stream, member bool) {
	s.member.Store(member)
	if member {
		s.listed.Store(true)
		c.members++
		return
	}
	c.strangers[s] = struct{}{}
	s.patient = time.AfterFunc(EnrolTime, func() {
		if !s.member.Load() {
			s.end(refuse(code.NotEnrolled, "%s has not become a member within %s: enrol it by a ticket (\"culvert ticket create\") or a Kubernetes token", s.peer, EnrolTime))
		}
	})
}

// unclassLocked is the reverse of classLocked.
func (c *streams) unclassLocked(s *stream) {
	if s.member.Load() {
		c.members--
		return
	}
	delete(c.strangers, s)
	s.patient.Stop()
}

// reclass counts the peer's streams as what the store says that it is now. It is
// called after each change: whoever is last sees the last.
func (c *streams) reclass(peer identity.Identifier, store *Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byPeer[peer]) == 0 {
		return
	}
	member, err := store.isMember(peer)
	if err != nil {
		return // the store is closed: so are the streams, soon
	}
	for s := range c.byPeer[peer] {
		if s.member.Load() != member {
			c.unclassLocked(s)
			c.classLocked(s, member)
		}
	}
}

func (c *streams) leave(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked(s)
}

func (c *streams) leaveLocked(s *stream) {
	if s.left {
		return
	}
	s.left = true
	c.unclassLocked(s)
	delete(c.byPeer[s.peer], s)
	if len(c.byPeer[s.peer]) == 0 {
		delete(c.byPeer, s.peer)
	}
}
