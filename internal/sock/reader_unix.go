//go:build unix

package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// rawReader reads a socket through its descriptor. Between two calls of its
// callback the runtime's poller waits with no buffer taken. The scheduler is not
// told of its reads: see Writer.
type rawReader struct {
	conn net.Conn
	raw  syscall.RawConn
	recv func(fd int, b []byte) (int, error)
	look func(fd int) (bool, error) // whether recv would return at once, and with what error
	try  func(fd uintptr) bool      // r.attempt, bound once: read does not allocate

	// For the time of one read.
	get func() []byte
	put func([]byte)
	buf []byte
	n   int
	err error
}

func rawReaderOf(c net.Conn) *rawReader {
	switch c := c.(type) {
	case *net.TCPConn:
		return newRawReader(c, rawRead)
	case *net.UnixConn:
		return newRawReader(c, rawRead)
	}
	return nil
}

// A socket is a conn of package net's own.
type socket interface {
	net.Conn
	syscall.Conn
}

// newRawReader returns what reads c by recv, which is read(2) or does its part. That
// is ready when read(2) would be, unless look says otherwise.
func newRawReader(c socket, recv func(fd int, b []byte) (int, error)) *rawReader {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil // closed or nil; the plain Read says so
	}
	r := &rawReader{conn: c, raw: rc, recv: recv, look: readable}
	r.try = r.attempt
	return r
}

func (r *rawReader) read(get func() []byte, put func([]byte)) ([]byte, int, error) {
	r.get, r.put = get, put
	waitErr := r.raw.Read(r.try)
	buf, n, err := r.buf, r.n, r.err
	r.get, r.put, r.buf, r.n, r.err = nil, nil, nil, 0, nil
	switch {
	case n > 0:
		return buf, n, nil
	case err != nil:
		return nil, 0, r.failed(err)
	case waitErr != nil:
		return nil, 0, waitErr
	}
	return nil, 0, io.EOF
}

// failed returns an error of a read as package net has it.
func (r *rawReader) failed(err error) error {
	return &net.OpError{
		Op: "read", Net: r.conn.LocalAddr().Network(),
		Source: r.conn.LocalAddr(), Addr: r.conn.RemoteAddr(), Err: os.NewSyscallError("read", err),
	}
}

// await waits until an attempt would not.
func (r *rawReader) await() error {
	var err error
	waitErr := r.raw.Read(func(fd uintptr) bool {
		var ok bool
		ok, err = r.look(int(fd))
		return ok
	})
	switch {
	case waitErr != nil:
		return waitErr
	case err == nil, err == io.EOF:
		return err
	}
	return r.failed(err)
}

// attempt reads once and reports whether the read is over; false sends the
// goroutine to the poller. It must try before it waits: the poller only wakes
// for what arrives after a failed try.
func (r *rawReader) attempt(fd uintptr) bool {
	r.buf = r.get()
	for {
		n, err := r.recv(int(fd), r.buf)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if n > 0 {
			r.n = n
			return true
		}
		r.put(r.buf)
		r.buf = nil
		if errors.Is(err, syscall.EAGAIN) {
			return false
		}
		r.err = err
		return true
	}
}
