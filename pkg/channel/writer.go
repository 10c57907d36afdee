package channel

import (
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/noise"
)

const (
	// headroom at the front of a wireBuf takes the control records that
	// overtake its data: one ATTACHED, ACK, PONG and PING each.
	headroom = 4*(headerLen+typeLen+tagLen) + attachedLen + ackLen + 2*pingLen
	// wireBufSize holds two whole records and some small ones; it is a size that
	// memory comes in.
	wireBufSize = 136 << 10
	// pendMax is where Writes end in a buffer that is being filled, with another
	// one on its way: 256 KiB unsent.
	pendMax = headroom + 2*(headerLen+maxRecord)
	// A new record is not begun for less room than this.
	minRoom = 1024
	// A Write of up to inlineMax bytes, when nothing else is on its way, is
	// sealed and sent by the caller itself, which spares a lone request the
	// hand-off; larger ones go through the flusher, so that the caller prepares
	// the next bytes while these are being sent.
	inlineMax = 16 << 10
	// maxKeyBytes is the hard stop under one key. Writes end keyReserve before
	// it: what has been accepted, and the CLOSE that says why, still leave.
	maxKeyBytes = 512 << 30
	keyReserve  = 1 << 20
)

type wireBuf [wireBufSize]byte

var wireBufs = sync.Pool{New: func() any { return new(wireBuf) }}

// A writer turns bytes into records and sends them. Whoever has set busy owns
// the cipher and the sending: the caller of Write, or the flusher, a goroutine
// that lives while there is something to send. All else is guarded by mu.
type writer struct {
	nc     net.Conn
	out    *sock.Writer // nc's
	cipher *noise.Cipher

	keyBytes atomic.Uint64 // of plaintext sealed
	sent     atomic.Int64  // time of the last send, in ns since the conn's base
	base     time.Time
	failure  atomic.Pointer[error] // err, for those who may not take mu

	mu      sync.Mutex
	changed sync.Cond // room, idle, err or the deadline
	pend    *wireBuf  // data records not yet sealed; nil when there are none
	n       int       // pend's length
	open    int       // offset of pend's record that still takes bytes, or -1
	ping    bool      // a PING is due
	pong    bool      // a PONG is due
	echo    [pingLen]byte
	ack     bool     // an ACK is due, of what channel says then
	first   []byte   // ATTACHED's body, which goes before everything else
	channel *Channel // has the bytes, instead of pend, of a Conn that is its path
	conn    *Conn    // the writer's own
	partly  bool     // a Write waits for room for the rest of its bytes
	count   uint64   // bytes of data accepted
	last    []byte   // plaintext of the record that ends the direction
	ended   bool     // nothing more is accepted
	busy    bool
	inline  bool // busy, by a caller of Write
	err     error

	deadline    *time.Timer
	deadlineGen int
	timedOut    bool
	hasDeadline bool
	kicked      bool      // nc's write deadline was moved only to free an inline writer
	ncDeadline  time.Time // what nc's write deadline is otherwise

	// What an inline writer that was freed leaves to the flusher.
	restBuf *wireBuf
	rest    []byte

	flusher  func() // w.flush, bound once: a go statement with it allocates nothing
	flushers sync.WaitGroup
}

func (w *writer) init(c *Conn, cipher *noise.Cipher) {
	w.conn, w.nc, w.out, w.cipher, w.base, w.open = c, c.nc, sock.NewWriter(c.nc), cipher, c.base, -1
	w.changed.L = &w.mu
	w.flusher = w.flush
}

// write accepts all of p, waiting for room. When it returns without an error,
// p is in a buffer or sent; a later failure ends the Conn. No bytes of another
// Write come between those of p.
func (w *writer) write(p []byte) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if err := w.stateLocked(); err != nil {
			if n > 0 {
				w.partly = false
				w.changed.Broadcast()
			}
			return n, err
		}
		k := 0
		if n > 0 || !w.partly {
			k = w.appendLocked(p[n:])
			n += k
			w.partly = 0 < n && n < len(p)
		}
		if k > 0 {
			w.sendLocked(len(p) <= inlineMax)
		}
		if n == len(p) {
			return n, nil
		}
		if k == 0 {
			w.changed.Wait()
		}
	}
}

// stateLocked returns why nothing can be written now, or nil.
func (w *writer) stateLocked() error {
	switch {
	case w.ended:
		return net.ErrClosed
	case w.err != nil:
		return w.err
	case w.keyBytes.Load() > maxKeyBytes-keyReserve:
		return ErrKeyExhausted
	case w.timedOut:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// appendLocked copies as much of p as there is room for into pend, in the
// layout of records before sealing: length of the plaintext u16, type, body,
// room for the tag.
func (w *writer) appendLocked(p []byte) (n int) {
	if len(p) > 0 && w.pend == nil {
		w.pend, w.n, w.open = wireBufs.Get().(*wireBuf), headroom, -1
	}
	for n < len(p) {
		if w.open < 0 {
			if pendMax-w.n < minRoom {
				break
			}
			w.open = w.n
			binary.BigEndian.PutUint16(w.pend[w.open:], typeLen)
			w.pend[w.open+headerLen] = byte(typeData)
			w.n += headerLen + typeLen + tagLen
		}
		plain := int(binary.BigEndian.Uint16(w.pend[w.open:]))
		room := min(maxPlain-plain, pendMax-w.n)
		if room == 0 {
			w.open = -1
			if w.n == pendMax {
				break
			}
			continue
		}
		k := copy(w.pend[w.open+headerLen+plain:][:room], p[n:])
		binary.BigEndian.PutUint16(w.pend[w.open:], uint16(plain+k))
		w.n += k
		n += k
	}
	w.count += uint64(n)
	return n
}

// sendLocked sees to it that what waits gets sent: at once by this goroutine if
// inline says so, or by the flusher, or by whoever is sending already.
func (w *writer) sendLocked(inline bool) {
	if w.busy {
		return
	}
	w.busy = true
	if !inline || w.hasDeadline {
		w.startFlusherLocked()
		return
	}
	w.inline = true
	w.roundLocked()
	w.inline = false
	if w.workLocked() || w.rest != nil {
		// Others have added something meanwhile, or a deadline has freed this
		// caller: the rest is not its to wait for.
		w.startFlusherLocked()
		return
	}
	w.idleLocked()
}

// signalLocked asks for control records to be sent, without ever blocking.
func (w *writer) signalLocked() {
	if !w.busy && w.err == nil {
		w.busy = true
		w.startFlusherLocked()
	}
}

func (w *writer) startFlusherLocked() {
	w.flushers.Add(1)
	go w.flusher()
}

// flush sends what an inline writer has left, and then whatever waits.
func (w *writer) flush() {
	defer w.flushers.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	if buf, rest := w.restBuf, w.rest; buf != nil {
		w.mu.Unlock()
		_, err := w.send(rest)
		w.mu.Lock()
		w.restBuf, w.rest = nil, nil
		wireBufs.Put(buf)
		w.failLocked(err)
	}
	for w.workLocked() {
		w.roundLocked()
		if !w.workLocked() {
			// Whoever fills the next record may only wait for a processor, and a new
			// goroutine would have to grow its stack anew.
			w.mu.Unlock()
			runtime.Gosched()
			w.mu.Lock()
		}
	}
	w.idleLocked()
}

func (w *writer) workLocked() bool {
	return w.err == nil && (w.pend != nil || w.ping || w.pong || w.ack || w.first != nil || w.last != nil ||
		w.channel != nil && w.channel.sendable(w.conn))
}

func (w *writer) idleLocked() {
	w.busy = false
	w.changed.Broadcast()
}

func (w *writer) failLocked(err error) {
	if err == nil || w.err != nil {
		return
	}
	w.err = err
	failure := err // a name of its own: err's address would cost every caller an allocation
	w.failure.Store(&failure)
	if w.pend != nil {
		wireBufs.Put(w.pend)
		w.pend = nil
	}
	if w.channel != nil {
		// Whoever reads the path finds its end, and tells the channel.
		_ = sock.ResetClose(w.nc)
	}
	w.changed.Broadcast()
}

// roundLocked seals and sends what waits now. It is called with mu held and
// busy set, and gives mu up meanwhile.
func (w *writer) roundLocked() {
	buf, n := w.pend, w.n
	w.pend, w.open = nil, -1
	if buf == nil {
		buf, n = wireBufs.Get().(*wireBuf), headroom
	}
	start := w.controlLocked(buf)
	var last []byte
	if w.last != nil && wireBufSize-n >= headerLen+len(w.last)+tagLen {
		last, w.last = w.last, nil
	}
	w.changed.Broadcast()
	w.mu.Unlock()

	var wire []byte
	n, err := w.finish(buf, start, n, last)
	if err == nil {
		wire, err = w.send(buf[start:n])
	}
	if err != nil || len(wire) == 0 {
		wireBufs.Put(buf)
		w.mu.Lock()
		w.failLocked(err)
		return
	}
	// A record that is half sent cannot be taken back: the flusher sends the
	// rest.
	w.mu.Lock()
	w.restBuf, w.rest = buf, wire
}

// setDeadline bounds writes that wait for room. Bytes already accepted are
// sent all the same.
func (w *writer) setDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	if w.deadline != nil {
		w.deadline.Stop()
		w.deadline = nil
	}
	w.deadlineGen++
	w.hasDeadline, w.timedOut = !t.IsZero(), false
	if t.IsZero() {
		return
	}
	gen := w.deadlineGen
	if d := time.Until(t); d > 0 {
		w.deadline = time.AfterFunc(d, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.deadlineGen == gen {
				w.expireLocked()
			}
		})
		return
	}
	w.expireLocked()
}

func (w *writer) expireLocked() {
	w.timedOut = true
	w.changed.Broadcast()
	if w.inline && !w.kicked {
		w.kicked = true
		_ = w.nc.SetWriteDeadline(time.Unix(1, 0))
	}
}

// end refuses further writes, sends last after all that was accepted, and
// waits for it to leave, until the time given. It is called once.
func (w *writer) end(last []byte, until time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deadline != nil {
		w.deadline.Stop()
	}
	w.deadlineGen++
	w.ended = true
	w.last = last
	w.ncDeadline = until
	if !w.kicked {
		_ = w.nc.SetWriteDeadline(until)
	}
	w.changed.Broadcast()
	if !w.busy && w.workLocked() {
		w.busy = true
		w.startFlusherLocked()
	}
	return w.waitIdleLocked()
}

// waitIdleLocked waits until everything accepted has been handed to nc.
func (w *writer) waitIdleLocked() error {
	for w.err == nil && (w.busy || w.workLocked() || w.rest != nil) {
		w.changed.Wait()
	}
	return w.err
}
