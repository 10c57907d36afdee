package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestConnHandedOff is TestConn of streams that hand their frames off.
func TestConnHandedOff(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := channelPair(t)
		p := startPair(t, a, b, Config{}, Config{})
		c1, c2 := p.open(t)
		c1.HandOff()
		c2.HandOff()
		return c1, c2, func() {
			_, _ = c1.Close(), c2.Close()
			p.forgotten(t)
			p.close(t)
		}, nil
	})
}

// stuck returns a stream that hands off, of which a Write stands at a carrier that takes
// nothing, and what that Write will have returned.
func stuck(t *testing.T) (v *valve, p *pair, c, s *Stream, written <-chan result) {
	a, b := plainPair(t)
	v = newValve(a)
	p = startPair(t, v, b, Config{}, Config{})
	c, s = p.open(t)
	c.HandOff()
	v.shut()
	done := make(chan result, 1)
	go func() {
		n, err := c.Write(bytes.Repeat([]byte("d"), 200<<10))
		done <- result{n, err}
	}()
	eventually(t, "the carrier holds a Write", v.holds)
	return v, p, c, s, done
}

type result struct {
	n   int
	err error
}

// A deadline ends a Write of which a frame is on its way to the carrier. What it says was
// sent arrives, what comes later stands behind it, and so does the end.
func TestHandOffHeedsDeadlines(t *testing.T) {
	v, p, c, s, written := stuck(t)
	_ = c.SetWriteDeadline(time.Now())
	got := await(t, written, "the Write")
	if !errors.Is(got.err, os.ErrDeadlineExceeded) || got.n == 0 {
		t.Fatalf("the Write: %+v", got)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another Write before there is room: %v", err)
	}
	_ = c.SetWriteDeadline(time.Time{})
	rest := async(func() error {
		if _, err := c.Write([]byte("end")); err != nil {
			return err
		}
		return c.CloseWrite()
	})
	v.release()
	want := append(bytes.Repeat([]byte("d"), got.n), "end"...)
	if all, err := io.ReadAll(s); err != nil || !bytes.Equal(all, want) {
		t.Errorf("read %d bytes, %v, want %d and a clean end", len(all), err, len(want))
	}
	if err := await(t, rest, "the rest"); err != nil {
		t.Error(err)
	}
	_, _ = c.Close(), s.Close()
	p.forgotten(t)
}

// So does the stream's end, and the peer is told of it behind the frame.
func TestHandOffHeedsReset(t *testing.T) {
	v, p, c, s, written := stuck(t)
	_ = c.Reset(code.Aborted)
	if got := await(t, written, "the Write"); got.err == nil {
		t.Fatalf("the Write: %+v", got)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a stream that was reset can be written")
	}
	for range 100 { // whenever the peer is about to be told
		if err := await(t, async(c.CloseWrite), "CloseWrite while the carrier holds the frame"); err == nil {
			t.Error("a stream that was reset ends cleanly")
		}
	}
	v.release()
	_, err := io.Copy(io.Discard, s)
	wantReset(t, err, code.Aborted, true)
	p.forgotten(t)
}

// A session that ends while a frame is on its way waits for nobody.
func TestHandOffHeedsTheSessionsEnd(t *testing.T) {
	_, p, _, _, written := stuck(t)
	p.client.Close(code.OK, "")
	if got := await(t, written, "the Write"); got.err == nil {
		t.Errorf("the Write: %+v", got)
	}
	p.close(t)
}

// A FIN that has not got to the carrier before the session's end was not sent.
func TestHandOffLosesTheFIN(t *testing.T) {
	a, b := plainPair(t)
	v := newValve(a)
	p := startPair(t, v, b, Config{}, Config{})
	c, _ := p.open(t)
	c.HandOff()
	v.shut()
	ended := async(c.CloseWrite)
	eventually(t, "the carrier holds the FIN", v.holds)
	p.client.Close(code.OK, "")
	wantLoss(t, await(t, ended, "CloseWrite"))
	p.close(t)
}

// While the carrier takes nothing a stream holds about as much as was written.
func TestHandOffHoldsLittle(t *testing.T) {
	const streams = 64
	a, b := plainPair(t)
	v := newValve(a)
	p := startPair(t, v, b, Config{}, Config{})
	var open []*Stream
	for range streams {
		c, s := p.open(t)
		c.HandOff()
		open = append(open, c, s)
	}
	v.shut()
	before, _ := memory()
	for i := range int32(streams) {
		c := open[2*i]
		written := async(func() error {
			_, err := c.Write([]byte("x"))
			return err
		})
		eventually(t, "the byte is on its way", func() bool { return p.client.gate.inside.Load() == i+1 })
		_ = c.SetWriteDeadline(time.Now())
		if err := await(t, written, "the Write"); err != nil {
			t.Fatal(err)
		}
	}
	wantHeld(t, before)
	v.release()
	for _, st := range open {
		_ = st.Close()
	}
	p.forgotten(t)
	p.close(t)
}
