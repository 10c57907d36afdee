package channel

import "sync"

const (
	// chunkSize is the unit in which channels account for what they hold.
	chunkSize = 64 << 10
	// RecordData is how many bytes of a stream a record carries at most. So many
	// that are written together travel in one.
	RecordData = maxPlain - typeLen
)

// A chunk holds a piece of a stream behind the type of a DATA record: as much of
// it as was not sent before is the plaintext of one record, and all of it is
// sealed from where it stands. It takes chunkSize of memory.
type chunk struct {
	base  uint64 // offset of the first byte in the stream
	n     int32  // bytes of the stream
	pins  int32  // records that are being sealed from it
	plain [typeLen + RecordData]byte
}

var chunks = sync.Pool{New: func() any {
	c := new(chunk)
	c.plain[0] = byte(typeData)
	return c
}}

// from returns the bytes from offset off on.
func (c *chunk) from(off uint64) []byte { return c.plain[typeLen:][off-c.base : c.n] }

func (c *chunk) end() uint64 { return c.base + uint64(c.n) }

// A queue holds the bytes [base, end) of a stream in chunks: it grows at the
// end, and what is not needed any more is dropped at the base. An empty queue
// holds no chunk.
type queue struct {
	base, end uint64
	chunks    []*chunk  // in store
	store     []*chunk  // few, or larger
	few       [8]*chunk // so that a lone request allocates nothing
}

func (q *queue) held() int { return len(q.chunks) * chunkSize }

// room returns how many bytes fit without another chunk.
func (q *queue) room() int {
	if len(q.chunks) == 0 {
		return 0
	}
	return RecordData - int(q.chunks[len(q.chunks)-1].n)
}

// grow adds a chunk, which the caller has accounted for.
func (q *queue) grow() {
	switch n := len(q.chunks); {
	case n == 0:
		q.store = q.few[:]
		q.chunks = q.store[:0]
	case n == cap(q.chunks) && n <= len(q.store)/2:
		// There is as much room before them.
		copy(q.store, q.chunks)
		clear(q.chunks)
		q.chunks = q.store[:n]
	case n == cap(q.chunks):
		store := make([]*chunk, 2*len(q.store))
		q.chunks = store[:copy(store, q.chunks)]
		q.store = store
	}
	c := chunks.Get().(*chunk)
	c.base, c.n = q.end, 0
	q.chunks = append(q.chunks, c)
}

// append adds as much of p as there is room for.
func (q *queue) append(p []byte) (n int) {
	if len(q.chunks) == 0 {
		return 0
	}
	c := q.chunks[len(q.chunks)-1]
	n = copy(c.plain[typeLen+c.n:], p)
	c.n += int32(n)
	q.end += uint64(n)
	return n
}

// at returns the chunk that has the byte at offset off, which is in [base, end).
// It looks at the base, where what is read next is, and then from the end: what
// is sent next is not far from there.
func (q *queue) at(off uint64) *chunk {
	if first := q.chunks[0]; off < first.end() {
		return first
	}
	i := len(q.chunks) - 1
	for q.chunks[i].base > off {
		i--
	}
	return q.chunks[i]
}

// copyAt copies bytes from offset off, which is in [base, end], into dst.
func (q *queue) copyAt(off uint64, dst []byte) (n int) {
	for n < len(dst) && off < q.end {
		c := q.at(off)
		k := copy(dst[n:], c.from(off))
		off += uint64(k)
		n += k
	}
	return n
}

// drop gives up all before offset to, which is in [base, end], and returns how
// many chunks that has freed.
func (q *queue) drop(to uint64) (freed int) {
	q.base = to
	for len(q.chunks) > 0 && q.chunks[0].end() <= to {
		if c := q.chunks[0]; c.pins == 0 { // else it is left to the garbage collector
			chunks.Put(c)
		}
		q.chunks[0] = nil
		q.chunks = q.chunks[1:]
		freed++
	}
	return freed
}
