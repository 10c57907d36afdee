package sock

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A keeper reads a unix socket so that its last byte stays in the kernel.
type keeper struct {
	mu    sync.Mutex
	plain bool // nothing is kept: the kernel cannot, or need not any more
	kept  int  // bytes at the queue's front that were handed on: 0 or 1
	front [1]byte
	iov   [2]unix.Iovec // here, since a read allocates nothing

	// A reset is told once, and a write may be the one that is told: then the read
	// beside it finds an end, which is none.
	sending sync.Mutex
	reset   bool
}

// keep returns what reads and writes c.
func (k *keeper) keep(c *net.UnixConn) (*Reader, *Writer) {
	k.plain = true
	if rc, err := c.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			// From here on a peek goes on where the last one has ended, and a read takes
			// from that: it stands behind what is kept.
			k.plain = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0) != nil
		})
	}
	raw := newRawReader(c, k.recv)
	if raw != nil {
		raw.look = k.readable
	}
	return newReader(c, raw), &Writer{conn: c, raw: newRawWriter(c, k.send)}
}

// readable reports whether recv would return at once. It does not peek, which would
// move the place where the next peek begins, and an error it leaves to recv.
func (k *keeper) readable(fd int) (bool, error) {
	k.mu.Lock()
	kept := k.kept
	k.mu.Unlock()
	if waiting, err := unix.IoctlGetInt(fd, unix.SIOCINQ); err != nil || waiting > kept {
		return true, nil
	}
	ends := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}} // and errors, which poll tells unasked
	n, err := unix.Poll(ends, 0)
	return err != nil || n > 0, nil
}

// recv is read(2) that leaves the last byte of what it returns where it is.
func (k *keeper) recv(fd int, b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.plain || len(b) == 0 {
		n, err := rawRead(fd, b)
		return n, k.endOrReset(n, err)
	}
	waiting, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return -1, err
	}
	if waiting <= k.kept {
		return k.await(fd, b)
	}
	n := min(waiting-k.kept, len(b)) - 1
	if k.kept+n > 0 {
		// It may be less where descriptors are passed, which end a read, and are
		// dropped here.
		took, err := k.take(fd, b[:n])
		if err != nil {
			return -1, err
		}
		n, k.kept = took-k.kept, 0
	}
	if got, err := peek(fd, b[n:n+1]); got != 1 {
		if n > 0 {
			return n, nil
		}
		return got, k.endOrReset(got, err)
	}
	k.kept = 1
	return n + 1, nil
}

// await looks at a queue in which there is nothing but what is kept: it returns 0
// for the end, EAGAIN, or one byte that has come meanwhile.
func (k *keeper) await(fd int, b []byte) (int, error) {
	n, err := peek(fd, b[:1])
	if n != 1 {
		return n, k.endOrReset(n, err)
	}
	if k.kept == 1 {
		if _, err := rawRead(fd, k.front[:]); err != nil {
			return -1, err
		}
	}
	k.kept = 1
	return 1, nil
}

// take reads what is kept into front and what follows into b, as much as is there.
func (k *keeper) take(fd int, b []byte) (int, error) {
	iov := k.iov[:0]
	if k.kept == 1 {
		iov = append(iov, unix.Iovec{Base: &k.front[0], Len: 1})
	}
	if len(b) > 0 {
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		iov = append(iov, v)
	}
	defer clear(k.iov[:])
	//nolint:gosec // the address is converted in the call, as package unsafe wants it
	n, _, errno := syscall.RawSyscall(syscall.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	switch {
	case errno != 0:
		return -1, errno
	case int(n) < k.kept:
		return -1, unix.EIO // cannot be: it is there
	}
	return int(n), nil
}

// peek reads b from where the last peek has ended, and leaves it where it is.
func peek(fd int, b []byte) (int, error) {
	//nolint:gosec // the bytes' address is converted in the call, as package unsafe wants it
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// endOrReset returns err, or for an end the reset that a write was told of.
func (k *keeper) endOrReset(n int, err error) error {
	if n != 0 || err != nil {
		return err
	}
	k.sending.Lock() // a write that is under way is told before it is over
	defer k.sending.Unlock()
	if k.reset {
		return unix.ECONNRESET
	}
	return nil
}

// send is write(2) that remembers a reset.
func (k *keeper) send(fd int, b []byte) (int, error) {
	k.sending.Lock()
	defer k.sending.Unlock()
	n, err := rawWrite(fd, b)
	if errors.Is(err, unix.ECONNRESET) {
		k.reset = true
	}
	return n, err
}

// release takes what is kept, and keeps no more.
func (k *keeper) release(c *net.UnixConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return control(rc, func(fd uintptr) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.plain = true
		if k.kept == 0 {
			return nil
		}
		k.kept = 0
		_, err := rawRead(int(fd), k.front[:])
		return err
	})
}
