package culvert

import (
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/pkg/code"
)

// A Conn is one stream: a [net.Conn] whose directions end for themselves, and on which
// a clean end and any other are never the same. It is to be closed. All methods may be
// called by several goroutines; concurrent Writes are served one after another.
type Conn struct {
	c             *app.Carried
	local, remote *Addr
	after         func() // called by Close, and ends what there is to say in bounded time; nil for nothing

	closing sync.Once

	mu      sync.Mutex
	closed  bool
	writing int   // Writes under way
	ended   bool  // CloseWrite has been called, without an error
	owed    int64 // bytes that a Write which has failed has left and none has written since
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
)

// Peer returns who holds the other end, as its last handshake has proven it and as its
// credentials are worth now.
func (c *Conn) Peer() Peer {
	p, attr := c.c.Who()
	return Peer{Identifier: p.Identifier, Name: p.Name, ClientAddress: c.c.Client, Attributes: attr}
}

// Service returns the name of the service.
func (c *Conn) Service() string { return c.c.Service }

// Stream returns the stream's number in its channel, as both ends' logs have it.
func (c *Conn) Stream() uint32 { return c.c.ID() }

// ClientAddress returns the address of the client for whom the peer has opened the
// stream, "" if it says none, or has not opened it. It is the peer's claim and proves
// nothing.
func (c *Conn) ClientAddress() string { return c.c.Client }

// LocalAddr returns this end as an *[Addr].
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the other end as an *[Addr].
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read returns data in order. Its error is [io.EOF] where the peer has ended its
// direction and all of it was read, [net.ErrClosed] after Close,
// [os.ErrDeadlineExceeded], or an *[Error], each but io.EOF within a *[net.OpError].
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.c.Read(p)
	return n, c.failed("read", err)
}

// WriteTo is that of [io.WriterTo]. It holds a buffer only while there are bytes for it.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.c.WriteTo(w)
	if own(err) {
		err = c.failed("read", err)
	}
	return n, err
}

// Write sends p. It waits while the peer does not read and the window is full, and while
// there is no path and the buffers are full. Its error is as that of Read; what of p was
// sent before it, may arrive.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.beginWrite(); err != nil {
		return 0, err
	}
	n, err := c.c.Write(p)
	c.endWrite(int64(n), int64(len(p)-n))
	return n, c.failed("write", err)
}

// ReadFrom is that of [io.ReaderFrom]. Whether what r has ended with is the end is for
// the caller to say, by CloseWrite, Close or Abort.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if err := c.beginWrite(); err != nil {
		return 0, err
	}
	n, err := c.c.ReadFrom(r)
	if !own(err) {
		c.endWrite(n, 0)
		return n, err
	}
	c.endWrite(n, unknown)
	return n, c.failed("write", err)
}

func (c *Conn) beginWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.ended {
		return opError("write", c.local, c.remote, net.ErrClosed)
	}
	c.writing++
	return nil
}

// unknown is how much is left of what a ReadFrom has read, or has yet to read: more than
// is ever written.
const unknown = math.MaxInt64

// endWrite notes that a Write has sent n bytes, and that rest of its own are left. Who
// goes on with those has lost nothing; who goes on with less has, whatever that Write
// returns.
func (c *Conn) endWrite(n, rest int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing--
	if c.owed != unknown {
		c.owed = max(c.owed-n, rest)
	}
}

// failed returns an error of the stream as the conn's.
func (c *Conn) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if c.isClosed() {
		err = net.ErrClosed
	}
	return opError(op, c.local, c.remote, ofStream(err))
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// CloseWrite says that there is no more to come: the peer reads io.EOF after everything
// that was written before. The other direction goes on. It waits for Writes under way.
func (c *Conn) CloseWrite() error {
	if c.isClosed() {
		return opError("close", c.local, c.remote, net.ErrClosed)
	}
	if err := c.c.CloseWrite(); err != nil {
		return c.failed("close", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	return nil
}

// Close ends both directions, and Reads and Writes that wait. It returns at once. What
// was written before still arrives, and the peer reads io.EOF behind it, unless a Write
// or ReadFrom was under way or one has failed, so that something may be missing: then the
// peer is told of an abort. A Write that has failed does not count any more when as many
// bytes as it had left were written since; nothing counts after a CloseWrite that has
// not failed. What the peer goes on to write fails there. The Close of a Conn that [Dial]
// has returned does not return at once: it waits for the end of its [Dialer].
func (c *Conn) Close() error { return c.close(false) }

// Abort ends both directions at once, and says to the peer that it is no clean end: its
// Read returns an *[Error] with the code aborted, never io.EOF.
func (c *Conn) Abort() error { return c.close(true) }

// errAborted is how a stream has ended that the program has aborted.
var errAborted = errors.New("the program has closed the connection before its end")

func (c *Conn) close(abort bool) error {
	err := opError("close", c.local, c.remote, net.ErrClosed)
	c.closing.Do(func() {
		err = nil
		c.mu.Lock()
		c.closed = true
		abort = abort || !c.ended && (c.owed > 0 || c.writing > 0)
		past := time.Unix(1, 0)
		_ = c.c.SetDeadline(past) // a stream that is over needs none
		c.mu.Unlock()
		var leaving sync.WaitGroup
		if abort {
			_ = c.c.Reset(code.Aborted) // it is over either way
			c.c.Settle(errAborted)
		} else {
			c.c.Leave()
			leaving.Go(c.leave) // which whoever made the conn waits for
		}
		if c.after != nil {
			c.after()
			leaving.Wait()
		}
	})
	return err
}

// leave says what is left to say, which may wait for a path.
func (c *Conn) leave() {
	err := c.c.CloseWrite()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	_ = c.c.Stream.Close() // it is over either way
	c.c.Settle(err)
}

// SetDeadline sets both deadlines; the zero time is none. A Read or Write that waits
// heeds it, too.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(c.c.SetDeadline, t) }

// SetReadDeadline sets until when Reads may wait.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(c.c.SetReadDeadline, t) }

// SetWriteDeadline sets until when Writes may wait. After one that has failed the peer
// may have got a part of it.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(c.c.SetWriteDeadline, t) }

// setDeadline does not undo what frees Reads and Writes when the conn is closed.
func (c *Conn) setDeadline(set func(time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return opError("set", c.local, c.remote, net.ErrClosed)
	}
	if err := set(t); err != nil {
		return opError("set", c.local, c.remote, ofStream(err))
	}
	return nil
}
