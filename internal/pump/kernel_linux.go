package pump

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernel is the splice(2) part of a direction: the socket's bytes go into a
// pipe and from there into the other socket, as references to the kernel's own
// pages.
type kernel struct {
	rawSrc, rawDst syscall.RawConn
	trySrc, tryDst func(fd uintptr) bool // bound once: a chunk allocates nothing

	pipe  *pipe // nil between chunks, and where there was none to be had
	n     int   // bytes in pipe
	eof   bool
	errno error
	plain bool // splice(2) does not take these sockets
}

func (d *direction) initKernel() (err error) {
	if d.rawSrc, err = d.src.SyscallConn(); err != nil {
		return err
	}
	if d.rawDst, err = d.dst.SyscallConn(); err != nil {
		return err
	}
	d.trySrc, d.tryDst = d.drain, d.fill
	return nil
}

// move carries one chunk; no bytes and no error are src's end.
func (d *direction) move() (int, Op, error) {
	if d.plain {
		return d.copyChunk()
	}
	n, err := d.take()
	switch {
	case errors.Is(err, errNoPipe):
		return d.copyChunk()
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		// Nothing was read. EPERM is a sandbox without splice.
		d.plain = true
		return d.copyChunk()
	case err != nil || n == 0:
		return 0, Read, err
	}
	return n, Write, d.give()
}

// errNoPipe says that src can be read, or may be, but no pipe could be taken.
var errNoPipe = errors.New("no pipe")

// take waits until src can be read and reads one chunk into a pipe, which the
// direction then holds.
func (d *direction) take() (int, error) {
	for {
		d.n, d.eof, d.errno = 0, false, nil
		waitErr := d.rawSrc.Read(d.trySrc)
		switch {
		case d.n > 0:
			d.s.alive()
			return d.n, nil
		case d.eof:
			return 0, nil
		case errors.Is(d.errno, errNoPipe):
			return 0, d.errno
		case d.errno != nil:
			return 0, opError("read", d.src, d.errno)
		}
		if ok, err := d.s.again(waitErr, d.setRead); !ok {
			return 0, err
		}
	}
}

// drain is take's one try. It reports whether that is decided; false sends the
// goroutine to the poller, with no pipe in its hands. It has to try before it
// waits, since the poller wakes only for what arrives after a failed try.
func (d *direction) drain(fd uintptr) bool {
	p := d.s.opt.Pipes.get()
	if p == nil {
		d.errno = errNoPipe
		return true
	}
	for {
		n, errno := rawSplice(int(fd), p.w, d.chunk)
		if errno == unix.EINTR {
			continue
		}
		if n > 0 {
			d.pipe, d.n = p, n
			return true
		}
		d.s.opt.Pipes.put(p)
		switch errno {
		case 0:
			d.eof = true
		case unix.EAGAIN:
			return false
		default:
			d.errno = errno
		}
		return true
	}
}

// give writes the pipe's bytes to dst and gives the pipe back: empty, or closed
// when dst fails.
func (d *direction) give() error {
	for {
		d.errno = nil
		waitErr := d.rawDst.Write(d.tryDst)
		if d.n == 0 {
			d.s.opt.Pipes.put(d.pipe)
			d.pipe = nil
			return nil
		}
		err := waitErr
		if d.errno != nil {
			err = opError("write", d.dst, d.errno)
		}
		ok, err := d.s.again(err, d.setWrite)
		if !ok {
			d.s.opt.Pipes.discard(d.pipe)
			d.pipe = nil
			return err
		}
	}
}

// fill is give's one try, with drain's meaning.
func (d *direction) fill(fd uintptr) bool {
	for d.n > 0 {
		n, errno := rawSplice(d.pipe.r, int(fd), d.n)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			d.errno = errno
			return true
		case n == 0:
			d.errno = unix.EIO // cannot be: the pipe holds d.n bytes
			return true
		default:
			d.n -= n
			d.s.alive()
			d.counter.Add(int64(n))
		}
	}
	return true
}

// opError makes of a system call's error what the conn's own methods return.
func opError(op string, c *net.TCPConn, err error) error {
	return &net.OpError{
		Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("splice", err),
	}
}

// rawSplice is splice(2), without the scheduler's part in a system call: neither
// the pipe nor the socket blocks. See sock.Writer.
func rawSplice(from, to, n int) (int, syscall.Errno) {
	moved, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(moved), 0
}
