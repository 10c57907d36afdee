//go:build unix

package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// rawWriter writes to a socket through its descriptor.
type rawWriter struct {
	conn socket
	raw  syscall.RawConn
	send func(fd int, b []byte) (int, error)
	try  func(fd uintptr) bool // w.attempt, bound once: write does not allocate

	// For the time of one write.
	buf  []byte
	n    int
	sent *atomic.Uint64 // counts bytes as they are taken
	err  error
}

func rawWriterOf(c net.Conn) *rawWriter {
	if tc, ok := c.(*net.TCPConn); ok {
		return newRawWriter(tc, rawWrite)
	}
	return nil
}

// newRawWriter returns what writes to c by send, which is write(2) or does its part.
func newRawWriter(c socket, send func(fd int, b []byte) (int, error)) *rawWriter {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil // closed or nil; the plain Write says so
	}
	w := &rawWriter{conn: c, raw: rc, send: send}
	w.try = w.attempt
	return w
}

// queued returns how many bytes the kernel has that the peer's has not acknowledged; 0
// where it does not tell.
func (w *rawWriter) queued() (n int) {
	_ = control(w.raw, func(fd uintptr) (err error) {
		if n, err = sendQueue(fd); err != nil {
			n = 0
		}
		return err
	})
	return n
}

// write writes all of b, and counts in sent what is taken of it meanwhile.
func (w *rawWriter) write(b []byte, sent *atomic.Uint64) (int, error) {
	w.buf, w.n, w.sent, w.err = b, 0, sent, nil
	waitErr := w.raw.Write(w.try)
	n, err := w.n, w.err
	w.buf, w.err = nil, nil
	switch {
	case err != nil:
		err = os.NewSyscallError("write", err)
	case waitErr != nil:
		// The deadline has passed or the conn is closed: what is inside is what
		// Write would say.
		err = waitErr
		var oe *net.OpError
		if errors.As(waitErr, &oe) {
			err = oe.Err
		}
	default:
		return n, nil
	}
	return n, &net.OpError{
		Op: "write", Net: w.conn.LocalAddr().Network(),
		Source: w.conn.LocalAddr(), Addr: w.conn.RemoteAddr(), Err: err,
	}
}

// attempt writes what it can and reports whether the write is over; false sends
// the goroutine to the poller.
func (w *rawWriter) attempt(fd uintptr) bool {
	for w.n < len(w.buf) {
		n, err := w.send(int(fd), w.buf[w.n:])
		switch {
		case n > 0:
			w.n += n
			w.sent.Add(uint64(n))
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return false
		case err == nil:
			w.err = io.ErrUnexpectedEOF // as package poll has it
			return true
		default:
			w.err = err
			return true
		}
	}
	return true
}
