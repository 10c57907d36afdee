package target

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// ErrTruncated ends what is read from a target that has closed its connection without
// close_notify: what it has sent may not be all that it had to say (RFC 8446, 6.1).
var ErrTruncated = errors.New("the target has closed its connection without TLS's close_notify, so that what it sent may be cut short")

// A secured conn is TLS with a target, with ends that say what they are: its reads
// end with io.EOF after close_notify alone.
type secured struct {
	tls   *tls.Conn
	under *carrier
}

// ReadReady holds no buffer while the target is quiet.
func (s *secured) ReadReady(get func() []byte, put func([]byte)) ([]byte, int, error) {
	for {
		buf := get()
		n, err := s.tls.Read(buf)
		again := errors.Is(err, errNotReady)
		switch {
		case n > 0 && again:
			return buf, n, nil
		case n > 0:
			return buf, n, s.own("read", err)
		}
		put(buf)
		if !again {
			return nil, 0, s.own("read", err)
		}
		if err := s.under.await(); err != nil {
			return nil, 0, s.own("read", err)
		}
	}
}

// Read waits for bytes.
func (s *secured) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	_, n, err := s.ReadReady(func() []byte { return b }, func([]byte) {})
	return n, err
}

// Write writes all of b, or returns an error.
func (s *secured) Write(b []byte) (int, error) {
	n, err := s.tls.Write(b)
	return n, s.own("write", err)
}

// Moved is [sock.Writer.Moved] of the socket.
func (s *secured) Moved() uint64 { return s.under.writer.Moved() }

// CloseWrite says close_notify, and then ends what the socket sends, for targets that
// look at that alone.
func (s *secured) CloseWrite() error {
	if err := s.tls.CloseWrite(); err != nil {
		return s.own("write", err)
	}
	return s.under.CloseWrite()
}

// Close closes the socket, and says nothing by TLS: only CloseWrite says that what
// was sent is all.
func (s *secured) Close() error { return s.under.Close() }

// SetLinger is the socket's.
func (s *secured) SetLinger(sec int) error { return s.under.SetLinger(sec) }

// NetConn returns the socket.
func (s *secured) NetConn() net.Conn { return s.under.Conn }

// EndOrReset returns nil: an end of what is read was said by TLS, whatever has become
// of the socket since.
func (s *secured) EndOrReset() error { return nil }

// LocalAddr returns the socket's.
func (s *secured) LocalAddr() net.Addr { return s.under.LocalAddr() }

// RemoteAddr returns the socket's.
func (s *secured) RemoteAddr() net.Addr { return s.under.RemoteAddr() }

// SetDeadline bounds reads and writes. After a write that a deadline has ended no
// other is possible.
func (s *secured) SetDeadline(t time.Time) error { return s.under.SetDeadline(t) }

// SetReadDeadline bounds reads.
func (s *secured) SetReadDeadline(t time.Time) error { return s.under.SetReadDeadline(t) }

// SetWriteDeadline bounds writes, as SetDeadline does.
func (s *secured) SetWriteDeadline(t time.Time) error { return s.under.SetWriteDeadline(t) }

// own makes of an error one that is told to be this conn's.
func (s *secured) own(op string, err error) error {
	var oe *net.OpError
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.As(err, &oe) && (oe.Op == "read" || oe.Op == "write"):
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// A carrier is the socket under TLS. Once TLS is open a read takes what is there and
// waits for nothing, so that nobody holds a buffer meanwhile.
type carrier struct {
	sock.Conn
	writer *sock.Writer // for package tls, which writes one record after another
	open   bool         // the handshake is over
	ready  bool         // of the reader: there is something to be read, or an end
}

// Write writes all of b, or returns an error.
func (c *carrier) Write(b []byte) (int, error) { return c.writer.Write(b) }

// Read reads once where there is something, and once only.
func (c *carrier) Read(b []byte) (int, error) {
	if !c.open {
		return c.Conn.Read(b)
	}
	if !c.ready {
		return 0, errNotReady
	}
	c.ready = false
	n, err := c.Conn.Read(b)
	if err == io.EOF {
		err = ErrTruncated
	}
	return n, err
}

// await waits until there is something to be read.
func (c *carrier) await() error {
	err := sock.AwaitReadable(c.Conn)
	c.ready = err == nil
	return err
}

// errNotReady says that nothing is there yet. Package tls goes on after an error that
// is temporary.
var errNotReady error = notReady{}

type notReady struct{}

func (notReady) Error() string   { return "nothing is there to be read yet" }
func (notReady) Timeout() bool   { return true }
func (notReady) Temporary() bool { return true }
