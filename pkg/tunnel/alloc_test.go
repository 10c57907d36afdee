package tunnel

import (
	"fmt"
	"io"
	"runtime/debug"
	"testing"
)

// TestAllocsPerFrame counts what a DATA frame allocates on its way from one
// program to the other, in the whole process. All of it is yamux's, two for a
// frame (what its sender is told to do, and the reader of a body) and a few for
// window updates and receive buffers that grow: this package's own way adds none.
func TestAllocsPerFrame(t *testing.T) {
	const most = 2*100 + 10 // in a hundred frames
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, way := range []struct {
		name string
		// between returns what the client's program writes, and the server's
		// reads.
		between func(t *testing.T, c, s *Stream) (io.Writer, io.Reader)
	}{
		{"Write and Read", func(_ *testing.T, c, s *Stream) (io.Writer, io.Reader) { return c, s }},
		{"ReadFrom and WriteTo", throughSockets},
	} {
		for _, size := range []int{64, 32 << 10} {
			t.Run(fmt.Sprintf("%s/%d", way.name, size), func(t *testing.T) {
				p := newPair(t, Config{})
				c, s := p.open(t)
				w, r := way.between(t, c, s)
				out, in := make([]byte, size), make([]byte, size)
				hundred := func() {
					for range 100 {
						if _, err := w.Write(out); err != nil {
							t.Error(err)
						}
						if _, err := io.ReadFull(r, in); err != nil {
							t.Error(err)
						}
					}
				}
				defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the pools stay
				for range 5 {
					hundred()
				}
				if got := testing.AllocsPerRun(20, hundred); got > most {
					t.Errorf("%.0f allocations for a hundred frames, want at most yamux's own %d", got, most)
				} else {
					t.Logf("%.0f allocations for a hundred frames", got)
				}
			})
		}
	}
}

// throughSockets has each stream copied from and to a socket, as an inlet and an
// outlet do.
func throughSockets(t *testing.T, c, s *Stream) (io.Writer, io.Reader) {
	client, near := tcpPair(t)
	far, target := tcpPair(t)
	copied := make(chan error, 2)
	go func() {
		_, err := c.ReadFrom(near)
		copied <- err
	}()
	go func() {
		_, err := s.WriteTo(far)
		copied <- err
	}()
	t.Cleanup(func() {
		client.Close()
		_ = c.CloseWrite()
		for range 2 {
			if err := await(t, copied, "the end of a copy"); err != nil {
				t.Error(err)
			}
		}
		near.Close()
		far.Close()
		target.Close()
	})
	return client, target
}
