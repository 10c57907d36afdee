package node

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// TestLargest: a body of MaxBody bytes arrives whole and comes back whole, on the node, next
// door, by way of a node between, and through a channel; one of a byte more is refused where
// it is sent, also as an answer and by a worker that forwards.
func TestLargest(t *testing.T) {
	t.Parallel()
	aliceLocal, alices := newLocal(t)
	bobLocal, bobs := newLocal(t)
	bob, bobAddr := listening(t, Config{Local: bobLocal, Keepalive: time.Minute})
	if err := bob.ServeChannels("channels", only(alices)); err != nil {
		t.Fatal(err)
	}
	middle, middleAddr := listening(t, Config{Keepalive: time.Minute})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{bobAddr}}); err != nil {
		t.Fatal(err)
	}
	alice := newNode(t, Config{Local: aliceLocal, Keepalive: time.Minute})
	start(t, bob, "echo", echo, Options{Allow: Anyone})
	start(t, bob, "swells", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		return self.Reply(ctx, m, make([]byte, MaxBody+1))
	}), Options{Allow: Anyone})
	c, err := alice.OpenChannel(inTime(t), Route{middleAddr, "on", bobAddr, "channels"}, bobs)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience) // of seven times 16 MiB
	defer cancel()
	body := bytes.Repeat([]byte("0123456789abcde\n"), MaxBody/16)
	if len(body) != MaxBody {
		t.Fatalf("%d bytes", len(body))
	}
	for _, to := range []Route{{bobAddr, "echo"}, {middleAddr, "on", bobAddr, "echo"}, {c.Address(), "echo"}} {
		m, err := alice.Request(ctx, to, bytes.Clone(body))
		if err != nil {
			t.Fatalf("over %s: %v", to, err)
		}
		if !bytes.Equal(m.Body, body) {
			t.Errorf("over %s %d bytes have come back, others than were sent", to, len(m.Body))
		}
		wantCode(t, alice.Send(inTime(t), to, make([]byte, MaxBody+1)), code.Limit)
		_, err = alice.Request(inTime(t), append(to[:len(to)-1:len(to)-1], "swells"), nil)
		wantCode(t, err, code.Limit)
	}
	start(t, alice, "echo", echo, Options{Mailbox: 1, MailboxBytes: 1})
	wantEcho(t, alice, Route{"echo"}, string(body))
	start(t, alice, "swells", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		m.Body = make([]byte, MaxBody+1)
		return self.ForwardTo(ctx, m, Route{"echo"})
	}), Options{})
	_, err = alice.Request(inTime(t), Route{"swells"}, nil)
	wantCode(t, err, code.Limit)
}
