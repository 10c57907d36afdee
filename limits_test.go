package culvert_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/code"
)

// A conn on which nothing moves is reset, at both ends, whether or not its program reads
// it, and its place is given back.
func TestIdleConnsAreReset(t *testing.T) {
	reg := prometheus.NewRegistry()
	p := newPair(t, pairing{listener: func(c *culvert.ListenerConfig) { c.IdleTimeout, c.MaxConns, c.Metrics = time.Second, 1, reg }})
	a, b := p.conns()
	wantEnd(t, a, code.IdleTimeout)
	wantEnd(t, b, code.IdleTimeout)
	_ = a.Close()
	_ = b.Close()
	eventually(t, "the conn has ended", func() bool { return value(t, reg, "culvert_outlet_streams_active") == 0 })
	again, accepted := p.conns() // the one place there is
	_ = again.Close()
	_ = accepted.Close()
}

// Other services than the first have limits of their own.
func TestLimitsAreTheServices(t *testing.T) {
	p := newPair(t, pairing{listener: func(c *culvert.ListenerConfig) {
		c.More = []culvert.Service{{Name: "quick", Allow: c.Allow, IdleTimeout: time.Second}}
	}})
	(&pair{t: t, ln: p.ln.Of("quick")}).serve(echo)
	p.serve(echo)
	slow, err := p.d.Dial(withPatience(t), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	quick, err := p.d.Dial(withPatience(t), "quick")
	if err != nil {
		t.Fatal(err)
	}
	defer quick.Close()
	wantEnd(t, quick, code.IdleTimeout)
	wantEcho(t, slow, "not this one")
}

// What a service's conns carry together is as fast as it may be, in each direction, and
// nothing of it is lost.
func TestBytesPerSecond(t *testing.T) {
	const rate, size = 64 << 10, 64 << 10 // of two conns together: two seconds' worth
	for _, from := range []string{"dialer", "listener"} {
		t.Run("from the "+from, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, pairing{listener: func(c *culvert.ListenerConfig) { c.BytesPerSecond = rate }})
			want := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			began := time.Now()
			var copying sync.WaitGroup
			for range 2 {
				w, r := p.conns()
				if from == "listener" {
					w, r = r, w
				}
				copying.Go(func() {
					defer w.Close()
					if _, err := w.Write(want); err != nil {
						t.Errorf("writing: %v", err)
					}
				})
				copying.Go(func() {
					defer r.Close()
					if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
					}
				})
			}
			copying.Wait()
			if took := time.Since(began); took < 1900*time.Millisecond { // the first chunks are free
				t.Errorf("%d bytes took %s", 2*size, took)
			}
		})
	}
}

// Whoever waits for a rate is freed by deadlines, by Close, and by the peer's abort.
func TestRateEndsNothing(t *testing.T) {
	pairAt := func(t *testing.T) (a, b *culvert.Conn) {
		p := newPair(t, pairing{listener: func(c *culvert.ListenerConfig) { c.BytesPerSecond = 1 << 10 }})
		return p.conns()
	}
	t.Run("a write deadline", func(t *testing.T) {
		t.Parallel()
		a, b := pairAt(t)
		defer a.Close()
		defer b.Close()
		type result struct {
			n   int
			err error
		}
		written := make(chan result, 1)
		go func() {
			n, err := b.Write(make([]byte, 64<<10)) // a minute
			written <- result{n, err}
		}()
		if _, err := io.ReadFull(a, make([]byte, 1)); err != nil { // a part of it has been sent
			t.Fatal(err)
		}
		_ = b.SetWriteDeadline(time.Now())
		got := <-written
		if !errors.Is(got.err, os.ErrDeadlineExceeded) || got.n == 0 || got.n >= 64<<10 {
			t.Errorf("wrote %d bytes, %v", got.n, got.err)
		}
		_ = b.SetWriteDeadline(time.Now().Add(patience))
		if _, err := b.Write([]byte("x")); err != nil {
			t.Errorf("after another deadline: %v", err)
		}
		if _, err := io.ReadFull(a, make([]byte, got.n)); err != nil { // of which one was read, and x
			t.Errorf("what was written before and after a deadline: %v", err)
		}
	})
	t.Run("a read deadline", func(t *testing.T) {
		t.Parallel()
		a, b := pairAt(t)
		defer a.Close()
		defer b.Close()
		want := bytes.Repeat([]byte("0123456789abcdef"), 128)
		if _, err := a.Write(want); err != nil {
			t.Fatal(err)
		}
		var got []byte
		timeouts, buf := 0, make([]byte, len(want))
		for len(got) < len(want) {
			_ = b.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			n, err := b.Read(buf)
			got = append(got, buf[:n]...)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				timeouts++
			case err != nil:
				t.Fatal(err)
			}
		}
		if timeouts == 0 || !bytes.Equal(got, want) {
			t.Errorf("%d time-outs, read what was written: %v", timeouts, bytes.Equal(got, want))
		}
	})
	for name, end := range map[string]struct {
		do   func(a, b *culvert.Conn)
		want error
	}{
		"close":            {func(_, b *culvert.Conn) { _ = b.Close() }, net.ErrClosed},
		"the peer's abort": {func(a, _ *culvert.Conn) { _ = a.Abort() }, nil},
		"the peer's close": {func(a, _ *culvert.Conn) { _ = a.Close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := pairAt(t)
			defer a.Close()
			defer b.Close()
			_ = b.SetDeadline(time.Time{})
			failed := make(chan error, 1)
			go func() {
				_, err := b.Write(make([]byte, 1<<20)) // a quarter of an hour
				failed <- err
			}()
			if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			end.do(a, b)
			err := <-failed
			var e *culvert.Error
			switch {
			case end.want != nil && !errors.Is(err, end.want):
				t.Errorf("the Write: %v, want %v", err, end.want)
			case end.want == nil && (!errors.As(err, &e) || e.Code != code.Aborted):
				t.Errorf("the Write: %v, want aborted", err)
			}
		})
	}
}
