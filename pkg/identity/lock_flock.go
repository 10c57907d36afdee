//go:build unix && !aix && !solaris

package identity

import (
	"errors"
	"os"
	"syscall"
)

// canLock says that tryLock keeps others out.
const canLock = true

// tryLock locks f, for as long as it is open, and reports false when another
// process, or another opening of the same file, has done so.
func tryLock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, os.NewSyscallError("flock", err)
		}
	}
}
