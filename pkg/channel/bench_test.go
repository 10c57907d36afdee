package channel

import (
	"fmt"
	"io"
	"testing"
)

func BenchmarkHandshake(b *testing.B) {
	init, resp := newLocal(b), newLocal(b)
	b.ReportAllocs()
	for b.Loop() {
		x, y := tcpPair(b)
		c, ans, err := handshakeOn(x, y, init, resp, PurposeChannel, nil, Options{})
		if err != nil || ans.err != nil {
			b.Fatal(err, ans.err)
		}
		go func() { _ = c.Close() }()
		_, _ = ans.in.Accept().Read(make([]byte, 1))
		_ = ans.in.Accept().Close()
	}
}

// BenchmarkThroughput carries one way over a loopback TCP connection.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 16 << 10, 64 << 10, RecordData, 256 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p, q := tcpPair(b)
			x, y := connPair(b, p, q, Options{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, y, make([]byte, 256<<10))
				_ = y.Close()
			}()
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Write(data); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			_ = x.Close()
			<-done
		})
	}
}

// BenchmarkRoundTrip sends a small request and its answer, one at a time.
func BenchmarkRoundTrip(b *testing.B) {
	p, q := tcpPair(b)
	x, y := connPair(b, p, q, Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64)
		for {
			if _, err := io.ReadFull(y, buf); err != nil {
				break
			}
			if _, err := y.Write(buf); err != nil {
				break
			}
		}
		_ = y.Close()
	}()
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = x.Write(buf)
		if _, err := io.ReadFull(x, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	_ = x.Close()
	<-done
}

// BenchmarkChannel carries one way over a channel's path.
func BenchmarkChannel(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 16 << 10, 64 << 10, RecordData, 256 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := newLab(b, 1, Settings{}, Timing{}, Limits{})
			x, y := l.open()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, y, make([]byte, 256<<10))
				_ = y.Close()
			}()
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Write(data); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			_ = x.Close()
			<-done
		})
	}
}

// BenchmarkChannelRoundTrip sends a small request and its answer, one at a
// time.
func BenchmarkChannelRoundTrip(b *testing.B) {
	l := newLab(b, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64)
		for {
			if _, err := io.ReadFull(y, buf); err != nil {
				return
			}
			if _, err := y.Write(buf); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = x.Write(buf)
		if _, err := io.ReadFull(x, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	closeChannels(b, x, y)
	<-done
}
