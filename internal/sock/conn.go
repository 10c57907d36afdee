package sock

import (
	"fmt"
	"net"
)

// A Conn is a connection to a program beside this one: *net.TCPConn is one, and so
// is [*Unix].
type Conn interface {
	net.Conn

	// CloseWrite ends what this side sends. What the other side sends is still
	// read.
	CloseWrite() error

	// SetLinger says what Close is to the peer: with 0 a reset, as far as the
	// socket knows one, below 0 a clean end.
	SetLinger(sec int) error
}

// A ReadyReader is a conn that reads as [Reader.ReadReady] says by itself, since it
// is not what its socket reads. Errors of its reads and writes are *[net.OpError]
// with its addresses.
type ReadyReader interface {
	ReadReady(get func() []byte, put func([]byte)) (buf []byte, n int, err error)
}

// Of returns c, which is a TCP or unix socket's, as a Conn. It owns c from then on:
// a unix socket's is read by nothing else.
func Of(c net.Conn) (Conn, error) {
	switch c := c.(type) {
	case Conn:
		return c, nil
	case *net.UnixConn:
		return NewUnix(c), nil
	}
	return nil, fmt.Errorf("a connection by %s cannot be half closed: want one of TCP or a unix socket", c.LocalAddr().Network())
}
