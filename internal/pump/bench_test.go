package pump

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// eachWay runs a benchmark between the peers of each kind of copy, from one to
// the other end.
func eachWay(b *testing.B, size int, run func(b *testing.B, c *copying)) {
	for _, way := range []struct {
		name  string
		start func(b *testing.B) *copying
	}{
		{"splice", func(b *testing.B) *copying { return startSplice(b, Options{Idle: time.Minute}) }},
		{"buffers", func(b *testing.B) *copying { return startSplice(b, Options{Idle: time.Minute, Pipes: noPipes()}) }},
		{"both", func(b *testing.B) *copying { return startBoth(b) }},
		{"limits of none", func(b *testing.B) *copying {
			c, _ := startLimited(b, NewRate(0), NewRate(0))
			return c
		}},
		{"limits never met", func(b *testing.B) *copying {
			c, _ := startLimited(b, NewRate(1<<40), NewRate(1<<40))
			return c
		}},
	} {
		b.Run(fmt.Sprintf("way=%s/size=%d", way.name, size), func(b *testing.B) {
			c := way.start(b)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			run(b, c)
			b.StopTimer()
			_ = c.left.CloseWrite()
			_, _ = io.Copy(io.Discard, c.right)
			_ = c.right.CloseWrite()
			c.wait(b)
		})
	}
}

// BenchmarkCopy carries one way as fast as the far peer reads.
func BenchmarkCopy(b *testing.B) {
	const size = 256 << 10
	eachWay(b, size, func(b *testing.B, c *copying) {
		read := make(chan error, 1)
		go func() {
			buf := make([]byte, size)
			for range b.N {
				if _, err := io.ReadFull(c.right, buf); err != nil {
					read <- err
					return
				}
			}
			read <- nil
		}()
		block := make([]byte, size)
		b.ResetTimer()
		for range b.N {
			if _, err := c.left.Write(block); err != nil {
				b.Fatal(err)
			}
		}
		if err := <-read; err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkRoundTrip carries a request and its answer, one at a time.
func BenchmarkRoundTrip(b *testing.B) {
	const size = 64
	eachWay(b, size, func(b *testing.B, c *copying) {
		request, answer := make([]byte, size), make([]byte, size)
		for b.Loop() {
			_, werr := c.left.Write(request)
			_, rerr := io.ReadFull(c.right, answer)
			_, awerr := c.right.Write(answer)
			_, arerr := io.ReadFull(c.left, request)
			if werr != nil || rerr != nil || awerr != nil || arerr != nil {
				b.Fatal(werr, rerr, awerr, arerr)
			}
		}
	})
}
