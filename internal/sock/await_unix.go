//go:build unix

package sock

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// awaitReadable looks at one byte, and sends the goroutine to the poller while there
// is none. It has to look before it waits: the poller wakes only for what comes after
// that.
func awaitReadable(rc syscall.RawConn) error {
	var err error
	waitErr := rc.Read(func(fd uintptr) bool {
		var ok bool
		ok, err = readable(int(fd))
		return ok
	})
	switch {
	case waitErr != nil:
		return waitErr
	case err == io.EOF:
		return nil
	}
	return os.NewSyscallError("recvfrom", err)
}

// readable reports whether a read of a socket would return at once, and the error that
// it would return then.
func readable(fd int) (bool, error) {
	var one [1]byte
	for {
		n, _, err := unix.Recvfrom(fd, one[:], unix.MSG_PEEK)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case err == nil && n == 0:
			err = io.EOF
		}
		return true, err
	}
}
