package node

import (
	"context"
	"net"
	"testing"
	"time"
)

// A stranger speaks the protocol of links to a node, and forges what it likes.
type stranger struct {
	net.Conn
	flows uint32
}

func newStranger(t testing.TB, addr Address) *stranger {
	t.Helper()
	s := &stranger{Conn: rawLink(t, addr)}
	s.write(t, preamble[:])
	return s
}

func (s *stranger) write(t testing.TB, b []byte) {
	t.Helper()
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
}

// send sends a small message in a flow of its own, whose number it returns.
func (s *stranger) send(t testing.TB, onward, back Route, h head, body string) uint32 {
	t.Helper()
	s.flows++
	routes := appendRoutes(nil, onward, back)
	b := append(frame{frameOpen, len(routes), s.flows}.append(nil), routes...)
	h.length = len(body)
	b = h.append(frame{frameData, messageHead + len(body), s.flows}.append(b))
	s.write(t, append(b, body...))
	return s.flows
}

// TestForgedReply: what calls itself an answer, and is none, passes no hop and reaches
// no worker that is not for strangers.
func TestForgedReply(t *testing.T) {
	inner, innerAddr := listening(t, Config{})
	got := make(chan string, 10)
	start(t, inner, "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		got <- string(m.Body)
		return nil
	}), Options{Allow: Anyone})
	middle, addr := listening(t, Config{})
	if err := middle.StartHop("guarded", Hop{To: []Address{innerAddr}}); err != nil {
		t.Fatal(err)
	}
	start(t, middle, "echo", echo, Options{Allow: Anyone})
	for _, k := range []kind{plain, reply} {
		s := newStranger(t, addr)
		s.send(t, Route{"guarded", innerAddr, "sink"}, nil, head{kind: k, hops: 9}, "forged")
	}
	if err := middle.Send(inTime(t), Route{"guarded", innerAddr, "sink"}, []byte("true")); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(time.Second)
	for trues := 0; ; {
		select {
		case b := <-got:
			if b != "true" {
				t.Errorf("got %q", b)
			}
			trues++
		case <-deadline:
			if trues != 1 {
				t.Errorf("got %d messages of the middle's", trues)
			}
			return
		}
	}
}
