//go:build unix && (!linux || race)

package sock

import "syscall"

// The race detector has to see what is read and written.

func rawRead(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

func rawWrite(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
