package tunnel

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

// A tunnelBench is a pair of sessions over a channel on loopback TCP, with
// streams that are open.
type tunnelBench struct {
	*pair
	clients, servers []*Stream
}

func newTunnelBench(b *testing.B, streams int) *tunnelBench {
	x, y := channelPair(b)
	t := &tunnelBench{pair: startPair(b, x, y, Config{}, Config{})}
	for range streams {
		c, s := t.open(b)
		t.clients, t.servers = append(t.clients, c), append(t.servers, s)
	}
	return t
}

// times has n workers do op b.N times between them, and returns when that is
// done.
func times(b *testing.B, n int, op func(worker int) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var workers sync.WaitGroup
	for i := range n {
		workers.Go(func() {
			for left.Add(-1) >= 0 {
				if err := op(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
}

// BenchmarkOpen opens a stream, waits for the answer and closes it, both ways.
func BenchmarkOpen(b *testing.B) {
	for _, workers := range []int{1, 16} {
		b.Run(fmt.Sprintf("at-once=%d", workers), func(b *testing.B) {
			t := newTunnelBench(b, 0)
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					r, err := t.server.Accept(context.Background())
					if err != nil {
						return
					}
					serving.Go(func() {
						if st, err := r.Accept(); err == nil {
							_, _ = st.Read(make([]byte, 1)) // the end
							_ = st.Close()
						}
					})
				}
			})
			b.ReportAllocs()
			b.ResetTimer()
			times(b, workers, func(int) error {
				st, err := t.client.Open(context.Background(), Open{Service: "db", ClientAddress: "192.0.2.1:5"})
				if err != nil {
					return err
				}
				if err := st.Answered(context.Background()); err != nil {
					return err
				}
				if err := st.CloseWrite(); err != nil {
					return err
				}
				if _, err := st.Read(make([]byte, 1)); err != io.EOF {
					return fmt.Errorf("read %w, want the end", err)
				}
				return st.Close()
			})
			b.StopTimer()
			t.server.Close(code.OK, "")
			serving.Wait()
		})
	}
}

// BenchmarkRoundTrip sends 64 bytes and waits for them to come back, in every
// stream at once.
func BenchmarkRoundTrip(b *testing.B) {
	for _, streams := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			t := newTunnelBench(b, streams)
			for _, s := range t.servers {
				go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{s}, make([]byte, 64)) }()
			}
			bufs := make([][64]byte, streams)
			b.ReportAllocs()
			b.ResetTimer()
			times(b, streams, func(i int) error {
				if _, err := t.clients[i].Write(bufs[i][:]); err != nil {
					return err
				}
				_, err := io.ReadFull(t.clients[i], bufs[i][:])
				return err
			})
			b.StopTimer()
		})
	}
}

// BenchmarkBulk sends 64 KiB after another, in every stream at once, until all
// has arrived.
func BenchmarkBulk(b *testing.B) {
	for _, way := range []string{"up", "down"} {
		for _, streams := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("way=%s/streams=%d", way, streams), func(b *testing.B) {
				t := newTunnelBench(b, streams)
				from, to := t.clients, t.servers
				if way == "down" {
					from, to = to, from
				}
				var arriving sync.WaitGroup
				for _, s := range to {
					arriving.Go(func() { _, _ = s.WriteTo(io.Discard) })
				}
				block := make([]byte, maxData)
				b.SetBytes(maxData)
				b.ReportAllocs()
				b.ResetTimer()
				times(b, streams, func(i int) error {
					_, err := from[i].Write(block)
					return err
				})
				for _, c := range from {
					_ = c.CloseWrite()
				}
				arriving.Wait()
				b.StopTimer()
			})
		}
	}
}
