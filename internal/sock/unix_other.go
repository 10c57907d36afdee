//go:build unix && !linux

package sock

import "net"

// A keeper keeps nothing: this system cannot tell a peer of an abort.
type keeper struct{}

func (*keeper) keep(c *net.UnixConn) (*Reader, *Writer) {
	return NewReader(c), &Writer{conn: c, raw: newRawWriter(c, rawWrite)}
}

func (*keeper) release(*net.UnixConn) error { return nil }
