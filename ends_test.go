package culvert_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/code"
)

// Whatever a program writes and however it ends, the other reads just that and that end:
// all of it and io.EOF after a clean one, a beginning of it and an *Error after any
// other.
func TestEndsAreTold(t *testing.T) {
	p := newPair(t, pairing{})
	rapid.Check(t, func(rt *rapid.T) {
		mine, other := p.conns()
		if rapid.Bool().Draw(rt, "the listener writes") {
			mine, other = other, mine
		}
		defer mine.Close()
		defer other.Close()
		sizes := rapid.SliceOfN(rapid.IntRange(0, 100_000), 0, 8).Draw(rt, "writes")
		end := rapid.SampledFrom([]string{"CloseWrite", "Close", "Abort"}).Draw(rt, "end")
		readFirst := rapid.Bool().Draw(rt, "read meanwhile")
		type result struct {
			got []byte
			err error
		}
		read := make(chan result, 1)
		reading := func() {
			got, err := io.ReadAll(other)
			read <- result{got, err}
		}
		if readFirst {
			go reading()
		}
		random := rand.NewChaCha8([32]byte{byte(len(sizes))})
		var sent []byte
		for _, n := range sizes {
			b := make([]byte, n)
			_, _ = random.Read(b)
			if k, err := mine.Write(b); err != nil || k != n {
				rt.Fatalf("writing %d bytes: %d, %v", n, k, err)
			}
			sent = append(sent, b...)
		}
		var err error
		switch end {
		case "CloseWrite":
			err = mine.CloseWrite()
		case "Close":
			err = mine.Close()
		case "Abort":
			err = mine.Abort()
		}
		if err != nil {
			rt.Fatalf("%s: %v", end, err)
		}
		if !readFirst {
			go reading()
		}
		r := <-read
		var e *culvert.Error
		switch {
		case end != "Abort" && (r.err != nil || !bytes.Equal(r.got, sent)):
			rt.Errorf("after a clean end: %d bytes of %d, the same: %v, %v", len(r.got), len(sent), bytes.Equal(r.got, sent), r.err)
		case end == "Abort" && (!errors.As(r.err, &e) || e.Code != code.Aborted || !bytes.HasPrefix(sent, r.got)):
			rt.Errorf("after an abort: %d bytes of %d, a beginning of them: %v, %v", len(r.got), len(sent), bytes.HasPrefix(sent, r.got), r.err)
		}
		if end != "CloseWrite" {
			return
		}
		// The other direction is open.
		if _, err := other.Write([]byte("back")); err != nil {
			rt.Errorf("writing back: %v", err)
		}
		if err := other.Close(); err != nil {
			rt.Error(err)
		}
		if back, err := io.ReadAll(mine); err != nil || string(back) != "back" {
			rt.Errorf("reading back: %q, %v", back, err)
		}
	})
}

// A deadline in the past, or soon, is no end of the stream.
func TestDeadlinesEndNothing(t *testing.T) {
	p := newPair(t, pairing{})
	p.serve(echo)
	c, err := p.d.Dial(withPatience(t), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 10 {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
			t.Fatalf("reading nothing until a deadline: %v", err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		wantEcho(t, c, "goes on")
	}
}

func isTimeout(err error) bool {
	var ne interface{ Timeout() bool }
	return errors.As(err, &ne) && ne.Timeout()
}
