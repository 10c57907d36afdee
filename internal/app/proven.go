package app

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of what is remembered as proven, so that it is verified once.
const (
	maxProven    = 16_384 // peers with a credential of a trusted authority
	maxWorthless = 1_024  // other peers that show something
	maxShown     = 4      // of one peer: it shows others when its credential was renewed, and has other processes
)

// A provenCache remembers what was proven of peers that have shown credentials. Its
// own lock guards it.
type provenCache struct {
	limit int // of peers

	mu sync.Mutex
	of map[identity.Identifier][]provenEntry // at most maxShown each, the oldest first
}

type provenEntry struct {
	shown  [32]byte // names what the peer has shown
	proven *credential.Proven
}

func newProvenCache(limit int) *provenCache {
	return &provenCache{limit: limit, of: map[identity.Identifier][]provenEntry{}}
}

// shownBy names what a peer shows.
func shownBy(p channel.Peer) [32]byte {
	h := sha256.New()
	for _, b := range p.Credentials {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

// get returns what was proven of what a peer has shown, nil if it is not known.
func (c *provenCache) get(id identity.Identifier, shown [32]byte) *credential.Proven {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.of[id] {
		if e.shown == shown {
			return e.proven
		}
	}
	return nil
}

// put remembers what was proven, in the place of any other peer where there are too
// many.
func (c *provenCache) put(id identity.Identifier, shown [32]byte, p *credential.Proven) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, known := c.of[id]
	for old := range c.of {
		if known || len(c.of) < c.limit {
			break
		}
		delete(c.of, old)
	}
	if len(list) >= maxShown {
		list = append([]provenEntry(nil), list[1:]...)
	}
	c.of[id] = append(list, provenEntry{shown, p})
}

// clear forgets everything.
func (c *provenCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.of)
}

func (c *provenCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.of)
}
