//go:build !unix

package sock

import "net"

// A keeper keeps nothing: this system cannot tell a peer of an abort.
type keeper struct{}

func (*keeper) keep(c *net.UnixConn) (*Reader, *Writer) { return NewReader(c), NewWriter(c) }

func (*keeper) release(*net.UnixConn) error { return nil }
