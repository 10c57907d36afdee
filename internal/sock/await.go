package sock

import "net"

// AwaitReadable waits until a read of c, a TCP socket's conn, would return bytes or
// the end at once, and takes neither. It returns the error that the read would have
// returned, which a system tells only once. The read deadline bounds it. Where the
// system cannot tell it returns at once.
func AwaitReadable(c net.Conn) error {
	rc := rawConn(c)
	if rc == nil {
		return nil
	}
	return awaitReadable(rc)
}
