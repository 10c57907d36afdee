package tunnel

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"time"
)

// These benchmarks run sessions on what carries them in earnest: a channel on a
// loopback TCP connection. Beside the time they say how much CPU time both ends
// together have used, which depends less on what else the machine does.

// BenchmarkBulk copies through streams as a proxy does, from a reader and to a
// writer that cost nothing, in one direction of each stream or in both.
func BenchmarkBulk(b *testing.B) {
	for _, streams := range []int{1, 8} {
		for _, ways := range []int{1, 2} {
			b.Run(fmt.Sprintf("streams=%d/ways=%d", streams, ways), func(b *testing.B) {
				benchmarkBulk(b, streams, ways)
			})
		}
	}
}

func benchmarkBulk(b *testing.B, streams, ways int) {
	x, y := channelPair(b)
	p := startPair(b, x, y, Config{}, Config{})
	var clients, servers []*Stream
	for range streams {
		c, s := p.open(b)
		clients, servers = append(clients, c), append(servers, s)
	}
	b.SetBytes(maxData)
	b.ReportAllocs()
	before := cpuTime(b)
	b.ResetTimer()
	var done sync.WaitGroup
	send := func(from, to *Stream, frames int) {
		done.Go(func() {
			if _, err := from.ReadFrom(&zeros{left: int64(frames) * maxData}); err != nil {
				b.Error(err)
			}
		})
		done.Go(func() { drainBytes(b, to, int64(frames)*maxData) })
	}
	each := b.N/(streams*ways) + 1
	for i := range streams {
		send(clients[i], servers[i], each)
		if ways == 2 {
			send(servers[i], clients[i], each)
		}
	}
	done.Wait()
	b.StopTimer()
	reportCPU(b, before, each*streams*ways*maxData>>10, "cpu-ns/KiB")
}

// BenchmarkRequests sends 64 bytes and their echo, one at a time on each of some
// streams.
func BenchmarkRequests(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			x, y := channelPair(b)
			p := startPair(b, x, y, Config{}, Config{})
			var clients []*Stream
			var echoes sync.WaitGroup
			for range streams {
				c, s := p.open(b)
				clients = append(clients, c)
				echoes.Go(func() { _, _ = io.Copy(s, s); _ = s.Close() })
			}
			b.ReportAllocs()
			before := cpuTime(b)
			b.ResetTimer()
			each := b.N/streams + 1
			var done sync.WaitGroup
			for _, c := range clients {
				done.Go(func() { ask(b, c, each) })
			}
			done.Wait()
			b.StopTimer()
			reportCPU(b, before, each*streams, "cpu-ns/req")
			for _, c := range clients {
				_ = c.Close()
			}
			echoes.Wait()
		})
	}
}

func ask(b *testing.B, c *Stream, n int) {
	buf := make([]byte, 64)
	for range n {
		if _, err := c.Write(buf); err != nil {
			b.Error(err)
			return
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Error(err)
			return
		}
	}
}

// drainBytes takes n bytes off st by its WriteTo, which then goes on until the
// end: the writer ends it by an error.
func drainBytes(b *testing.B, st *Stream, n int64) {
	if _, err := st.WriteTo(&sink{left: n}); err != io.ErrShortWrite {
		b.Error(err)
	}
}

// zeros is a reader of so many bytes that costs nothing.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	return int(n), nil
}

// sink is a writer that says io.ErrShortWrite when it has so many bytes.
type sink struct{ left int64 }

func (s *sink) Write(p []byte) (int, error) {
	if s.left -= int64(len(p)); s.left <= 0 {
		return len(p), io.ErrShortWrite
	}
	return len(p), nil
}

func reportCPU(b *testing.B, before time.Duration, n int, unit string) {
	b.ReportMetric(float64(cpuTime(b)-before)/float64(n), unit)
}
