package pump

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// A Conn is one side of [Both]. *net.TCPConn is one, and so is a tunnel's
// stream. Further methods are used where a Conn has them:
//
//   - Abort(err error) ends it so that its far side sees an abort, and does not
//     block; err is an *[Error] or the context's cause. Without it a TCP socket
//     is reset, and any other Conn closed.
//   - OnEnd(f func(err error)) has f called once it has ended by itself, other
//     than cleanly, and so takes and gives nothing any more: the copy, which may
//     be waiting for the other side, ends with that error. nil takes that back.
//   - io.ReaderFrom and io.WriterTo, unless it is a socket, copy without a
//     buffer of this package. They return an error of the conn that failed as
//     it is, so that it can be told whose it was: the socket's are *net.OpError.
//   - ReadReady, as a [sock.ReadyReader] has it, makes it a socket: it is read by
//     that.
//   - Deliver(w io.Writer, done func(n int64, err error)) is WriteTo that returns
//     at once and calls done at the end, for a Conn that needs no goroutine while
//     it is quiet.
type Conn interface {
	io.Reader
	io.Writer
	CloseWrite() error
	Close() error
}

// flushTime bounds how long a socket's last bytes may take to reach its peer's
// kernel before the socket is reset.
const flushTime = time.Second

// Both copies a to b and b to a until both directions have ended, and closes
// both conns. The end of one direction is passed on with CloseWrite and leaves
// the other running. An error in either direction, or ctx's end, aborts both
// conns at once. It returns when nothing of it runs any more.
func Both(ctx context.Context, a, b Conn) Result {
	sa, sb := &side{Conn: a, name: A}, &side{Conn: b, name: B}
	f := &failure{}
	f.cut = func() {
		sa.abort(f.err)
		sb.abort(f.err)
	}
	stop := context.AfterFunc(ctx, func() { f.fail(context.Cause(ctx)) })
	sa.follow(f)
	sb.follow(f)
	var r Result
	var wg sync.WaitGroup
	if _, ok := b.(deliverer); ok {
		start(&wg, f, sa, sb, &r.BToA)
		r.AToB = copyOneWay(f, sb, sa)
	} else {
		start(&wg, f, sb, sa, &r.AToB)
		r.BToA = copyOneWay(f, sa, sb)
	}
	wg.Wait()
	if !stop() {
		f.fail(context.Cause(ctx)) // returns when ctx's own call has
	}
	f.seal()
	if r.Err = f.failed(); r.Err == nil {
		_ = a.Close()
		_ = b.Close()
	}
	sa.aborting.Wait()
	sb.aborting.Wait()
	return r
}

// A side is one conn of Both.
type side struct {
	Conn
	name     Side
	ended    atomic.Bool // its CloseWrite was called
	aborting sync.WaitGroup
}

// An ender is a conn that says when it has ended.
type ender interface {
	OnEnd(f func(err error))
}

// follow has the copy fail when the conn ends while nobody waits for it.
func (s *side) follow(f *failure) {
	if e, ok := s.Conn.(ender); ok {
		e.OnEnd(func(err error) { f.fail(&Error{Side: s.name, Op: Read, Err: err}) })
	}
}

// endOrReset returns nil if the end of s's data is one, and the reset that a write
// beside the read was told of if it is not.
func (s *side) endOrReset() error {
	nc, ok := s.Conn.(net.Conn)
	if !ok {
		return nil
	}
	// In this order: once both sides have said their end there is no connection.
	if err := sock.EndOrReset(nc); err != nil && !s.ended.Load() {
		return err
	}
	return nil
}

// abort ends the conn as an abort and returns at once: a socket gets a little
// time for what was already written, unless it is the one that failed.
func (s *side) abort(err error) {
	if e, ok := s.Conn.(ender); ok {
		e.OnEnd(nil) // this is the end, and known
	}
	if ab, ok := s.Conn.(interface{ Abort(err error) }); ok {
		ab.Abort(err)
		return
	}
	nc, ok := s.Conn.(net.Conn)
	if !ok {
		_ = s.Close()
		return
	}
	var e *Error
	if errors.As(err, &e) && e.Side == s.name {
		_ = sock.ResetClose(nc)
		return
	}
	_ = nc.SetDeadline(past)
	s.aborting.Go(func() {
		sock.WaitSent(nc, flushTime)
		_ = sock.ResetClose(nc)
	})
}

// A deliverer is a conn that needs no goroutine while it is quiet.
type deliverer interface {
	Deliver(w io.Writer, done func(n int64, err error))
}

// start runs copyOneWay, into n, beside the caller, who waits for wg.
func start(wg *sync.WaitGroup, f *failure, dst, src *side, n *int64) {
	d, ok := src.Conn.(deliverer)
	if !ok {
		wg.Go(func() { *n = copyOneWay(f, dst, src) })
		return
	}
	wg.Add(1)
	d.Deliver(writerTo(dst.Conn), func(k int64, err error) {
		defer wg.Done()
		*n = k
		passOn(f, dst, src, blame(src.Conn, dst.Conn, err), err)
	})
}

// copyOneWay carries src to dst until src ends and passes the end on.
func copyOneWay(f *failure, dst, src *side) int64 {
	n, op, err := transfer(dst.Conn, src.Conn)
	passOn(f, dst, src, op, err)
	return n
}

// passOn tells dst how src has ended: err with op, or nil for the end of its
// data.
func passOn(f *failure, dst, src *side, op Op, err error) {
	if err == nil {
		op, err = Read, src.endOrReset()
	}
	switch {
	case err != nil && op == Read:
		f.fail(&Error{Side: src.name, Op: Read, Err: err})
	case err != nil:
		f.fail(&Error{Side: dst.name, Op: Write, Err: err})
	case f.failed() != nil: // src may have been closed for that, and not have ended
	default:
		dst.ended.Store(true)
		if err := dst.CloseWrite(); err != nil {
			f.fail(&Error{Side: dst.name, Op: Write, Err: err})
		}
	}
}

// transfer copies until src's end, by the way that holds no buffer while src is
// quiet. A socket's own ReadFrom and WriteTo hold one, and are passed over.
func transfer(dst, src Conn) (n int64, op Op, err error) {
	if rf, ok := dst.(io.ReaderFrom); ok && !isSocket(dst) {
		n, err = rf.ReadFrom(src)
		return n, blame(src, dst, err), err
	}
	if wt, ok := src.(io.WriterTo); ok && !isSocket(src) {
		n, err = wt.WriteTo(writerTo(dst))
		return n, blame(src, dst, err), err
	}
	return shovel(dst, src)
}

// writerTo returns the cheapest way to write to c.
func writerTo(c Conn) io.Writer {
	if nc, ok := c.(*net.TCPConn); ok {
		return sock.NewWriter(nc)
	}
	return c
}

// isSocket reports whether c is a socket's conn, whose errors are *[net.OpError].
func isSocket(c any) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	case sock.ReadyReader:
		_, ok := c.(net.Conn)
		return ok
	}
	return false
}

// blame tells from err alone which side of an opaque copy failed, of which one
// is a socket.
func blame(src, dst Conn, err error) Op {
	switch {
	case err == nil: // nothing to look for, at a price
		return Read
	case isSocket(src) && !isOwn(src.(net.Conn), err):
		return Write
	case isSocket(dst) && isOwn(dst.(net.Conn), err):
		return Write
	default:
		return Read
	}
}

// isOwn reports whether err is that of a read or write of socket c. The other
// side's error may hold one, too, of the socket that it stands on; and a
// socket's ReadFrom wraps the other side's errors in one that is neither.
func isOwn(c net.Conn, err error) bool {
	for {
		var oe *net.OpError
		if !errors.As(err, &oe) {
			return false
		}
		if (oe.Op == "read" || oe.Op == "write") && sameAddr(oe.Source, c.LocalAddr()) && sameAddr(oe.Addr, c.RemoteAddr()) {
			return true
		}
		err = oe.Err
	}
}

func sameAddr(a, b net.Addr) bool {
	return a != nil && b != nil && a.String() == b.String()
}

// shovel copies through buffers of this package. From a socket it takes one
// only when there are bytes; for other conns it waits with a small one and
// takes a large one while reads fill it.
func shovel(dst io.Writer, src io.Reader) (n int64, op Op, err error) {
	read := smallReads(src)
	if isSocket(src) {
		r := sock.NewReader(src.(net.Conn))
		read = func() ([]byte, int, error) { return r.ReadReady(getLarge, putWhole) }
	}
	for {
		buf, k, rerr := read()
		if k > 0 {
			w, werr := dst.Write(buf[:k])
			n += int64(w)
			if werr == nil && w < k {
				werr = io.ErrShortWrite
			}
			if werr != nil {
				putBuf(buf)
				return n, Write, werr
			}
		}
		putBuf(buf)
		if rerr != nil {
			if rerr == io.EOF {
				rerr = nil
			}
			return n, Read, rerr
		}
	}
}

func putBuf(b []byte) {
	if cap(b) == largeSize {
		putWhole(b)
	}
}

// smallReads returns a read that is for conns which cannot say that they are
// ready.
func smallReads(src io.Reader) func() ([]byte, int, error) {
	var small []byte
	large := false
	return func() ([]byte, int, error) {
		if large {
			b := getLarge()
			n, err := src.Read(b)
			large = n > smallSize
			return b, n, err
		}
		if small == nil {
			small = make([]byte, smallSize)
		}
		n, err := src.Read(small)
		large = n == smallSize
		return small, n, err
	}
}
