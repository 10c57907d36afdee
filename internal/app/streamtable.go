package app

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// tableShards is into how many parts a streamTable is divided, so that those who open
// and end streams are not in each other's way, and whoever looks at all of them is in
// nobody's for long.
const tableShards = 16

// A streamTable has the streams of a process that live, and counts those of each
// service, what they have carried so far included: a stream that ends takes with it
// what is counted as that of a live one, and leaves it with its service, in one step.
// So no sum is ever less than one before.
type streamTable struct {
	last   atomic.Uint64 // number of the last stream
	shards [tableShards]tableShard

	mu      sync.Mutex
	counted []*serviceCount // all of them
	byKey   map[countKey]*serviceCount
	rests   map[string]*serviceCount // by name: of places that are no more, while there are others
	gone    serviceCount             // of services that are forgotten: the totals do not go back
}

// A tableShard has the streams of which the number leaves a certain rest.
type tableShard struct {
	mu   sync.Mutex
	head *liveStream // the newest
}

// A countKey names a serviceCount: a service, and where it is offered if there are
// several such places.
type countKey struct{ place, name string }

// A serviceCount counts the streams of one service.
type serviceCount struct {
	countKey
	held int // how often service has returned it and release has not taken it back; guarded by the table's mu
	// parts are, by shard, the streams that were opened, those that have ended, and
	// what these have carried. Each is guarded by its shard's mu.
	parts [tableShards]streamSums
}

// streamSums are numbers of streams, and of the bytes that they have carried.
type streamSums struct {
	opened, ended  int64
	sent, received int64 // as tunnel.Progress has them
}

func (s *streamSums) add(o streamSums) {
	s.opened += o.opened
	s.ended += o.ended
	s.sent += o.sent
	s.received += o.received
}

// active returns how many streams live.
func (s streamSums) active() int64 { return s.opened - s.ended }

// A progress is what says how far a stream has come: *tunnel.Stream and
// *tunnel.Request do.
type progress interface{ Progress() tunnel.Progress }

// A liveStream is an entry of a streamTable. Its service, client and since are set before
// begin.
type liveStream struct {
	service string // as asked for; it may be none of the settings
	client  string // its address
	since   time.Time

	number uint64 // set by begin
	count  *serviceCount

	// Guarded by the shard's mu.
	peer       identity.Identifier // zero while there is none
	peerName   string              // its own claim
	channel    channel.ID
	id         uint32   // in its channel's session
	carried    progress // nil while there is none
	prev, next *liveStream
}

func newStreamTable() *streamTable {
	t := &streamTable{byKey: map[countKey]*serviceCount{}, rests: map[string]*serviceCount{}}
	t.counted = []*serviceCount{&t.gone}
	return t
}

// service returns the count of a service, the same one for the same name and place.
// It is shown until it is released as often as it was returned and retained.
func (t *streamTable) service(name, place string) *serviceCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := countKey{place, name}
	c := t.byKey[k]
	if c == nil {
		c = &serviceCount{countKey: k}
		t.byKey[k] = c
		t.counted = append(t.counted, c)
	}
	c.held++
	return c
}

// retain holds a count that is held, and reports whether it is.
func (t *streamTable) retain(c *serviceCount) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.held == 0 {
		return false
	}
	c.held++
	return true
}

// release takes a hold of a count back, and reports whether nobody holds one of its name
// any more. A count that nobody holds, of which no stream lives, is forgotten: what it
// has stays with its name while another place has that, and in the totals.
func (t *streamTable) release(c *serviceCount) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.held--; c.held > 0 {
		return false
	}
	delete(t.byKey, c.countKey)
	for k := range t.byKey {
		if k.name == c.name {
			t.mergeLocked(c, t.restLocked(c.name))
			return false
		}
	}
	t.mergeLocked(c, &t.gone)
	if rest := t.rests[c.name]; rest != nil {
		delete(t.rests, c.name)
		t.mergeLocked(rest, &t.gone)
	}
	return true
}

// restLocked returns what has the numbers of a name's places that are no more.
func (t *streamTable) restLocked(name string) *serviceCount {
	rest := t.rests[name]
	if rest == nil {
		rest = &serviceCount{countKey: countKey{name: name}}
		t.rests[name] = rest
		t.counted = append(t.counted, rest)
	}
	return rest
}

// mergeLocked gives the numbers of a count to another one, and shows it no more.
func (t *streamTable) mergeLocked(c, into *serviceCount) {
	for i := range t.shards {
		t.shards[i].mu.Lock()
		into.parts[i].add(c.parts[i])
		t.shards[i].mu.Unlock()
	}
	t.counted = slices.DeleteFunc(t.counted, func(other *serviceCount) bool { return other == c })
}

// begin enters a stream.
func (t *streamTable) begin(s *liveStream, c *serviceCount) {
	s.number, s.count = t.last.Add(1), c
	h := t.shardOf(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	c.parts[s.shard()].opened++
	// Another one that has got its number later may have been faster.
	var after *liveStream
	before := h.head
	for before != nil && before.number > s.number {
		after, before = before, before.next
	}
	s.prev, s.next = after, before
	if before != nil {
		before.prev = s
	}
	if after == nil {
		h.head = s
	} else {
		after.next = s
	}
}

// carries says what carries a stream that was entered before that was known.
func (t *streamTable) carries(s *liveStream, ch *channel.Channel, id uint32, by progress) {
	h := t.shardOf(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	s.on(ch, id, by)
}

// on says what carries the stream, as which number of its session.
func (s *liveStream) on(ch *channel.Channel, id uint32, by progress) {
	peer := ch.Peer()
	s.peer, s.peerName, s.channel, s.id, s.carried = peer.Identifier, peer.Name, ch.ID(), id, by
}

// end takes a stream off, of which nothing is carried any more.
func (t *streamTable) end(s *liveStream) {
	h := t.shardOf(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	sums := &s.count.parts[s.shard()]
	sums.ended++
	p := s.progress()
	sums.sent += p.Sent
	sums.received += p.Received
	if s.next != nil {
		s.next.prev = s.prev
	}
	if s.prev == nil {
		h.head = s.next
	} else {
		s.prev.next = s.next
	}
	s.prev, s.next = nil, nil
}

func (s *liveStream) shard() int { return int(s.number % tableShards) }

func (t *streamTable) shardOf(s *liveStream) *tableShard { return &t.shards[s.shard()] }

// progress returns how far the stream has come. It is called with the shard's mu.
func (s *liveStream) progress() tunnel.Progress {
	if s.carried == nil {
		return tunnel.Progress{Active: s.since}
	}
	return s.carried.Progress()
}

// sums returns the numbers of all services. It looks at every stream.
func (t *streamTable) sums() map[*serviceCount]streamSums {
	t.mu.Lock()
	defer t.mu.Unlock() // what is forgotten meanwhile would be missing, or counted twice
	all := make(map[*serviceCount]streamSums, len(t.counted))
	for i := range t.shards {
		t.shards[i].addTo(all, t.counted, i)
	}
	return all
}

// addTo adds the numbers of a shard to those of the services.
func (h *tableShard) addTo(all map[*serviceCount]streamSums, counted []*serviceCount, shard int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range counted {
		sums := all[c]
		sums.add(c.parts[shard])
		all[c] = sums
	}
	for s := h.head; s != nil; s = s.next {
		sums, known := all[s.count]
		if !known {
			continue // it has come meanwhile: nothing of it is counted
		}
		p := s.progress()
		sums.sent += p.Sent
		sums.received += p.Received
		all[s.count] = sums
	}
}

// total returns the numbers of all services together.
func total(all map[*serviceCount]streamSums) (sum streamSums) {
	for _, s := range all {
		sum.add(s)
	}
	return sum
}

// newest returns copies of the newest streams, at most so many, the newest first.
func (t *streamTable) newest(most int) []shownStream {
	if most <= 0 {
		return nil
	}
	var all []shownStream
	for i := range t.shards {
		all = t.shards[i].newest(all, most)
	}
	slices.SortFunc(all, func(a, b shownStream) int {
		if a.number > b.number {
			return -1
		}
		return 1 // no two are the same
	})
	return all[:min(most, len(all))]
}

// A shownStream is what can be said of a stream that lived a moment ago.
type shownStream struct {
	number          uint64
	service, client string
	since           time.Time
	peer            identity.Identifier
	peerName        string
	channel         channel.ID
	id              uint32
	carried         bool // there is a channel
	tunnel.Progress
}

func (h *tableShard) newest(all []shownStream, most int) []shownStream {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := h.head; s != nil && most > 0; s, most = s.next, most-1 {
		all = append(all, shownStream{s.number, s.service, s.client, s.since, s.peer, s.peerName, s.channel, s.id, s.carried != nil, s.progress()})
	}
	return all
}
