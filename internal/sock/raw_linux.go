//go:build linux && !race

package sock

import (
	"syscall"
	"unsafe"
)

// rawRead and rawWrite are read(2) and write(2) of a socket that does not block,
// without the scheduler's part in a system call.

func rawRead(fd int, b []byte) (int, error) { return raw(syscall.SYS_READ, fd, b) }

func rawWrite(fd int, b []byte) (int, error) { return raw(syscall.SYS_WRITE, fd, b) }

func raw(call uintptr, fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	//nolint:gosec // the bytes' address is converted in the call, as package unsafe wants it
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
