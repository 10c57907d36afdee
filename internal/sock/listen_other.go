//go:build !unix

package sock

import (
	"io/fs"
	"syscall"
)

// refused reports whether nobody listens where err came from. Without a way to
// know, a left-over socket stays, and listening says that it is in the way.
func refused(error) bool { return false }

// setMode can do nothing here: the folder's access list guards the socket.
func setMode(syscall.RawConn, fs.FileMode) error { return nil }
