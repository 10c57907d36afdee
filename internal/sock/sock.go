// Package sock owns what Culvert asks of a socket beyond package net:
// options, a close that the other side sees as a reset, what tells such a reset from
// the end of the data, a read that takes its buffer only once there are bytes for it,
// a short write that costs little, and listening at a unix socket's path.
// Every function does nothing, or the portable equivalent, for a conn that is no
// socket (net.Pipe) and on systems that lack the option. It dials nothing and
// moves no data from one socket to another.
package sock

import (
	"net"
	"os"
	"syscall"
	"time"
)

// SetUserTimeout bounds how long bytes sent on c may stay unacknowledged, or
// unsent because the peer's window is closed, before the kernel ends the
// connection (TCP_USER_TIMEOUT, RFC 5482), so that a hole in the network is
// noticed by the side that has something to send. The kernel counts in
// milliseconds, d is rounded up to one; 0 restores the system's default.
// Systems other than Linux do nothing.
func SetUserTimeout(c net.Conn, d time.Duration) error {
	rc := rawConn(c)
	if rc == nil {
		return nil
	}
	ms := int((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
	return control(rc, func(fd uintptr) error { return setUserTimeout(fd, ms) })
}

// SetNotSentLowat keeps c from reporting itself writable while more than
// bytes wait unsent in the kernel (TCP_NOTSENT_LOWAT), so that what is written
// next can still be chosen late. Systems other than Linux and macOS do nothing.
func SetNotSentLowat(c net.Conn, bytes int) error {
	rc := rawConn(c)
	if rc == nil {
		return nil
	}
	return control(rc, func(fd uintptr) error { return setNotSentLowat(fd, bytes) })
}

// ResetClose closes c so that its peer sees a reset, never a clean end: what
// is still unsent is thrown away. What a unix socket's peer sees, [Unix] says. A conn
// that is no socket is just closed.
func ResetClose(c net.Conn) error {
	if l, ok := inner(c).(interface{ SetLinger(sec int) error }); ok {
		// The error is of no use: a socket that is already closed says so
		// again in Close.
		_ = l.SetLinger(0)
	}
	return c.Close()
}

// EndOrReset is to be asked by a reader of c that was told of the end of its data,
// while this side has not ended its own: it returns nil when that is what the peer
// has said, and the error of a read that was reset when it is not. A system tells of
// a reset only once (Linux: sk_err, which read(2), write(2) and getsockopt(2) take
// away): when a write on c is the one that is told, the read beside it finds the end
// of a connection that is no more. The end that a peer has sent leaves it connected
// for as long as this side goes on; one that it had sent before it reset the
// connection is told from that where the system lets it (Linux). c is asked only if it is a TCP socket of package
// net, or has a method EndOrReset of its own, and on Windows it is not.
func EndOrReset(c net.Conn) error {
	if own, ok := c.(interface{ EndOrReset() error }); ok {
		return own.EndOrReset()
	}
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return nil // closed: whoever did that knows
	}
	gone := false
	if err := rc.Control(func(fd uintptr) { gone = disconnected(fd) && !endedFirst(fd) }); err != nil || !gone {
		return nil
	}
	return &net.OpError{
		Op: "read", Net: c.LocalAddr().Network(),
		Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("read", syscall.ECONNRESET),
	}
}

// WaitSent waits until the peer's kernel has acknowledged everything written to
// c, at most for d, and reports whether that is so. It is for the moment before
// [ResetClose], which throws unsent bytes away. What was written to a unix socket is
// there already. Where the system cannot tell (not Linux, no socket) it returns false
// at once.
func WaitSent(c net.Conn, d time.Duration) bool {
	if c.LocalAddr().Network() == "unix" {
		return true
	}
	rc := rawConn(c)
	if rc == nil {
		return false
	}
	end := time.Now().Add(d)
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		var queued int
		err := control(rc, func(fd uintptr) (err error) {
			queued, err = sendQueue(fd)
			return err
		})
		if err != nil {
			return false
		}
		if queued == 0 {
			return true
		}
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		time.Sleep(min(pause, left))
	}
}

// rawConn returns the descriptor under c, or nil when c is no socket.
func rawConn(c net.Conn) syscall.RawConn {
	sc, ok := inner(c).(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

// inner unwraps conns that name the one they stand on, as crypto/tls does, so
// that options reach the socket.
func inner(c net.Conn) net.Conn {
	for range 8 {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok || w.NetConn() == nil {
			break
		}
		c = w.NetConn()
	}
	return c
}

func control(rc syscall.RawConn, f func(fd uintptr) error) error {
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(fd) }); err != nil {
		return err
	}
	return ferr
}
