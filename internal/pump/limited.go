package pump

import (
	"io"
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

// A Limited is a socket's conn that is kept to rates that it shares with others, and
// that notices when it is idle. It is made for [Both], by which one goroutine reads
// and one writes.
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

	cut     chan struct{} // closed when nobody is to pause any more
	cutOnce sync.Once

	base     time.Time
	last     atomic.Int64 // when it was last not idle, in ns since base
	watching atomic.Bool
	pausing  atomic.Int32 // directions that wait to be paid for

	mu    sync.Mutex
	idle  time.Duration // 0: nobody watches
	told  func()
	timer *time.Timer
}

// NewLimited returns a Limited of c, which it owns. in bounds what is read, out what
// is written.
func NewLimited(c sock.Conn, in, out *Rate) *Limited {
	l := &Limited{Conn: c, reader: sock.NewReader(c), writer: c, in: in, out: out, cut: make(chan struct{}), base: time.Now()}
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

// ReadReady reads as [sock.Reader.ReadReady] does, once what was read before is paid
// for. What get returns is used as far as the rate lets it, and put gets all of it,
// up to its capacity.
func (l *Limited) ReadReady(get func() []byte, put func([]byte)) ([]byte, int, error) {
	if err := l.pause(l.in, l.readAt); err != nil {
		return nil, 0, err
	}
	l.get, l.put = get, put
	buf, n, err := l.reader.ReadReady(l.part, l.giveUp)
	l.get, l.put = nil, nil
	l.moved(&l.readAt, l.in, n)
	return buf, n, err
}

// Read reads as ReadReady does, into b.
func (l *Limited) Read(b []byte) (int, error) {
	if err := l.pause(l.in, l.readAt); err != nil {
		return 0, err
	}
	n, err := l.reader.Read(b[:l.in.chunk(len(b), limitedPart)])
	l.moved(&l.readAt, l.in, n)
	return n, err
}

// Write writes b in chunks, and pauses before each until the one before is paid for.
func (l *Limited) Write(b []byte) (total int, err error) {
	for {
		if err := l.Pause(); err != nil {
			return total, err
		}
		n, err := l.writer.Write(b[:l.out.chunk(len(b), limitedPart)])
		l.moved(&l.writeAt, l.out, n)
		total, b = total+n, b[n:]
		if err != nil || len(b) == 0 {
			return total, err
		}
	}
}

// Pause waits until what was written before is paid for. Whoever calls it before it
// takes a buffer for the next Write holds none while that would wait.
func (l *Limited) Pause() error { return l.pause(l.out, l.writeAt) }

// pause waits until it is paid for what was moved before. Whoever is made to wait is
// not idle.
func (l *Limited) pause(r *Rate, at turn) error {
	if at == 0 {
		return nil
	}
	l.pausing.Add(1)
	defer l.pausing.Add(-1)
	err := r.wait(at, l.cut)
	l.alive()
	return err
}

// moved counts n bytes that were read or written now.
func (l *Limited) moved(at *turn, r *Rate, n int) {
	if n <= 0 {
		return
	}
	*at = r.take(n)
	l.alive()
}

// alive notes that the conn is not idle now.
func (l *Limited) alive() {
	if l.watching.Load() {
		l.last.Store(int64(time.Since(l.base)))
	}
}

// SetDeadline sets both deadlines; one that has passed ends pauses, too.
func (l *Limited) SetDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		l.end()
	}
	return l.Conn.SetDeadline(t)
}

// Close closes the conn, and nothing watches it any more.
func (l *Limited) Close() error {
	l.Watch(0, nil)
	l.end()
	return l.Conn.Close()
}

func (l *Limited) end() { l.cutOnce.Do(func() { close(l.cut) }) }

// Watch has f called once no byte was read or written for d, and none had to wait for
// its rate, in a goroutine of its own. Another call takes the place of the one before; with 0 for d nothing is called.
func (l *Limited) Watch(d time.Duration, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if d > 0 && !l.watching.Load() {
		l.last.Store(int64(time.Since(l.base))) // nobody has counted before
	}
	l.watching.Store(d > 0)
	if l.idle, l.told = d, f; d > 0 {
		l.timer = time.AfterFunc(d, l.look)
	}
}

// look calls told, or looks again when that is due.
func (l *Limited) look() {
	l.mu.Lock()
	quiet := time.Since(l.base) - time.Duration(l.last.Load())
	f := l.told
	switch {
	case l.timer == nil:
		f = nil // it has been stopped meanwhile
	case l.pausing.Load() > 0:
		l.timer.Reset(l.idle)
		f = nil
	case quiet < l.idle:
		l.timer.Reset(l.idle - quiet)
		f = nil
	default:
		l.timer = nil
	}
	l.mu.Unlock()
	if f != nil {
		f()
	}
}
