package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/noise"
)

// A Conn is a handshaken conversation on one path: a net.Conn whose Read
// returns io.EOF only after the peer's authenticated clean close. Nothing runs
// in the background but, while there is something to send, a flusher, and the
// keepalive's timer: PINGs are answered inside Read.
//
// Its methods may be called concurrently. A Write returns when its bytes are
// in a buffer, of which at most 256 KiB are unsent.
type Conn struct {
	nc      net.Conn
	peer    Peer
	purpose Purpose
	linger  time.Duration
	base    time.Time // times below are nanoseconds since

	// channel is what the Conn is a path of, nil for a Conn of its own. It is
	// set before anything is read or written, and takes DATA's bytes from Read
	// and the records that are a channel's from control.
	channel *Channel
	epoch   uint64 // the attempt that has made this path

	w writer

	// The read side, guarded by readMu. buf[r:n] is ciphertext as it came,
	// plain what is decrypted and not returned yet, inside buf.
	readMu  sync.Mutex
	recv    *noise.Cipher
	ready   *sock.Reader
	buf     *wireBuf // nil while nothing is held
	r, n    int
	plain   []byte
	count   uint64        // bytes of data received
	keyUsed atomic.Uint64 // of plaintext opened; written under readMu
	readErr error         // sticky
	lie     error         // authenticated, but not allowed: what the peer is not to be forgiven
	unused  bool          // a path whose responder has not said ATTACHED yet
	look    bool          // Read is to return, for its caller to look at the channel again
	attach  attached      // what it has said

	received atomic.Int64  // time of the last authenticated record
	waiting  atomic.Int64  // since when a Read waits for a record, 0 if none does
	fault    atomic.Uint32 // code to close with, instead of ok

	// deadlineMu moves readDeadline and nc's own together, and begins the end:
	// once finished is closed, nc's read deadline is Close's or Detach's.
	deadlineMu   sync.Mutex
	readDeadline time.Time

	keepMu    sync.Mutex
	keepTimer *time.Timer
	pingEvery time.Duration
	deadAfter time.Duration
	keepDone  bool

	finishOnce sync.Once
	finished   chan struct{} // closed when Close or Detach begins
	closeErr   error
	dead       atomic.Bool
	detached   atomic.Bool
}

func newConn(nc net.Conn, send, recv *noise.Cipher, peer Peer, p Purpose, opt Options, leftover []byte) *Conn {
	c := &Conn{
		nc: nc, peer: peer, purpose: p, linger: opt.Linger,
		base: time.Now(), recv: recv, ready: sock.NewReader(nc), finished: make(chan struct{}),
	}
	c.w.init(c, send)
	if len(leftover) > 0 {
		c.buf = wireBufs.Get().(*wireBuf)
		c.n = copy(c.buf[:], leftover)
	}
	return c
}

// Peer returns whom the handshake authenticated.
func (c *Conn) Peer() Peer { return c.peer }

// Purpose returns what the handshake was for.
func (c *Conn) Purpose() Purpose { return c.purpose }

// LocalAddr returns the path's local address.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the path's remote address: the next hop's, not the
// peer's.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Write accepts all of p or returns an error.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.w.write(p)
	switch {
	case err == nil:
	case c.detached.Load():
		err = ErrDetached
	case errors.Is(err, ErrKeyExhausted):
		c.fault.Store(uint32(code.KeyExhausted))
	case c.dead.Load() && c.endErr() == nil:
		err = ErrDead
	}
	return n, err
}

// Read returns data in order. Its error is io.EOF after a clean close, a
// *CloseError or *RefusedError after one that says why, [ErrDead] when the
// peer went silent, [ErrProtocol] or an error of the cipher when it sent what
// it may not, and wraps io.ErrUnexpectedEOF when the path ended without a
// close.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.endErr(); err != nil {
		return 0, err // without waiting for Close, which holds readMu
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.readState(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.plain) == 0 {
		if c.readErr != nil {
			return 0, c.readErr
		}
		if err := c.recordLocked(); err != nil {
			return 0, err
		}
		if c.look {
			c.look = false
			return 0, nil
		}
	}
	n := copy(p, c.plain)
	c.plain = c.plain[n:]
	c.releaseLocked()
	return n, nil
}

// endErr returns what Read and Write return once Close or Detach has begun.
func (c *Conn) endErr() error {
	if c.detached.Load() {
		return ErrDetached
	}
	select {
	case <-c.finished:
		return net.ErrClosed
	default:
		return nil
	}
}

// readState returns why nothing can be read now, or nil.
func (c *Conn) readState() error {
	if err := c.endErr(); err != nil {
		return err
	}
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if !c.readDeadline.IsZero() && !time.Now().Before(c.readDeadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// releaseLocked gives the buffer back when it holds nothing.
func (c *Conn) releaseLocked() {
	if c.buf != nil && len(c.plain) == 0 && c.r == c.n {
		wireBufs.Put(c.buf)
		c.buf, c.plain, c.r, c.n = nil, nil, 0, 0
	}
}

// recordLocked reads, opens and handles one record. Errors that a later Read
// may get past (a deadline) are returned; all others stick in readErr.
func (c *Conn) recordLocked() error {
	if err := c.awaitLocked(); err != nil {
		return err
	}
	n := c.recordLenLocked()
	sealed := c.buf[c.r+headerLen : c.r+headerLen+n]
	c.r += headerLen + n
	plain, err := c.openLocked(sealed)
	if err == nil {
		err = c.handleLocked(recordType(plain[0]), plain[typeLen:])
		if errors.Is(err, ErrProtocol) {
			c.lie = err
		}
	}
	if err != nil {
		c.failLocked(err)
	}
	c.releaseLocked()
	return c.readErr
}

// awaitLocked reads until the buffer begins with a whole record. All that time
// counts as waiting: pieces of a record are no sign of life, anyone on the way
// can send them. The peer keeps its records short instead (flight.record).
func (c *Conn) awaitLocked() error {
	if c.wholeLocked() {
		return nil
	}
	c.waiting.Store(max(1, int64(time.Since(c.base))))
	defer c.waiting.Store(0)
	for !c.wholeLocked() {
		if err := c.fillLocked(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) wholeLocked() bool {
	return c.n-c.r >= headerLen && c.n-c.r >= headerLen+c.recordLenLocked()
}

func (c *Conn) recordLenLocked() int {
	return int(binary.BigEndian.Uint16(c.buf[c.r:]))
}

func (c *Conn) openLocked(sealed []byte) ([]byte, error) {
	if len(sealed) < tagLen+typeLen {
		return nil, fmt.Errorf("%w: record of %d bytes", ErrProtocol, len(sealed))
	}
	if c.keyUsed.Add(uint64(len(sealed)-tagLen)) > maxKeyBytes+(maxKeyBytes>>4) {
		return nil, ErrKeyExhausted
	}
	plain, err := c.recv.Open(sealed[:0], nil, sealed)
	if err != nil {
		return nil, fmt.Errorf("opening a record: %w", err)
	}
	c.received.Store(int64(time.Since(c.base)))
	return plain, nil
}

// handleLocked acts on one authenticated record.
func (c *Conn) handleLocked(t recordType, body []byte) error {
	switch t {
	case typeData:
		if len(body) == 0 || c.unused {
			return fmt.Errorf("%w: DATA that is empty or before ATTACHED", ErrProtocol)
		}
		c.plain = body
		c.count += uint64(len(body))
		return nil
	case typePing:
		if len(body) != pingLen {
			return fmt.Errorf("%w: PING of %d bytes", ErrProtocol, len(body))
		}
		if c.channel != nil {
			c.channel.pinged(c, body)
		}
		c.w.answer([pingLen]byte(body))
		return nil
	case typePong:
		if len(body) != pingLen {
			return fmt.Errorf("%w: PONG of %d bytes", ErrProtocol, len(body))
		}
		if c.channel != nil {
			c.channel.ponged(c, body)
		}
		return nil
	case typeAck, typeAttached:
		if c.channel == nil {
			return fmt.Errorf("%w: record of type %d, which only channels have", ErrProtocol, t)
		}
		return c.channel.control(c, t, body)
	case typeClose:
		if c.channel != nil {
			return c.channel.control(c, t, body)
		}
		offset, cd, reason, err := parseClose(body)
		switch {
		case err != nil:
			return err
		case offset != c.count:
			return fmt.Errorf("%w: CLOSE after %d bytes, %d received", ErrProtocol, offset, c.count)
		case cd == code.OK:
			return io.EOF
		}
		return &CloseError{Code: cd, Reason: reason}
	case typeRefused:
		cd, reason, err := parseCodeReason(body)
		if err != nil {
			return err
		}
		if c.count > 0 || c.channel != nil && !c.unused {
			return fmt.Errorf("%w: REFUSED after %d bytes", ErrProtocol, c.count)
		}
		return &RefusedError{Code: cd, Reason: reason}
	default:
		return fmt.Errorf("%w: record of type %d", ErrProtocol, t)
	}
}

// failLocked ends the read side for good.
func (c *Conn) failLocked(err error) {
	c.readErr = err
	c.r, c.n, c.plain = 0, 0, nil
	switch {
	case errors.Is(err, ErrProtocol), errors.Is(err, noise.ErrAuthentication):
		c.fault.Store(uint32(code.Protocol))
	case errors.Is(err, ErrKeyExhausted):
		c.fault.Store(uint32(code.KeyExhausted))
	}
}

// fillLocked reads more of what the peer has sent. Deadlines and the end of
// the Conn are returned; what ends the path sticks in readErr.
func (c *Conn) fillLocked() error {
	n, err := c.readPathLocked()
	c.n += n
	if n > 0 || err == nil {
		return nil
	}
	if stateErr := c.readState(); stateErr != nil {
		return stateErr
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case c.dead.Load():
		err = ErrDead
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("path ended without a close: %w", io.ErrUnexpectedEOF)
	default:
		err = fmt.Errorf("reading from the path: %w", err)
	}
	c.failLocked(err)
	c.releaseLocked()
	return c.readErr
}

// readPathLocked reads into the buffer; while nothing is held, the buffer is
// taken only once there is something to read.
func (c *Conn) readPathLocked() (int, error) {
	if c.buf == nil {
		b, n, err := c.ready.ReadReady(getWire, putWire)
		if b != nil {
			c.buf, c.r, c.n = (*wireBuf)(b), 0, 0
		}
		if n == 0 && err != nil {
			c.releaseLocked()
		}
		return n, err
	}
	if wireBufSize-c.r < headerLen+maxRecord {
		copy(c.buf[:], c.buf[c.r:c.n])
		c.r, c.n = 0, c.n-c.r
	}
	return c.ready.Read(c.buf[c.n:])
}

func getWire() []byte  { return wireBufs.Get().(*wireBuf)[:] }
func putWire(b []byte) { wireBufs.Put((*wireBuf)(b)) }

// Buffered returns how many bytes have been read from the path and not yet
// returned by Read, ciphertext included. It waits for a Read that is under way.
func (c *Conn) Buffered() int {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return len(c.plain) + c.n - c.r
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Reads that wait for the peer.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	select {
	case <-c.finished:
		return net.ErrClosed
	default:
	}
	c.readDeadline = t
	return c.nc.SetReadDeadline(t)
}

// SetWriteDeadline bounds Writes that wait for room. It never takes back what
// a Write has accepted.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	select {
	case <-c.finished:
		return net.ErrClosed
	default:
	}
	c.w.setDeadline(t)
	return nil
}
