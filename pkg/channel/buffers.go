package channel

import (
	"sync"
)

// chunkSize is the unit in which channels hold bytes, and account for them.
const chunkSize = 32 << 10

// floorBytes is what a channel may hold whatever others hold, so that a
// process whose budget is used up still moves.
const floorBytes = 256 << 10

type chunk [chunkSize]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

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

// Used returns how many bytes are held, in whole chunks of 32 KiB.
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

// A queue holds the bytes [base, end) of a stream in chunks: it grows at the
// end, and what is not needed any more is dropped at the base. An empty queue
// holds no chunk.
type queue struct {
	base, end uint64
	chunks    []*chunk
	skip      int       // bytes of the first chunk that are dropped
	few       [8]*chunk // where chunks begins anew, so that a lone request allocates nothing
}

func (q *queue) held() int { return len(q.chunks) * chunkSize }

// room returns how many bytes fit without another chunk.
func (q *queue) room() int { return q.held() - q.skip - int(q.end-q.base) }

// grow adds a chunk, which the caller has accounted for.
func (q *queue) grow() {
	if q.chunks == nil {
		q.chunks = q.few[:0]
	}
	q.chunks = append(q.chunks, chunks.Get().(*chunk))
}

// append adds as much of p as there is room for.
func (q *queue) append(p []byte) (n int) {
	for n < len(p) && q.room() > 0 {
		at := q.skip + int(q.end-q.base)
		k := copy(q.chunks[at/chunkSize][at%chunkSize:], p[n:])
		q.end += uint64(k)
		n += k
	}
	return n
}

// copyAt copies bytes from offset off, which is in [base, end], into dst.
func (q *queue) copyAt(off uint64, dst []byte) (n int) {
	for n < len(dst) && off < q.end {
		at := q.skip + int(off-q.base)
		k := min(len(dst)-n, int(q.end-off), chunkSize-at%chunkSize)
		copy(dst[n:], q.chunks[at/chunkSize][at%chunkSize:][:k])
		off += uint64(k)
		n += k
	}
	return n
}

// drop gives up all before offset to, which is in [base, end], and returns how
// many chunks that has freed.
func (q *queue) drop(to uint64) (freed int) {
	q.skip += int(to - q.base)
	q.base = to
	for len(q.chunks) > 0 && (q.skip >= chunkSize || q.base == q.end) {
		chunks.Put(q.chunks[0])
		q.chunks[0] = nil
		q.chunks = q.chunks[1:]
		q.skip -= chunkSize
		freed++
	}
	if len(q.chunks) == 0 {
		q.chunks, q.skip = q.few[:0], 0
	}
	return freed
}
