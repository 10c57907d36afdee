//go:build unix

package sock

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// TestEndOrReset has a write take the kernel's word of a reset: the read beside it
// is told of an end, which is none. What a peer has ended is one, before and after
// this side answers it.
func TestEndOrReset(t *testing.T) {
	buf := make([]byte, 1)
	t.Run("reset", func(t *testing.T) {
		c, s := pair(t)
		_ = ResetClose(s)
		var err error
		for err == nil {
			_, err = NewWriter(c).Write([]byte("is anybody there?"))
		}
		if _, err := c.Read(buf); err != io.EOF {
			t.Fatalf("the read beside a write that was told of the reset: got %v, want io.EOF", err)
		}
		var oe *net.OpError
		if err := EndOrReset(c); !errors.As(err, &oe) || oe.Op != "read" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after a reset: got %v, want a read's ECONNRESET", err)
		}
		c.Close()
		if err := EndOrReset(c); err != nil {
			t.Errorf("of a conn that is closed here: got %v, want nil", err)
		}
	})
	t.Run("end", func(t *testing.T) {
		c, s := pair(t)
		_ = s.CloseWrite()
		if _, err := c.Read(buf); err != io.EOF {
			t.Fatal(err)
		}
		if err := EndOrReset(c); err != nil {
			t.Errorf("after the peer's end: got %v, want nil", err)
		}
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
		if err := EndOrReset(c); err != nil {
			t.Errorf("after the peer's end and a write: got %v, want nil", err)
		}
	})
	t.Run("closed by the peer", func(t *testing.T) {
		c, s := pair(t)
		s.Close()
		if _, err := c.Read(buf); err != io.EOF {
			t.Fatal(err)
		}
		if err := EndOrReset(c); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
	t.Run("no socket", func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		if err := EndOrReset(a); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
}
