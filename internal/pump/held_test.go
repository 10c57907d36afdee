package pump

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An endless conn has bytes whenever it is read, takes whatever is written, and counts
// both. It is no socket, so that its copy can run by a clock of its own.
type endless struct {
	read, written atomic.Int64
	over          atomic.Bool
}

func (e *endless) Read(b []byte) (int, error) {
	if e.over.Load() {
		return 0, io.EOF
	}
	e.read.Add(int64(len(b)))
	return len(b), nil
}

func (e *endless) Write(b []byte) (int, error) {
	if e.over.Load() {
		return 0, net.ErrClosed
	}
	e.written.Add(int64(len(b)))
	return len(b), nil
}

func (e *endless) Close() error {
	e.over.Store(true)
	return nil
}

func (*endless) CloseWrite() error                { return nil }
func (*endless) SetLinger(int) error              { return nil }
func (*endless) LocalAddr() net.Addr              { return &net.IPAddr{} }
func (*endless) RemoteAddr() net.Addr             { return &net.IPAddr{} }
func (*endless) SetReadDeadline(time.Time) error  { return nil }
func (*endless) SetWriteDeadline(time.Time) error { return nil }

func (e *endless) SetDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		e.over.Store(true)
	}
	return nil
}

// A limit is held within 5 % by one connection and by several together, of which each
// gets the same within 5 %, each direction for itself.
func TestLimitIsHeld(t *testing.T) {
	const limit, seconds = 10_000_000, 10
	within5 := func(got, want int64) bool { return got > want*95/100 && got < want*105/100 }
	for _, conns := range []int{1, 7} {
		synctest.Test(t, func(t *testing.T) {
			in, out := NewRate(limit), NewRate(limit)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan Result)
			var sockets []*endless
			for range conns {
				s := &endless{}
				sockets = append(sockets, s)
				go func() { ended <- Both(ctx, &endless{}, NewLimited(s, in, out)) }()
			}
			time.Sleep(seconds * time.Second)
			synctest.Wait()
			var read, written int64
			for _, s := range sockets {
				r, w := s.read.Load(), s.written.Load()
				if each := int64(limit * seconds / conns); !within5(r, each) || !within5(w, each) {
					t.Errorf("one of %d: %d bytes read and %d written, want %d", conns, r, w, each)
				}
				read, written = read+r, written+w
			}
			if !within5(read, limit*seconds) || !within5(written, limit*seconds) {
				t.Errorf("%d together: %d bytes read and %d written in %d s at %d a second", conns, read, written, seconds, limit)
			}
			cancel()
			for range conns {
				if r := <-ended; r.Err == nil {
					t.Error("a copy has ended well")
				}
			}
		})
	}
}

// A piece of what is written is no more than its part of a second's worth, so that none
// is on its way, and held, for long.
func TestLimitedWritesLittleAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 16 << 10
		s := &endless{}
		l := NewLimited(s, NewRate(0), NewRate(limit))
		most, err := l.Pause()
		if err != nil || most != leastChunk {
			t.Errorf("at %d a second %d at a time, %v, want %d", limit, most, err, leastChunk)
		}
		began := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := l.Write(make([]byte, 64<<10))
			done <- err
		}()
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			due := int64(time.Since(began).Seconds() * limit)
			if got := s.written.Load(); got < due-leastChunk || got > due+2*leastChunk {
				t.Errorf("%d bytes after %v, want %d", got, time.Since(began), due)
			}
		}
		_ = l.Close()
		if err := <-done; err == nil {
			t.Error("a Write outlasts Close")
		}
		if _, err := l.Pause(); err == nil {
			t.Error("a pause outlasts Close")
		}
	})
}
