package culvert_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/code"
)

// A Conn is what package net asks of one.
func TestConnIsANetConn(t *testing.T) {
	p := newPair(t, pairing{})
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := p.conns()
		for _, c := range []*culvert.Conn{a, b} {
			_ = c.SetDeadline(time.Time{})
		}
		return a, b, func() {
			_ = a.Close()
			_ = b.Close()
		}, nil
	})
}

func TestAddressesAndPeers(t *testing.T) {
	p := newPair(t, pairing{dialer: func(c *culvert.DialerConfig) { c.Name = "shop-1" }})
	a, b := p.conns()
	if got := b.Peer(); got.Identifier != p.d.Identifier() || got.Name != "shop-1" || got.Attributes == nil || len(got.Attributes) > 0 {
		t.Errorf("the listener's peer is %+v, want the dialer, called shop-1, without attributes", got)
	}
	if got := a.Peer(); got.Identifier != p.ln.Identifier() {
		t.Errorf("the dialer's peer is %+v, want the listener", got)
	}
	if a.Service() != "echo" || b.Service() != "echo" || a.Stream() != b.Stream() {
		t.Errorf("services %q and %q, streams %d and %d", a.Service(), b.Service(), a.Stream(), b.Stream())
	}
	if a.RemoteAddr().String() != p.ln.Addr().String() || b.LocalAddr().String() != p.ln.Addr().String() {
		t.Errorf("service's address: %s, %s, want %s", a.RemoteAddr(), b.LocalAddr(), p.ln.Addr())
	}
	if a.LocalAddr().String() != b.RemoteAddr().String() {
		t.Errorf("client's address: %s and %s", a.LocalAddr(), b.RemoteAddr())
	}
	host, port, err := net.SplitHostPort(a.RemoteAddr().String())
	if err != nil || host != p.ln.Identifier().String() || port != "echo" {
		t.Errorf("the address splits into %q, %q, %v", host, port, err)
	}
	for _, c := range []*culvert.Conn{a, b} {
		if c.LocalAddr().Network() != "culvert" {
			t.Errorf("network %q", c.LocalAddr().Network())
		}
		_ = c.Close()
	}
}

// Each direction ends for itself.
func TestHalfClose(t *testing.T) {
	p := newPair(t, pairing{})
	a, b := p.conns()
	if _, err := io.WriteString(a, "request"); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "request" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := io.WriteString(a, "more"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing after CloseWrite: %v", err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Errorf("CloseWrite again: %v", err)
	}
	if _, err := io.WriteString(b, "answer"); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Fatalf("got %q, %v", got, err)
	}
	_ = a.Close()
	for _, c := range []*culvert.Conn{a, b} {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closing again: %v", err)
		}
		if err := c.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetDeadline after Close: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
	}
}

// However a stream ends but by the other program's word, Read does not say io.EOF.
func TestNoFalseEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, p *pair, mine, other *culvert.Conn)
		want []code.Code
	}{
		{"abort", func(_ *testing.T, _ *pair, c, _ *culvert.Conn) { _ = c.Abort() }, []code.Code{code.Aborted}},
		{"close in a Write", func(t *testing.T, _ *pair, c, other *culvert.Conn) {
			done := make(chan error, 1)
			go func() {
				_, err := c.Write(make([]byte, 64<<20)) // more than a window
				done <- err
			}()
			if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
				t.Error(err)
			}
			_ = c.Close()
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("the Write: %v", err)
			}
		}, []code.Code{code.Aborted}},
		{"close after a Write that has failed", func(t *testing.T, _ *pair, c, _ *culvert.Conn) {
			_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the Write: %v", err)
			}
			_ = c.Close()
		}, []code.Code{code.Aborted}},
		{"close after a Write that has failed and an empty one", func(t *testing.T, _ *pair, c, _ *culvert.Conn) {
			writeInPart(t, c)
			if _, err := c.Write(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the empty Write: %v", err)
			}
			_ = c.Close()
		}, []code.Code{code.Aborted}},
		{"close after a Write that has failed and others of less", func(t *testing.T, _ *pair, c, other *culvert.Conn) {
			rest := writeInPart(t, c)
			_ = c.SetWriteDeadline(time.Now().Add(patience))
			drained := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, other)
				drained <- err
			}()
			for _, n := range []int{0, rest / 2, rest - rest/2 - 1} {
				if _, err := c.Write(make([]byte, n)); err != nil {
					t.Errorf("the Write of %d bytes: %v", n, err)
				}
			}
			_ = c.Close()
			wantCode(t, <-drained, code.Aborted)
		}, []code.Code{code.Aborted}},
		{"close after a ReadFrom that has failed and a Write", func(t *testing.T, _ *pair, c, other *culvert.Conn) {
			_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := c.ReadFrom(zeros{}); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the ReadFrom: %v", err)
			}
			_ = c.SetWriteDeadline(time.Now().Add(patience))
			drained := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, other)
				drained <- err
			}()
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				t.Errorf("the Write: %v", err)
			}
			_ = c.Close()
			wantCode(t, <-drained, code.Aborted)
		}, []code.Code{code.Aborted}},
		{"the dialer closes", func(t *testing.T, p *pair, _, _ *culvert.Conn) {
			if err := p.d.Close(); err != nil {
				t.Error(err)
			}
		}, []code.Code{code.Shutdown, code.ChannelLost}},
		{"the listener closes", func(t *testing.T, p *pair, _, _ *culvert.Conn) {
			if err := p.ln.Shutdown(ended()); err == nil {
				t.Error("Shutdown with an ended context: no error")
			}
		}, []code.Code{code.Shutdown, code.ChannelLost}},
	} {
		for _, side := range []string{"dialer", "listener"} {
			t.Run(tt.name+", seen by the other than the "+side, func(t *testing.T) {
				t.Parallel()
				p := newPair(t, pairing{})
				mine, other := p.conns()
				if side == "listener" {
					mine, other = other, mine
				}
				defer other.Close()
				defer mine.Close()
				if _, err := io.WriteString(mine, "a beginning"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(other, make([]byte, len("a beginning"))); err != nil {
					t.Fatal(err)
				}
				tt.end(t, p, mine, other)
				wantEnd(t, other, tt.want...)
			})
		}
	}
}

// writeInPart has a deadline end a Write, and returns how many bytes of it are left.
func writeInPart(t *testing.T, c *culvert.Conn) (rest int) {
	t.Helper()
	const size = 64 << 20 // more than a window
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	n, err := c.Write(make([]byte, size))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the Write: %v", err)
	}
	return size - n
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Who writes what a deadline has kept back after it has lost nothing: Close is a clean end.
func TestWritingTheRestIsACleanEnd(t *testing.T) {
	p := newPair(t, pairing{})
	c, other := p.conns()
	defer other.Close()
	rest := writeInPart(t, c)
	if _, err := c.Write(make([]byte, rest)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another Write after the deadline: %v", err)
	}
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	type result struct {
		n   int64
		err error
	}
	read := make(chan result, 1)
	go func() {
		n, err := io.Copy(io.Discard, other)
		read <- result{n, err}
	}()
	for _, n := range []int{rest / 2, rest - rest/2} {
		if _, err := c.Write(make([]byte, n)); err != nil {
			t.Errorf("the rest: %v", err)
		}
	}
	_ = c.Close()
	if got := <-read; got.n != 64<<20 || got.err != nil {
		t.Errorf("read %d bytes, %v, want all and a clean end", got.n, got.err)
	}
}

// An abort is the reset of a TCP connection for those who look for that.
func TestAbortIsAReset(t *testing.T) {
	p := newPair(t, pairing{})
	a, b := p.conns()
	_ = a.Abort()
	_, err := b.Read(make([]byte, 1))
	var oe *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &oe) || oe.Op != "read" || oe.Timeout() {
		t.Errorf("got %#v", err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("at the side that has aborted: %v", err)
	}
	_ = b.Close()
}

// What was written arrives whole, and its end, whatever is closed right behind it.
func TestCloseSendsWhatWasWritten(t *testing.T) {
	const rounds = 20
	for i := range rounds {
		p := newPair(t, pairing{})
		a, b := p.conns()
		got := make(chan []byte, 1)
		go func() {
			all, err := io.ReadAll(b)
			if err != nil {
				t.Errorf("round %d: after %d bytes: %v", i, len(all), err)
			}
			_ = b.Close()
			got <- all
		}()
		want := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
		if _, err := a.Write(want); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		if err := p.d.Shutdown(withPatience(t)); err != nil {
			t.Fatal(err)
		}
		if all := <-got; !bytes.Equal(all, want) {
			t.Fatalf("round %d: %d bytes of %d have arrived", i, len(all), len(want))
		}
	}
}

// io.Copy from and to a conn says whose error it was.
func TestCopyTellsErrorsApart(t *testing.T) {
	p := newPair(t, pairing{})
	a, b := p.conns()
	broken := errors.New("broken")
	if _, err := io.Copy(a, io.MultiReader(bytes.NewReader([]byte("some")), errReader{broken})); !errors.Is(err, broken) {
		t.Errorf("copying from what fails: %v", err)
	}
	if _, err := io.Copy(errWriter{broken}, b); !errors.Is(err, broken) {
		t.Errorf("copying to what fails: %v", err)
	}
	_ = a.Abort()
	var e *culvert.Error
	if _, err := io.Copy(io.Discard, b); !errors.As(err, &e) || e.Code != code.Aborted {
		t.Errorf("copying from what was aborted: %v", err)
	}
	_ = b.Close()
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }

// A relay is killed under a transfer, in both directions at once: everything arrives, over
// the other one.
func TestStreamsOutliveTheirRelay(t *testing.T) {
	first, second := newRelay(t), newRelay(t)
	p := newPair(t, pairing{relays: []*testRelay{first, second}})
	a, b := p.conns()
	const size = 32 << 20
	half := make(chan struct{})
	var once sync.Once
	var sums [4][]byte
	var copying sync.WaitGroup
	for i, c := range []*culvert.Conn{a, b} {
		copying.Go(func() {
			h := sha256.New()
			r := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), size), h)
			if _, err := io.Copy(c, r); err != nil {
				t.Errorf("writing at end %d: %v", i, err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Errorf("ending at end %d: %v", i, err)
			}
			sums[i] = h.Sum(nil)
		})
		copying.Go(func() {
			h := &countingHash{Hash: sha256.New(), at: size / 4, reached: func() { once.Do(func() { close(half) }) }}
			if n, err := io.Copy(h, c); err != nil || n != size {
				t.Errorf("reading at end %d: %d bytes, %v", i, n, err)
			}
			sums[3-i] = h.Sum(nil)
		})
	}
	<-half
	first.kill()
	copying.Wait()
	_ = a.Close()
	_ = b.Close()
	if t.Failed() {
		return
	}
	if !bytes.Equal(sums[0], sums[2]) || !bytes.Equal(sums[1], sums[3]) {
		t.Errorf("what was written and what was read differ: %x", sums)
	}
	// And another dial finds the way, too.
	a, b = p.conns()
	_ = a.Close()
	_ = b.Close()
}

type countingHash struct {
	hash.Hash
	n, at   int
	reached func()
}

func (h *countingHash) Write(b []byte) (int, error) {
	if h.n += len(b); h.n >= h.at {
		h.reached()
	}
	return h.Hash.Write(b)
}

// Without any path a stream is kept for Grace and then ends, in an error.
func TestNoPathIsAnErrorInTheEnd(t *testing.T) {
	r := newRelay(t)
	p := newPair(t, pairing{
		relays:   []*testRelay{r},
		listener: func(c *culvert.ListenerConfig) { c.Grace = time.Second },
		dialer:   func(c *culvert.DialerConfig) { c.Grace = time.Second },
	})
	a, b := p.conns()
	r.kill()
	for _, c := range []*culvert.Conn{a, b} {
		_, err := c.Read(make([]byte, 1))
		wantCode(t, err, code.ChannelLost)
		_ = c.Close()
	}
}

// Nobody is kept from ending by a program that does not read: not the conn, not the
// others on its channel.
func TestStalledConnStallsOnlyItself(t *testing.T) {
	p := newPair(t, pairing{})
	p.serve(func(c *culvert.Conn) {
		if b := make([]byte, 1); c.Peer().Identifier == p.d.Identifier() {
			if _, err := c.Read(b); err == nil && b[0] == 's' {
				<-time.After(200 * time.Millisecond)
				return
			}
			_, _ = c.Write(b)
		}
		echo(c)
	})
	stalled, err := p.d.Dial(withPatience(t), "echo")
	if err != nil {
		t.Fatal(err)
	}
	writing := make(chan error, 1)
	go func() {
		_, err := stalled.Write(bytes.Repeat([]byte("s"), 32<<20))
		writing <- err
	}()
	for i := range 10 {
		c, err := p.d.Dial(withPatience(t), "echo")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		wantEcho(t, c, fmt.Sprintf("round %d", i))
		_ = c.Close()
	}
	if err := <-writing; err == nil {
		t.Error("all was written to one who read a byte of it")
	}
	_ = stalled.Close()
}
