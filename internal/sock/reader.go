package sock

import "net"

// A Reader reads from one conn and takes a buffer only once there are bytes to
// put into it, so that a thousand quiet conns hold no buffer between them. It
// is for one goroutine. For a conn that is not package net's own (a wrapper may
// read otherwise than its socket), unless it is a [ReadyReader], and on Windows it takes the buffer first.
type Reader struct {
	conn net.Conn
	own  ReadyReader // the conn's own way; nil: it has none
	raw  *rawReader  // nil: take the buffer first

	given []byte        // Read's, for its time
	take  func() []byte // returns it; bound once, so that Read does not allocate
}

// NewReader returns a Reader of c.
func NewReader(c net.Conn) *Reader {
	if own, ok := c.(ReadyReader); ok {
		return &Reader{conn: c, own: own}
	}
	return newReader(c, rawReaderOf(c))
}

func newReader(c net.Conn, raw *rawReader) *Reader {
	r := &Reader{conn: c, raw: raw}
	r.take = func() []byte { return r.given }
	return r
}

// ReadReady waits until c can be read, takes a buffer with get and reads into
// it once. When there are bytes (n > 0) the buffer is the caller's, otherwise
// it went back with put and buf is nil; get may so be called more often than
// ReadReady returns. Errors are those of c.Read, io.EOF and deadlines included.
// It does not allocate.
func (r *Reader) ReadReady(get func() []byte, put func([]byte)) (buf []byte, n int, err error) {
	switch {
	case r.own != nil:
		return r.own.ReadReady(get, put)
	case r.raw != nil:
		return r.raw.read(get, put)
	}
	buf = get()
	n, err = r.conn.Read(buf)
	if n <= 0 {
		put(buf)
		buf, n = nil, 0
	}
	return buf, n, err
}

// Read is c.Read: errors and deadlines are the same. It does not allocate.
func (r *Reader) Read(b []byte) (n int, err error) {
	if r.raw == nil || len(b) == 0 {
		return r.conn.Read(b)
	}
	r.given = b
	_, n, err = r.raw.read(r.take, leave)
	r.given = nil
	return n, err
}

func leave([]byte) {}

// An awaiter is a [ReadyReader] that can tell when it is ready.
type awaiter interface{ Await() error }

// Await waits until a read would return bytes or an error at once, and takes no byte. It
// returns the error that the read would have returned, which a system tells only once,
// io.EOF included. The read deadline bounds it. Where the conn cannot tell, as on Windows,
// it returns nil, at once or too early.
func (r *Reader) Await() error {
	if own, ok := r.own.(awaiter); ok {
		return own.Await()
	}
	if r.raw == nil {
		return nil
	}
	return r.raw.await()
}
