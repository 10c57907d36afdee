//go:build unix

package sock

import (
	"errors"
	"io/fs"
	"syscall"
)

// refused reports whether nobody listens where err came from.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// setMode gives a socket that has no name yet the mode that its file is to be made
// with, so that there is no moment at which others can connect. Linux heeds it;
// where the call is refused, the mode is set when the file is there.
func setMode(c syscall.RawConn, mode fs.FileMode) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), uint32(mode)) })
}
