package node

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of what may hold room that others wait for: a message has to come at a pace,
// from a while after its claim was granted.
const (
	slowest   = 64 << 10 // bytes a second
	slowGrace = 2 * time.Second

	// lookAgain is how long one that gives way has before another one does.
	lookAgain = 100 * time.Millisecond

	// lookIdly is how often somebody looks while nobody waits: whether this process has stood
	// still.
	lookIdly = slowGrace / 2
)

// A budget is how many bytes may be on their way into a node beyond what each flow
// has to begin with: of messages that are large, which claim room for all of theirs
// before it comes, and of windows that have grown.
//
// Nothing that holds room waits for another node, so no two nodes wait for each
// other's: a message that goes on to a third node claims none ([stream]). Whoever has
// proven no identity shares a part with all others of that kind, each has a share of
// its own, and claims are granted in turn: one account's after the other's. While one
// waits, what holds room for too long gives way.
type budget struct {
	all   int
	share int // of one account
	// patience is how long a message that has come may wait for its mailbox while
	// others need its room.
	patience time.Duration

	mu      sync.Mutex
	left    int
	grown   int // of what is taken, by windows
	waiting int // claims
	classes [2]class
	next    int // the class whose turn it is
	peers   map[identity.Identifier]*account
	granted list.List   // of *claim, the oldest first
	watch   *time.Timer // looks for what gives way; nil while nothing is held
	set     time.Time   // when watch was
	due     time.Time   // when watch looks
	idle    bool        // watch does so for nobody who waits
	closed  bool

	// stood is for how long this process has stood still, in nanoseconds, for all that watch
	// has seen: what holds room could not come then. The lock guards that it is changed.
	stood atomic.Int64
}

// Classes of accounts.
const (
	strangers = 0
	peers     = 1
)

// A class is a kind of accounts that share a part of a budget.
type class struct {
	most, taken, grown int
	line               list.List // of *account: whose share has room for their next claim
}

// An account is whose messages come: a peer's, by however many channels, or a conn's of
// one that nobody knows.
type account struct {
	budget       *budget
	class        *class
	peer         *identity.Identifier
	users        int
	taken, grown int
	line         list.List     // of *claim, those that wait
	place        *list.Element // in the class's line; nil: not there
}

// A claim is for room for one message.
type claim struct {
	account *account
	n       int
	// grant is told that the room is there, giveWay that others need it more. Both are
	// called without locks, on another's goroutine.
	grant   func()
	giveWay func()

	got   atomic.Int64 // bytes that have come since
	whole atomic.Int64 // its age when the message had come, in nanoseconds; 0 before

	place *list.Element // in the account's line, or the budget's list of those granted
	state byte
	asked bool      // to give way
	since time.Time // granted
	stood int64     // the budget's then
}

// States of claims.
const (
	claimWaits = iota + 1
	claimHeld
	claimOver
)

// newBudget returns a node's, of n bytes, MaxBody at least.
func newBudget(n int, patience time.Duration) *budget {
	b := newRoom(max(n, MaxBody), patience)
	b.share = max(n/4, MaxBody)
	b.classes[strangers].most = max(n/2, MaxBody)
	return b
}

// newRoom returns one of n bytes that nobody has only a part of.
func newRoom(n int, patience time.Duration) *budget {
	b := &budget{all: n, left: n, share: n, patience: patience, peers: map[identity.Identifier]*account{}}
	for i := range b.classes {
		b.classes[i].most = n
	}
	return b
}

// account returns the account of what comes from there. It is for leave.
func (b *budget) account(from Origin) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	if from.Peer == nil {
		return &account{budget: b, class: &b.classes[strangers], users: 1}
	}
	id := from.Peer.Identifier
	a := b.peers[id]
	if a == nil {
		a = &account{budget: b, class: &b.classes[peers], peer: &id}
		b.peers[id] = a
	}
	a.users++
	return a
}

// leave says that one of those that use a, and all its claims, are over.
func (b *budget) leave(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.users--; a.users == 0 && a.peer != nil {
		delete(b.peers, *a.peer)
	}
}

// take has c granted, now or when it is its turn and there is room. It is for release.
func (b *budget) take(c *claim) {
	b.mu.Lock()
	if c.state != 0 { // released before it was taken
		b.mu.Unlock()
		return
	}
	c.state = claimWaits
	c.place = c.account.line.PushBack(c)
	b.waiting++
	b.lineUpLocked(c.account)
	b.settle()
}

// release gives back what c has, or its place in line. A nil claim has neither.
func (c *claim) release() {
	if c != nil {
		c.account.budget.release(c)
	}
}

func (b *budget) release(c *claim) {
	b.mu.Lock()
	a := c.account
	switch c.state {
	case claimWaits:
		a.line.Remove(c.place)
		b.waiting--
	case claimHeld:
		b.granted.Remove(c.place)
		b.left += c.n
		a.taken -= c.n
		a.class.taken -= c.n
	}
	c.state = claimOver
	b.lineUpLocked(a)
	b.settle()
}

// grow takes n bytes for a window if they are there, nobody waits, and half of all,
// and a message of MaxBody, is left for who does, and for strangers: what has grown
// comes back when the flow ends, only.
func (b *budget) grow(a *account, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := a.class
	switch {
	case b.waiting > 0, b.left-n < b.grown+n, b.all-b.grown-n < MaxBody:
		return false
	case a.grown+n > b.all/16, k.grown+n > k.most/2, k.grown+n > k.most-MaxBody, k.taken+k.grown+n > k.most:
		return false
	}
	b.left -= n
	b.grown += n
	a.grown += n
	k.grown += n
	return true
}

// shrink gives back what was taken by grow.
func (b *budget) shrink(a *account, n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.left += n
	b.grown -= n
	a.grown -= n
	a.class.grown -= n
	b.settle()
}

// lineUpLocked puts a in its class's line if its share has room for its next claim.
func (b *budget) lineUpLocked(a *account) {
	if e := a.line.Front(); e != nil && a.place == nil && a.taken+e.Value.(*claim).n <= b.share {
		a.place = a.class.line.PushBack(a)
	}
}

// firstLocked returns the claim whose turn it is in k, nil if there is none.
func (b *budget) firstLocked(k *class) *claim {
	for e := k.line.Front(); e != nil; e = k.line.Front() {
		a := e.Value.(*account)
		if f := a.line.Front(); f != nil && a.taken+f.Value.(*claim).n <= b.share {
			return f.Value.(*claim)
		}
		k.line.Remove(e) // what it waited for was released
		a.place = nil
	}
	return nil
}

func (k *class) hasRoom(n int) bool { return k.taken+k.grown+n <= k.most }

// settle unlocks b, and tells those who have room now.
func (b *budget) settle() {
	var ready []*claim
	for idle := 0; idle < len(b.classes); {
		k := &b.classes[b.next]
		c := b.firstLocked(k)
		if c != nil && k.hasRoom(c.n) && c.n > b.left {
			break // it is its turn: nobody overtakes
		}
		b.next = (b.next + 1) % len(b.classes)
		if c == nil || !k.hasRoom(c.n) {
			idle++
			continue
		}
		idle = 0
		b.grantLocked(c)
		ready = append(ready, c)
	}
	b.watchLocked()
	b.mu.Unlock()
	for _, c := range ready {
		c.grant()
	}
}

// watchLocked sees to it that somebody looks in time.
func (b *budget) watchLocked() {
	switch {
	case b.closed, b.waiting == 0 && b.granted.Len() == 0:
		return
	case b.watch != nil:
		if !b.idle || b.waiting == 0 {
			return
		}
		b.noteLocked()
		b.watch.Stop() // if it looks already, it sees that another one is due
	}
	after := lookAgain
	if b.idle = b.waiting == 0; b.idle {
		after = lookIdly
	}
	b.set = time.Now()
	b.due = b.set.Add(after)
	b.watch = time.AfterFunc(after, b.look)
}

func (b *budget) grantLocked(c *claim) {
	a := c.account
	a.line.Remove(c.place)
	a.class.line.Remove(a.place)
	a.place = nil
	b.waiting--
	b.left -= c.n
	a.taken += c.n
	a.class.taken += c.n
	b.noteLocked()
	c.state, c.since, c.stood = claimHeld, time.Now(), b.stood.Load()
	c.place = b.granted.PushBack(c)
	b.lineUpLocked(a) // behind the others
}

// look has those that hold room for too long give way, the oldest first, if that is of use
// to who waits: as many as one of these needs, since whoever holds room in many small
// parts would take long to give way part by part.
func (b *budget) look() {
	b.mu.Lock()
	if time.Now().Before(b.due) || b.closed { // another one does
		b.mu.Unlock()
		return
	}
	b.noteLocked()
	b.watch = nil
	var late []*claim
	freed := 0
	for e := b.granted.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*claim); !c.asked && b.lateLocked(c) && b.wantedLocked(c) > freed {
			late = append(late, c)
			c.asked = true
			freed += c.n
		}
	}
	b.watchLocked()
	b.mu.Unlock()
	for _, c := range late {
		c.giveWay()
	}
}

// noteLocked notes that the watch is late, if it is: then this process has stood still,
// perhaps since it was set.
func (b *budget) noteLocked() {
	if b.watch == nil {
		return
	}
	now := time.Now()
	if late := now.Sub(b.due); late > lookAgain {
		b.stood.Add(int64(now.Sub(b.set)))
		b.set, b.due = now, now
	}
}

// wantedLocked returns how much is missing, at most, to somebody who waits for what c holds,
// or 0: of the account's share, of its class's part, or of all.
func (b *budget) wantedLocked(c *claim) (most int) {
	if e := c.account.line.Front(); e != nil {
		most = max(0, c.account.taken+e.Value.(*claim).n-b.share)
	}
	for i := range b.classes {
		k := &b.classes[i]
		first := b.firstLocked(k)
		switch {
		case first == nil:
		case k == c.account.class:
			most = max(most, first.n-b.left, k.taken+k.grown+first.n-k.most)
		case k.hasRoom(first.n):
			most = max(most, first.n-b.left)
		}
	}
	return most
}

// lateLocked reports whether c holds its room for too long.
func (b *budget) lateLocked(c *claim) bool {
	age := c.age()
	if whole := c.whole.Load(); whole != 0 {
		return age-time.Duration(whole) > b.patience
	}
	return age > slowGrace && c.got.Load() < int64((age-slowGrace).Seconds()*slowest)
}

// age returns how long c has held its room, but for the time in which this process stood
// still.
func (c *claim) age() time.Duration {
	return time.Since(c.since) - time.Duration(c.account.budget.stood.Load()-c.stood)
}

// came counts n bytes of c's message, which is whole or not.
func (c *claim) came(n int, whole bool) {
	if c == nil {
		return
	}
	c.got.Add(int64(n))
	if whole {
		c.whole.Store(max(1, int64(c.age())))
	}
}

// close ends the watch.
func (b *budget) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.watch != nil {
		b.watch.Stop()
	}
}
