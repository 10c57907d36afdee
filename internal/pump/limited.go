package pump

import (
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// limitedPart is the part of a second that a chunk of a [Limited] takes at most,
// where the rate allows for more than [leastChunk]: those that share a rate wait for
// one chunk of each other.
const limitedPart = 100

// A Limited is a socket's conn that is kept to rates that it shares with others. It is
// made for [Both], by which one goroutine reads and one writes.
type Limited struct {
	sock.Conn
	reader  *sock.Reader
	writer  io.Writer
	in, out *Rate
	readAt  turn // of the reader: when it may read
	writeAt turn // of the writer: when it may write

	get    func() []byte // ReadReady's, for its time
	put    func([]byte)
	part   func() []byte // bound once: a chunk allocates nothing
	giveUp func([]byte)

	pausing atomic.Int32  // directions that wait to be paid for
	pauses  atomic.Uint64 // how often one has begun to, or was seen to

	mu   sync.Mutex
	cut  chan struct{} // closed when nobody is to pause any more; nil while nobody does
	over bool          // so
}

// NewLimited returns a Limited of c, which it owns. in bounds what is read, out what
// is written.
func NewLimited(c sock.Conn, in, out *Rate) *Limited {
	l := &Limited{Conn: c, reader: sock.NewReader(c), writer: c, in: in, out: out}
	if nc, ok := c.(*net.TCPConn); ok {
		l.writer = sock.NewWriter(nc)
	}
	l.part = func() []byte {
		b := l.get()
		return b[:l.in.chunk(len(b), limitedPart)]
	}
	l.giveUp = func(b []byte) { l.put(b[:cap(b)]) }
	return l
}

// NetConn returns the conn that is limited.
func (l *Limited) NetConn() net.Conn { return l.Conn }

// EndOrReset is [sock.EndOrReset] of the conn that is limited.
func (l *Limited) EndOrReset() error { return sock.EndOrReset(l.Conn) }

// ReadReady reads as [sock.Reader.ReadReady] does, once there is something to read, as
// far as the conn can tell, and what was read before is paid for. What get returns is
// used as far as the rate lets it, and put gets all of it, up to its capacity.
func (l *Limited) ReadReady(get func() []byte, put func([]byte)) ([]byte, int, error) {
	if err := l.awaitTurn(); err != nil {
		return nil, 0, err
	}
	l.get, l.put = get, put
	buf, n, err := l.reader.ReadReady(l.part, l.giveUp)
	l.get, l.put = nil, nil
	l.readAt = l.in.moved(l.readAt, n)
	return buf, n, err
}

// Read reads as ReadReady does, into b.
func (l *Limited) Read(b []byte) (int, error) {
	if err := l.awaitTurn(); err != nil {
		return 0, err
	}
	n, err := l.reader.Read(b[:l.in.chunk(len(b), limitedPart)])
	l.readAt = l.in.moved(l.readAt, n)
	return n, err
}

// awaitTurn pauses until a read is paid for, but only once there is something to read:
// who has nothing to move waits for no rate.
func (l *Limited) awaitTurn() error {
	if !l.in.owed(l.readAt) {
		return nil
	}
	if err := l.reader.Await(); err != nil {
		return err
	}
	return l.pause(l.in, l.readAt)
}

// Write writes b in chunks, and pauses before each until the one before is paid for.
func (l *Limited) Write(b []byte) (total int, err error) {
	for {
		if err := l.pause(l.out, l.writeAt); err != nil {
			return total, err
		}
		n, err := l.writer.Write(b[:l.out.chunk(len(b), limitedPart)])
		l.writeAt = l.out.moved(l.writeAt, n)
		total, b = total+n, b[n:]
		if err != nil || len(b) == 0 {
			return total, err
		}
	}
}

// Pause waits until what was written before is paid for, and returns how many bytes the
// next Write takes without a pause. Whoever calls it before it takes a buffer for the
// next Write, of no more than that, holds none while that would wait.
func (l *Limited) Pause() (most int, err error) {
	if err := l.pause(l.out, l.writeAt); err != nil {
		return 0, err
	}
	return l.out.chunk(math.MaxInt, limitedPart), nil
}

// Moved returns a number that is another one later only if bytes move: those that were
// written, as [sock.Writer.Moved] says, or those that wait for their rate.
func (l *Limited) Moved() uint64 {
	n := l.pauses.Load()
	if l.pausing.Load() > 0 {
		n = l.pauses.Add(1)
	}
	if w, ok := l.writer.(interface{ Moved() uint64 }); ok {
		n += w.Moved()
	}
	return n
}

// pause waits until it is paid for what was moved before.
func (l *Limited) pause(r *Rate, at turn) error {
	if !r.owed(at) {
		return nil
	}
	l.pauses.Add(1)
	l.pausing.Add(1)
	defer l.pausing.Add(-1)
	return r.wait(at, l.untilCut())
}

// untilCut returns what is closed when nobody is to pause any more.
func (l *Limited) untilCut() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut == nil {
		l.cut = make(chan struct{})
		if l.over {
			close(l.cut)
		}
	}
	return l.cut
}

// SetDeadline sets both deadlines; one that has passed ends pauses, too.
func (l *Limited) SetDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		l.end()
	}
	return l.Conn.SetDeadline(t)
}

// Close closes the conn.
func (l *Limited) Close() error {
	l.end()
	return l.Conn.Close()
}

func (l *Limited) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over && l.cut != nil {
		close(l.cut)
	}
	l.over = true
}
