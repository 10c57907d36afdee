package sock

import "net"

// A Unix is the conn of a unix stream socket that can tell its peer of an abort.
//
// Such a socket knows no reset: whatever happened, a peer reads an end of the data
// once the socket is closed. There is one exception. Where bytes are lost that were
// not read when it is closed, Linux tells the peer ECONNRESET (unix_release_sock,
// net/unix/af_unix.c). So a Unix leaves the last byte that it has read in the
// kernel (MSG_PEEK, SO_PEEK_OFF, socket(7)), and takes it only when more has come,
// or before a clean end. Closed in any other way, by the death of the process too,
// the peer reads what it was sent, and then a reset.
//
// A peer that has not sent a byte cannot be told, nor can any on systems other than
// Linux: it reads an end.
//
// One goroutine reads and one writes at a time. It costs two system calls more a
// read, and no copy.
type Unix struct {
	*net.UnixConn
	keeper keeper
	r      *Reader
	w      *Writer
}

// NewUnix returns a Unix of c, of which nothing has been read, and which is read by
// nothing else from then on.
func NewUnix(c *net.UnixConn) *Unix {
	u := &Unix{UnixConn: c}
	u.r, u.w = u.keeper.keep(c)
	return u
}

// Read reads what has come.
func (u *Unix) Read(b []byte) (int, error) { return u.r.Read(b) }

// ReadReady is [Reader.ReadReady].
func (u *Unix) ReadReady(get func() []byte, put func([]byte)) (buf []byte, n int, err error) {
	return u.r.ReadReady(get, put)
}

// Await is [Reader.Await].
func (u *Unix) Await() error { return u.r.Await() }

// Moved is [Writer.Moved].
func (u *Unix) Moved() uint64 { return u.w.Moved() }

// Write writes all of b, or returns an error.
func (u *Unix) Write(b []byte) (int, error) { return u.w.Write(b) }

// SetLinger with less than 0 makes Close, and every read from now on, what it is of
// any unix socket: a peer whose data has been read to its end sees a clean end. Any
// other number changes nothing.
func (u *Unix) SetLinger(sec int) error {
	if sec >= 0 {
		return nil
	}
	return u.keeper.release(u.UnixConn)
}
