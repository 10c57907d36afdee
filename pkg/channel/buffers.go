package channel

import "sync"

// floorBytes is what a channel may hold whatever others hold, so that a
// process whose budget is used up still moves.
const floorBytes = 256 << 10

// Buffers is a process's budget for the bytes that its channels hold: those
// sent and not yet consumed by the peer, and those received and not yet read.
// When it is used up, writers wait; nothing is ever refused. It is safe for
// concurrent use.
type Buffers struct {
	limit int64

	mu      sync.Mutex
	used    int64
	waiters map[*Channel]struct{}
}

// NewBuffers returns a budget of limit bytes. Each channel may hold 256 KiB
// beyond it.
func NewBuffers(limit int64) *Buffers {
	return &Buffers{limit: limit, waiters: map[*Channel]struct{}{}}
}

// Limit returns the budget in bytes.
func (b *Buffers) Limit() int64 { return b.limit }

// Used returns how many bytes are held, in whole chunks of 64 KiB.
func (b *Buffers) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// take accounts for one more chunk of a channel that holds so many bytes. When
// it reports false, c is woken once there is room.
func (b *Buffers) take(held int, c *Channel) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if held >= floorBytes && b.used+chunkSize > b.limit {
		b.waiters[c] = struct{}{}
		return false
	}
	b.used += chunkSize
	return true
}

// force accounts for a chunk of bytes that the peer was promised room for.
func (b *Buffers) force() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += chunkSize
}

// give accounts for n chunks less and returns whom to wake, which the caller
// does when it holds no channel's lock.
func (b *Buffers) give(n int) []*Channel {
	if n == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= int64(n) * chunkSize
	if len(b.waiters) == 0 || b.used+chunkSize > b.limit {
		return nil
	}
	woken := make([]*Channel, 0, len(b.waiters))
	for c := range b.waiters {
		woken = append(woken, c)
	}
	clear(b.waiters)
	return woken
}

// forget ends c's waiting.
func (b *Buffers) forget(c *Channel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waiters, c)
}

func wake(channels []*Channel) {
	for _, c := range channels {
		c.mu.Lock()
		c.writable.Broadcast()
		c.mu.Unlock()
	}
}
