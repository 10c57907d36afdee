package channel

import (
	"fmt"
	"io"
	"net"
	"testing"
)

// BenchmarkHandshake is both sides of one handshake, from the preamble to two
// Conns, in memory.
func BenchmarkHandshake(b *testing.B) {
	init, resp := newLocal(b), newLocal(b)
	for _, suite := range suites {
		b.Run(fmt.Sprintf("suite=%s", suite), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, q := net.Pipe()
				c, ans, err := handshakeOn(p, q, init, resp, PurposeChannel, nil, Options{Suite: suite})
				if err != nil || ans.err != nil {
					b.Fatal(err, ans.err)
				}
				// Not a goodbye's round trip as well.
				abandon(c)
				abandon(ans.in.Accept())
			}
		})
	}
}

// abandon ends a Conn without a word to its peer.
func abandon(c *Conn) {
	_ = c.nc.Close()
	_ = c.Close()
}

// A carrier is what a benchmark carries bytes over, on a loopback TCP
// connection: one Conn, or a Channel with its path.
type carrier struct {
	name string
	open func(t testing.TB) (x, y io.ReadWriteCloser)
}

var carriers = []carrier{
	{"conn", func(t testing.TB) (x, y io.ReadWriteCloser) {
		p, q := tcpPair(t)
		return connPair(t, p, q, Options{})
	}},
	{"channel", func(t testing.TB) (x, y io.ReadWriteCloser) {
		return newLab(t, 1, Settings{}, Timing{}, Limits{}).open()
	}},
}

// between runs a benchmark over one carrier, whose far end serve has until the
// near one is closed.
func (c carrier) between(b *testing.B, serve func(y io.ReadWriter), run func(x io.ReadWriter)) {
	x, y := c.open(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(y)
		_ = y.Close()
	}()
	b.ReportAllocs()
	run(x)
	b.StopTimer()
	_ = x.Close()
	<-done
}

// BenchmarkThroughput carries one way: seal, send, receive and open.
func BenchmarkThroughput(b *testing.B) {
	for _, c := range carriers {
		for _, size := range []int{64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, RecordData, 256 << 10} {
			b.Run(fmt.Sprintf("over=%s/size=%d", c.name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				c.between(b, discard, func(x io.ReadWriter) {
					data := make([]byte, size)
					for b.Loop() {
						if _, err := x.Write(data); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

// discard reads all there is, in large pieces.
func discard(r io.ReadWriter) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10))
}

// BenchmarkRoundTrip sends a request and its answer of the same size, one at a
// time.
func BenchmarkRoundTrip(b *testing.B) {
	for _, c := range carriers {
		for _, size := range []int{64, 4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("over=%s/size=%d", c.name, size), func(b *testing.B) {
				c.between(b, echoing(size), func(x io.ReadWriter) {
					buf := make([]byte, size)
					for b.Loop() {
						_, _ = x.Write(buf) // the answer says whether it arrived
						if _, err := io.ReadFull(x, buf); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

// echoing sends back each message of a size.
func echoing(size int) func(io.ReadWriter) {
	return func(rw io.ReadWriter) {
		buf := make([]byte, size)
		for {
			if _, err := io.ReadFull(rw, buf); err != nil {
				return
			}
			if _, err := rw.Write(buf); err != nil {
				return
			}
		}
	}
}
