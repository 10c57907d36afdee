package pump

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
)

// ErrIdle ends a [Splice] in which neither direction moved a byte for its idle
// time.
var ErrIdle = errors.New("no byte in either direction for the idle time")

// splicePart is the part of a second that a chunk takes at most where there is a rate.
const splicePart = 10

// Options are a Splice's settings. The zero value means no limits.
type Options struct {
	// Idle ends the copy when neither direction moves a byte for this long;
	// 0 means never.
	Idle time.Duration
	// Rate is the most bytes per second that each direction carries, in steps
	// of 100 ms; 0 means no limit.
	Rate int64
	// Pipes are taken from here; nil means a store of the copy's own.
	Pipes *Pipes
	// Counters, when not nil, are kept while the copy runs.
	Counters *Counters
	// FirstA was read from a, and FirstB from b, before the copy: they go to
	// the other side first.
	FirstA, FirstB []byte
}

// Splice copies a to b and b to a until both directions have ended, and closes
// both. The end of one direction is passed on and leaves the other running. An
// error in either direction, ctx's end or the idle time resets both sockets at
// once, so that both peers notice; bytes on their way are lost then.
//
// On Linux the bytes stay in the kernel: splice(2) moves them through a pipe
// that is taken when a socket is readable and given back empty, so that a quiet
// copy holds none. Where there is no pipe to be had, and on other systems, they
// pass through a pooled buffer, held as briefly. A chunk allocates nothing.
func Splice(ctx context.Context, a, b *net.TCPConn, opt Options) Result {
	s := &splice{a: a, b: b, opt: opt, base: time.Now()}
	s.fail = &failure{cut: s.cut, done: make(chan struct{})}
	if s.opt.Pipes == nil {
		s.opt.Pipes = new(Pipes)
		defer s.opt.Pipes.Close()
	}
	if s.opt.Counters == nil {
		s.opt.Counters = new(Counters)
	}
	stop := context.AfterFunc(ctx, func() { s.fail.fail(context.Cause(ctx)) })
	var wg sync.WaitGroup
	wg.Go(func() { s.oneWay(a, b, A, B, opt.FirstA, &s.opt.Counters.AToB) })
	s.oneWay(b, a, B, A, opt.FirstB, &s.opt.Counters.BToA)
	wg.Wait()
	if !stop() {
		s.fail.fail(context.Cause(ctx)) // returns when ctx's own call has
	}
	r := Result{AToB: s.opt.Counters.AToB.Load(), BToA: s.opt.Counters.BToA.Load(), Err: s.fail.failed()}
	if r.Err != nil {
		_ = sock.ResetClose(a)
		_ = sock.ResetClose(b)
	} else {
		_ = a.Close()
		_ = b.Close()
	}
	return r
}

// splice is what the two directions of one Splice share.
type splice struct {
	a, b *net.TCPConn
	opt  Options
	fail *failure
	base time.Time
	last atomic.Int64 // when a byte was last read or written, in ns since base

	ended [B + 1]atomic.Bool // by Side: its CloseWrite was called

	mu    sync.Mutex // keeps arm from undoing cut
	isCut bool
}

// cut frees both directions, whatever they wait for.
func (s *splice) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isCut = true
	_ = s.a.SetDeadline(past)
	_ = s.b.SetDeadline(past)
}

// arm sets a deadline for the idle time, unless the copy has been cut.
func (s *splice) arm(set func(time.Time) error) error {
	if s.opt.Idle <= 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return nil
	}
	return set(s.base.Add(time.Duration(s.last.Load()) + s.opt.Idle))
}

// again says whether an operation that failed with err is to be tried again: it
// was only the deadline of an idle time that has not run out, since bytes have
// moved meanwhile. Moving a deadline at every chunk would cost more.
func (s *splice) again(err error, set func(time.Time) error) (bool, error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, err
	}
	if s.fail.failed() != nil {
		return false, err
	}
	if time.Since(s.base)-time.Duration(s.last.Load()) >= s.opt.Idle {
		return false, ErrIdle
	}
	if err := s.arm(set); err != nil {
		return false, err
	}
	return true, nil
}

// alive notes that bytes were read or written now.
func (s *splice) alive() { s.last.Store(int64(time.Since(s.base))) }

// oneWay carries src to dst until src ends and passes the end on.
func (s *splice) oneWay(src, dst *net.TCPConn, from, to Side, first []byte, counter *atomic.Int64) {
	d, err := newDirection(s, src, dst, counter)
	if err != nil {
		s.fail.fail(&Error{Side: from, Op: Read, Err: err})
		return
	}
	op, err := d.run(first)
	if err == nil {
		op, err = d.end(from, to)
	}
	switch {
	case err == nil:
	case op == Read:
		s.fail.fail(&Error{Side: from, Op: Read, Err: err})
	default:
		s.fail.fail(&Error{Side: to, Op: Write, Err: err})
	}
}

// A direction carries the bytes of one socket to another. It belongs to one
// goroutine.
type direction struct {
	s        *splice
	src, dst *net.TCPConn
	reader   *sock.Reader
	setRead  func(time.Time) error // src's, for arm
	setWrite func(time.Time) error // dst's
	counter  *atomic.Int64
	chunk    int           // the most that is moved at a time
	get      func() []byte // bound once: a chunk allocates nothing
	rate     *Rate

	kernel // how the bytes stay out of this process, where that is possible
}

func newDirection(s *splice, src, dst *net.TCPConn, counter *atomic.Int64) (*direction, error) {
	d := &direction{
		s: s, src: src, dst: dst, counter: counter, reader: sock.NewReader(src),
		setRead: src.SetReadDeadline, setWrite: dst.SetWriteDeadline,
		rate: NewRate(s.opt.Rate),
	}
	d.chunk = d.rate.chunk(pipeSize, splicePart)
	d.get = func() []byte { return getLarge()[:min(d.chunk, largeSize)] }
	if err := d.initKernel(); err != nil {
		return nil, err
	}
	if err := s.arm(d.setRead); err != nil {
		return nil, err
	}
	return d, s.arm(d.setWrite)
}

// run moves chunks until src ends, which it reports as no error.
func (d *direction) run(first []byte) (Op, error) {
	if err := d.write(first); err != nil {
		return Write, err
	}
	for {
		n, op, err := d.move()
		if err != nil || n == 0 {
			return op, err
		}
		if err := d.rate.wait(d.rate.take(n), d.s.fail.done); err != nil {
			return Write, err
		}
	}
}

// end passes the end of src on, if it is one and the copy has not failed.
func (d *direction) end(from, to Side) (Op, error) {
	// In this order: once both sides have said their end there is no connection.
	if err := sock.EndOrReset(d.src); err != nil && !d.s.ended[from].Load() {
		return Read, err
	}
	if d.s.fail.failed() != nil {
		return Write, nil
	}
	d.s.ended[to].Store(true)
	return Write, d.dst.CloseWrite()
}

// copyChunk moves one chunk through a buffer; no bytes and no error are src's
// end.
func (d *direction) copyChunk() (int, Op, error) {
	for {
		buf, n, err := d.reader.ReadReady(d.get, putWhole)
		if n > 0 {
			d.s.alive()
			err := d.write(buf[:n])
			putWhole(buf)
			return n, Write, err
		}
		if errors.Is(err, io.EOF) {
			return 0, Read, nil
		}
		if ok, err := d.s.again(err, d.setRead); !ok {
			return 0, Read, err
		}
	}
}

// write writes b to dst, across idle deadlines that come too early.
func (d *direction) write(b []byte) error {
	for len(b) > 0 {
		n, err := d.dst.Write(b)
		if n > 0 {
			d.s.alive()
			d.counter.Add(int64(n))
			b = b[n:]
		}
		if err == nil {
			continue
		}
		if ok, err := d.s.again(err, d.setWrite); !ok {
			return err
		}
	}
	return nil
}
