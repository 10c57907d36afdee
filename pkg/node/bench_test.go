package node

import (
	"context"
	"testing"
)

// BenchmarkHop sends 64 bytes each from one node to a worker on another, through a
// hop, over TCP on the loopback; BenchmarkChannel through an end-to-end channel.
func BenchmarkHop(b *testing.B) {
	far, addr := listening(b, Config{})
	if err := far.StartHop("hop", Hop{Allow: Anyone}); err != nil {
		b.Fatal(err)
	}
	got := sink(b, far, Anyone)
	near := newNode(b, Config{})
	deliver(b, near, Route{addr, "hop", "sink"}, got)
}

// BenchmarkMiddle sends them by way of a node in the middle, as [BenchmarkNATS] does by
// way of a server.
func BenchmarkMiddle(b *testing.B) {
	far, farAddr := listening(b, Config{})
	got := sink(b, far, Anyone)
	middle, addr := listening(b, Config{})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{farAddr}}); err != nil {
		b.Fatal(err)
	}
	near := newNode(b, Config{})
	deliver(b, near, Route{addr, "on", farAddr, "sink"}, got)
}

// BenchmarkLarge sends 1 MiB each.
func BenchmarkLarge(b *testing.B) {
	far, addr := listening(b, Config{})
	got := sink(b, far, Anyone)
	near := newNode(b, Config{})
	ctx := inTime(b)
	send := func() {
		if err := near.Send(ctx, Route{addr, "sink"}, make([]byte, 1<<20)); err != nil {
			b.Fatal(err)
		}
	}
	send()
	b.SetBytes(1 << 20)
	b.ResetTimer()
	for range b.N {
		send()
	}
	<-got
}

func BenchmarkChannel(b *testing.B) {
	bobLocal, bobs := newLocal(b)
	aliceLocal, alices := newLocal(b)
	bob, addr := listening(b, Config{Local: bobLocal})
	if err := bob.ServeChannels("channels", only(alices)); err != nil {
		b.Fatal(err)
	}
	got := sink(b, bob, Peers(alices))
	alice := newNode(b, Config{Local: aliceLocal})
	c, err := alice.OpenChannel(context.Background(), Route{addr, "channels"}, bobs)
	if err != nil {
		b.Fatal(err)
	}
	deliver(b, alice, Route{c.Address(), "sink"}, got)
}

// BenchmarkLocal sends to a worker on the same node, BenchmarkGoChannel over a Go
// channel, which is the least that it can cost.
func BenchmarkLocal(b *testing.B) {
	n := newNode(b, Config{})
	got := sink(b, n, nil)
	deliver(b, n, Route{"sink"}, got)
}

func BenchmarkGoChannel(b *testing.B) {
	c, done := make(chan []byte, 256), make(chan struct{})
	go func() {
		defer close(done)
		for range b.N {
			<-c
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		c <- make([]byte, 64)
	}
	<-done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkRequest(b *testing.B) {
	far, addr := listening(b, Config{})
	if err := far.Start("echo", echo, Options{Allow: Anyone}); err != nil {
		b.Fatal(err)
	}
	near := newNode(b, Config{})
	body := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := near.Request(context.Background(), Route{addr, "echo"}, body); err != nil {
			b.Fatal(err)
		}
	}
}

// sink starts a worker that counts.
func sink(b *testing.B, n *Node, allow func(Origin) error) <-chan struct{} {
	b.Helper()
	got, count := make(chan struct{}), 0
	w := WorkerFunc(func(context.Context, *Self, *Message) error {
		if count++; count == b.N+1 {
			close(got)
		}
		return nil
	})
	if err := n.Start("sink", w, Options{Allow: allow}); err != nil {
		b.Fatal(err)
	}
	return got
}

// deliver sends b.N messages, and waits until the last one has come.
func deliver(b *testing.B, n *Node, onward Route, got <-chan struct{}) {
	b.Helper()
	ctx := inTime(b)
	send := func() {
		if err := n.Send(ctx, onward, make([]byte, 64)); err != nil {
			b.Fatal(err)
		}
	}
	send() // makes the conn
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		send()
	}
	<-got
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
