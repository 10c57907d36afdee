package sock

import "golang.org/x/sys/unix"

// endedFirst reports whether the peer of a TCP socket that has none any more had sent
// its end before it reset the connection, and nobody was told of the reset: in
// CLOSE-WAIT tcp_reset leaves EPIPE, in all other states ECONNRESET. It takes that
// away; a write fails with EPIPE all the same.
func endedFirst(fd uintptr) bool {
	errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	return err == nil && unix.Errno(errno) == unix.EPIPE
}
