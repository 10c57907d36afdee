package pump

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/culvert-net/culvert/internal/sock"
)

// TestResetIsNoEnd resets a conn in the middle of what it sends while the copy
// writes to it, too. The kernel tells of a reset only once: a write that is told
// leaves the end of the data to the read beside it, which must not be passed on.
func TestResetIsNoEnd(t *testing.T) {
	for _, way := range copies {
		t.Run(way.name, func(t *testing.T) {
			for range 4 {
				c := way.start(t)
				resetBusy(t, c, c.left, c.right)
			}
		})
	}
}

// resetBusy has near send a little and reset its conn, while the copy waits to write
// more to it than it reads.
func resetBusy(t *testing.T, c *copying, near, far *net.TCPConn) {
	t.Helper()
	soon(near)
	sent := []byte("the first half")
	if _, err := near.Write(sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %q, %v, want %q", got, err, sent)
	}
	fill(t, far)
	soon(far) // nothing is written by far from here on: its read alone is told
	_ = sock.ResetClose(near)
	if n, err := far.Read(got); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the far side of a conn that was reset: got %d bytes, %v, want %v", n, err, syscall.ECONNRESET)
	}
	if r := c.wait(t); r.Err == nil {
		t.Fatal("the copy of a conn that was reset has ended well")
	}
}
