package node

import (
	"context"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A mourner answers, and hears of what is lost.
type mourner chan *DeliveryError

func (mourner) Handle(ctx context.Context, self *Self, m *Message) error {
	return self.Reply(ctx, m, m.Body)
}

func (w mourner) HandleLoss(_ context.Context, _ *Self, err *DeliveryError) { w <- err }

// TestLostReply: who has answered hears that the answer was lost.
func TestLostReply(t *testing.T) {
	b, addr := listening(t, Config{})
	losses := make(mourner, 1)
	start(t, b, "echo", losses, Options{Allow: Anyone})
	a := newNode(t, Config{})
	if err := a.send(inTime(t), &Message{Onward: Route{addr, "echo"}, Return: a.inbox, id: 7, hops: 9}, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-losses:
		wantCode(t, err, code.NoWorker)
	case <-time.After(5 * time.Second):
		t.Error("the answer is lost, and nobody told")
	}
}

// TestLastWords: what was sent before a channel, or a node, is closed goes out.
func TestLastWords(t *testing.T) {
	x := newTrio(t, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
	got := make(chan string, 10)
	start(t, x.bob, "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		got <- string(m.Body)
		return nil
	}), Options{Allow: Anyone})
	want := func(text string) {
		t.Helper()
		select {
		case m := <-got:
			if m != text {
				t.Errorf("got %q, want %q", m, text)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%q does not come", text)
		}
	}
	for range 10 {
		c := x.open(t)
		if err := x.alice.Send(inTime(t), Route{c.Address(), "sink"}, []byte("by channel")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		want("by channel")
		n := newNode(t, Config{})
		if err := n.Send(inTime(t), Route{x.wire.addr(), "sink"}, []byte("by conn")); err != nil {
			t.Fatal(err)
		}
		_ = n.Close()
		want("by conn")
		if t.Failed() {
			return
		}
	}
}

// TestRequestOverLostChannel: who waits for an answer that has to come by a channel
// hears that it is over.
func TestRequestOverLostChannel(t *testing.T) {
	x := newTrio(t, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
	in := make(chan struct{})
	start(t, x.bob, "mute", WorkerFunc(func(ctx context.Context, _ *Self, _ *Message) error {
		close(in)
		return nil
	}), Options{Allow: Anyone})
	c := x.open(t)
	errs := make(chan error, 1)
	go func() {
		_, err := x.alice.Request(inTime(t), Route{c.Address(), "mute"}, nil)
		errs <- err
	}()
	<-in
	_ = c.Close()
	select {
	case err := <-errs:
		wantCode(t, err, code.LinkLost)
	case <-time.After(5 * time.Second):
		t.Error("it waits")
	}
}
