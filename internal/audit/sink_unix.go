//go:build unix

package audit

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const nonblock = unix.O_NONBLOCK

// duplicate returns a descriptor of its own for a standard stream: whoever reads
// it may go away, which is an error here, and no signal that ends the process as
// it is of the numbers 1 and 2 (os/signal, SIGPIPE).
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	own := -1
	if cerr := raw.Control(func(fd uintptr) { own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(own), f.Name()), nil
}

// awaitWritable waits until f takes a line: a pipe that has room for PIPE_BUF
// bytes, which is what poll(2) says of it. A regular file always does.
func awaitWritable(f *os.File, until time.Time) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	ready := 0
	cerr := raw.Control(func(fd uintptr) {
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			ready, err = unix.Poll(fds, int(max(0, time.Until(until)).Milliseconds())+1)
			if !errors.Is(err, unix.EINTR) || time.Now().After(until) {
				return
			}
		}
	})
	switch {
	case cerr != nil:
		return cerr
	case err != nil:
		return err
	case ready == 0:
		return errStuck
	}
	return nil
}
