//go:build !unix

package obs

import "syscall"

// refused reports whether nobody listens where err came from. Without a way to
// know, a left-over socket stays, and listening says that it is in the way.
func refused(error) bool { return false }

// private can do nothing here: the folder's access list guards the socket.
func private(_, _ string, _ syscall.RawConn) error { return nil }
