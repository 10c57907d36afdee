//go:build unix

package sock

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// awaitReadable looks at one byte, and sends the goroutine to the poller while there
// is none. It has to look before it waits: the poller wakes only for what comes after
// that.
func awaitReadable(rc syscall.RawConn) error {
	var one [1]byte
	var err error
	waitErr := rc.Read(func(fd uintptr) bool {
		for {
			_, _, err = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil {
		return waitErr
	}
	return os.NewSyscallError("recvfrom", err)
}
