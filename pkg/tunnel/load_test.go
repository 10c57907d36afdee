package tunnel

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestThousandStreams moves data both ways on 1,000 streams at once.
func TestThousandStreams(t *testing.T) {
	p := newPair(t, Config{})
	go func() {
		for {
			r, err := p.server.Accept(t.Context())
			if err != nil {
				return
			}
			go echo(r)
		}
	}()
	const n, size = 1000, 10_000
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- roundTrip(t, p, uint64(i), size) }()
	}
	for range n {
		if err := awaitFor(t, 4*patience, errs, "a stream"); err != nil {
			t.Fatal(err)
		}
	}
	p.forgotten(t)
}

func echo(r *Request) {
	st, err := r.Accept()
	if err != nil {
		return
	}
	if _, err := io.Copy(st, st); err != nil {
		st.Abort(err)
		return
	}
	_ = st.CloseWrite()
	_ = st.Close()
}

// roundTrip sends random bytes through an echoing stream and compares.
func roundTrip(t *testing.T, p *pair, seed uint64, size int) error {
	st, err := p.client.Open(t.Context(), Open{Service: "echo"})
	if err != nil {
		return err
	}
	defer st.Close()
	want := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(want)
	sent := async(func() error {
		_, err := io.Copy(st, bytes.NewReader(want))
		if err == nil {
			err = st.CloseWrite()
		}
		return err
	})
	got, err := io.ReadAll(st)
	if err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		return fmt.Errorf("stream %d: got %d other bytes than the %d sent", st.ID(), len(got), size)
	}
	return nil
}

// TestThousandAborts aborts 1,000 streams that live at once, with data on the
// way in both directions: no goroutine and no entry stays.
func TestThousandAborts(t *testing.T) {
	p := newPair(t, Config{})
	p.controlled(t)
	before := runtime.NumGoroutine()
	const n = 1000
	var wg sync.WaitGroup
	for i := range n {
		c, s := p.open(t)
		size := 2 << 10
		if i%20 == 0 {
			size = 300 << 10 // more than the first window
		}
		for _, st := range []*Stream{c, s} {
			wg.Go(func() { _, _ = st.Write(make([]byte, size)) })
		}
		wg.Go(func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{s}) })
		wg.Go(func() {
			switch i % 4 {
			case 0:
				_ = c.Reset(code.ClientReset)
			case 1:
				s.Abort(io.ErrClosedPipe)
			case 2:
				_, _ = c.Close(), s.Close()
			case 3:
				_, _ = c.Reset(code.ClientReset), s.Reset(code.TargetReset)
			}
		})
	}
	wg.Wait()
	p.forgotten(t)
	eventually(t, "the goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// controlled makes sure that everything a session runs is running: ABORT ends,
// each way, a stream that nobody reads.
func (p *pair) controlled(t *testing.T) {
	t.Helper()
	for _, fromClient := range []bool{true, false} {
		from, to := p.open(t)
		if !fromClient {
			from, to = to, from
		}
		_ = from.CloseWrite()
		_, _ = io.Copy(io.Discard, to)
		_ = from.Reset(code.Aborted)
		await(t, to.gone, "ABORT")
	}
	p.forgotten(t)
}

// TestStalledBesideOthers: a stream that nobody reads does not hold up ten
// others, in either direction.
func TestStalledBesideOthers(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	fill(t, c)
	fill(t, s)
	waiting := []<-chan error{blocked(t, c), blocked(t, s)}
	var wg sync.WaitGroup
	for range 10 {
		a, b := p.open(t)
		for _, d := range [][2]*Stream{{a, b}, {b, a}} {
			wg.Go(func() { transfer(t, d[0], d[1], 6<<20) }) // more than a window
		}
	}
	wg.Wait()
	for _, ch := range waiting {
		select {
		case err := <-ch:
			t.Errorf("the stalled stream's Write returned: %v", err)
		default:
		}
	}
	go func() { _, _ = io.Copy(io.Discard, s) }()
	if err := await(t, waiting[0], "the stalled stream, once it is read"); err != nil {
		t.Error(err)
	}
}

func transfer(t *testing.T, from, to *Stream, n int) {
	go func() {
		_, _ = from.Write(make([]byte, n))
		_ = from.CloseWrite()
	}()
	if got, err := io.Copy(io.Discard, struct{ io.Reader }{to}); got != int64(n) || err != nil {
		t.Errorf("got %d bytes, %v, want %d", got, err, n)
	}
}

// TestSlowReaderBesideBulk reads one direction of a stream byte by byte while
// the other runs at full speed.
func TestSlowReaderBesideBulk(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	stalled := async(func() error {
		_, err := s.Write(bytes.Repeat([]byte("slow"), 3<<20)) // beyond the window
		return err
	})
	bulk := async(func() error {
		transfer(t, c, s, 32<<20)
		return nil
	})
	one := make([]byte, 1)
	for i := 0; ; i++ {
		if _, err := io.ReadFull(c, one); err != nil || one[0] != "slow"[i%4] {
			t.Fatalf("byte %d: got %q, %v", i, one, err)
		}
		select {
		case <-bulk:
		default:
			continue
		}
		break
	}
	_ = c.Reset(code.ClientReset)
	wantReset(t, await(t, stalled, "the slow direction's writer"), code.ClientReset, true)
}
