package node

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

func newNode(t testing.TB, cfg Config) *Node {
	t.Helper()
	n := New(cfg)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// listening returns a node that serves a transport, and its address.
func listening(t testing.TB, cfg Config) (*Node, Address) {
	t.Helper()
	n := newNode(t, cfg)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = n.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return n, Addr(ln)
}

func newLocal(t testing.TB) (*channel.Local, identity.Identifier) {
	t.Helper()
	id, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := channel.NewLocal(id)
	if err != nil {
		t.Fatal(err)
	}
	return l, l.Identifier()
}

func start(t testing.TB, n *Node, a Address, w Worker, opt Options) {
	t.Helper()
	if err := n.Start(a, w, opt); err != nil {
		t.Fatal(err)
	}
}

// echo answers with what it is sent.
var echo = WorkerFunc(func(ctx context.Context, self *Self, m *Message) error { return self.Reply(ctx, m, m.Body) })

func inTime(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func wantEcho(t testing.TB, n *Node, onward Route, text string) *Message {
	t.Helper()
	m, err := n.Request(inTime(t), onward, []byte(text))
	if err != nil {
		t.Fatalf("request over %s: %v", onward, err)
	}
	if string(m.Body) != text {
		t.Fatalf("request over %s: got %q, want %q", onward, m.Body, text)
	}
	return m
}

func wantCode(t testing.TB, err error, want code.Code) {
	t.Helper()
	var de *DeliveryError
	if !errors.As(err, &de) || de.Code != want {
		t.Errorf("got %v, want a delivery error with %s", err, want)
	}
}

func eventually(t testing.TB, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
		time.Sleep(time.Millisecond)
	}
}

// stall starts the worker "stalled", which is let go of when the test ends. Its mailbox
// has room for so many messages. What is sent to release lets one of them go.
func stall(t *testing.T, n *Node, mailbox int) (release chan<- struct{}) {
	t.Helper()
	gate := make(chan struct{})
	t.Cleanup(func() { close(gate) })
	start(t, n, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-gate
		return nil
	}), Options{Allow: Anyone, Mailbox: mailbox})
	return gate
}

// stallFull is stall with all the room taken: one message that the worker handles, and one
// in its mailbox. The next one waits.
func stallFull(t *testing.T, n *Node) (release chan<- struct{}) {
	t.Helper()
	release = stall(t, n, 1)
	for range 2 {
		if err := n.Send(inTime(t), Route{"stalled"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return release
}

// dialled returns the links that n has made.
func (n *Node) dialled() (ls []*link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.dials {
		select {
		case <-d.made:
			if d.link != nil {
				ls = append(ls, d.link)
			}
		default:
		}
	}
	return ls
}
