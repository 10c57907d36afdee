package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A stranger speaks the protocol of links to a node, and forges what it likes.
type stranger struct {
	net.Conn
	flows   uint32
	greeted bool // the node's hello was read
}

func newStranger(t testing.TB, addr Address) *stranger {
	t.Helper()
	s := &stranger{Conn: rawLink(t, addr)}
	s.write(t, hello{}.append(nil))
	return s
}

func (s *stranger) write(t testing.TB, b []byte) {
	t.Helper()
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
}

// put sends a small message in a flow of its own, whose number it returns.
func (s *stranger) put(onward, back Route, h head, body string) (uint32, error) {
	_, err := s.Write(s.frames(nil, onward, back, h, body))
	return s.flows, err
}

// frames appends what put sends.
func (s *stranger) frames(b []byte, onward, back Route, h head, body string) []byte {
	s.flows++
	routes := appendRoutes(nil, onward, back)
	b = append(frame{frameOpen, len(routes), s.flows}.append(b), routes...)
	h.length = len(body)
	return append(h.append(frame{frameData, messageHead + len(body), s.flows}.append(b)), body...)
}

func (s *stranger) send(t testing.TB, onward, back Route, h head, body string) {
	t.Helper()
	if _, err := s.put(onward, back, h, body); err != nil {
		t.Fatal(err)
	}
}

// rawLink is a conn to n that a test speaks the protocol of links on.
func rawLink(t testing.TB, addr Address) net.Conn {
	t.Helper()
	_, a := addr.transport()
	nc, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// message returns the head and body of the next small message that the node sends to s.
func (s *stranger) message(t testing.TB) (head, []byte) {
	t.Helper()
	for {
		f, b := s.next(t)
		if f.typ != frameData {
			continue
		}
		h, err := parseHead(b)
		if err != nil {
			t.Fatal(err)
		}
		return h, b[messageHead:]
	}
}

// wantLoss awaits word that a message of s was lost.
func (s *stranger) wantLoss(t testing.TB, want code.Code) {
	t.Helper()
	h, b := s.message(t)
	if h.kind != failed {
		t.Fatalf("the node sends %+v, %q, and no word of a loss", h, b)
	}
	wantCode(t, decodeNotice(b), want)
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
	start(t, middle, "private", echo, Options{})
	for _, k := range []kind{plain, reply} {
		s := newStranger(t, addr)
		for _, onward := range []Route{
			{"guarded", innerAddr, "sink"},
			{"guarded", innerAddr, "sink", "beyond"},
			{"private", "beyond"},
			{"guarded", "private", "beyond"},
		} {
			s.send(t, onward, Route{"me"}, head{kind: k, hops: 9, id: 1}, "forged")
			s.wantLoss(t, code.WorkerDenied)
		}
	}
	if err := middle.Send(inTime(t), Route{"guarded", innerAddr, "sink"}, []byte("true")); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != "true" || len(got) > 0 {
		t.Errorf("got %q, and %d more", b, len(got))
	}
}

// TestForgedLoss: strangers reach no worker by word of a loss that has sent nothing to
// other nodes.
func TestForgedLoss(t *testing.T) {
	b, addr := listening(t, Config{})
	losses := make(mourner, 1)
	start(t, b, "private", losses, Options{})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	s := newStranger(t, addr)
	s.send(t, Route{"private"}, nil, head{kind: failed, hops: 9}, "forged")
	s.send(t, Route{"echo"}, Route{"me"}, head{hops: 9}, "what comes behind it")
	var scratch [frameHead]byte
	if _, err := readHello(s); err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(s, &scratch); err != nil { // the answer
		t.Fatal(err)
	}
	wantEcho(t, b, Route{"private"}, "from inside")
	select {
	case err := <-losses:
		t.Errorf("it has heard of %v", err)
	default:
	}
}

// TestPoison: no message makes a node say to another one what ends their conn.
func TestPoison(t *testing.T) {
	last, lastAddr := listening(t, Config{})
	start(t, last, "echo", echo, Options{Allow: Anyone})
	downs := make(chan error, 10)
	middle, addr := listening(t, Config{
		Transit: func(Origin, Address) error { return nil },
		Trace:   &Trace{LinkDown: func(_ Address, err error) { downs <- err }},
	})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{lastAddr}}); err != nil {
		t.Fatal(err)
	}
	wantEcho(t, middle, Route{lastAddr, "echo"}, "there")
	long := make(Route, MaxRoute-1)
	for i := range long {
		long[i] = "x"
	}
	s := newStranger(t, addr)
	for _, c := range []struct {
		onward, back Route
		hops         uint8
		want         code.Code
	}{
		{Route{"on", lastAddr}, Route{"me"}, 9, code.NoWorker},
		{Route{lastAddr}, Route{"me"}, 9, code.NoWorker},
		{Route{lastAddr, "nobody"}, Route{"me"}, 1, code.TooManyHops},
		{Route{lastAddr, "nobody"}, long, 9, code.TooManyHops},
	} {
		s.send(t, c.onward, c.back, head{hops: c.hops}, "x")
		s.wantLoss(t, c.want)
	}
	if err := middle.Send(inTime(t), Route{lastAddr}, nil); err == nil {
		t.Error("a route that ends at a conn is taken")
	}
	wantEcho(t, middle, Route{lastAddr, "echo"}, "still there")
	select {
	case err := <-downs:
		t.Errorf("a conn has ended: %v", err)
	default:
	}
}

// TestMuchToSend: a node that has much to send to another one, which does not read it
// now, reads what comes from there: else two that send much would stand for good.
func TestMuchToSend(t *testing.T) {
	links := make(chan Address, 1)
	b, addr := listening(t, Config{Trace: &Trace{LinkUp: func(a Address, _ Origin, _ net.Addr) { links <- a }}})
	got := make(chan struct{}, 1)
	start(t, b, "sink", WorkerFunc(func(context.Context, *Self, *Message) error {
		got <- struct{}{}
		return nil
	}), Options{Allow: Anyone})
	s := newStranger(t, addr)
	l := b.lookup(<-links).(*link)
	eventually(t, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.spare != nil }) // its hello is written
	for range 2 {
		l.mu.Lock()
		l.out = append(l.out, make([]byte, 16<<20)...) // more than what is under way on the conn
		l.mu.Unlock()
		l.poke()
		eventually(t, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.spare == nil })
	}
	for range 2 {
		s.send(t, Route{"sink"}, nil, head{hops: 9}, "x")
	}
	for range 2 {
		select {
		case <-got:
		case <-time.After(patience):
			t.Fatal("what has come is not read")
		}
	}
}

// TestMalformed: what breaks the protocol ends the conn, and nothing else.
func TestMalformed(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	said := hello{}.append(nil)
	said = said[:len(said):len(said)]
	routes := appendRoutes(nil, Route{"echo"}, Route{"x"})
	open := append(frame{frameOpen, len(routes), 1}.append(nil), routes...)
	data := func(n int, h head, body []byte) []byte {
		return append(h.append(append(bytes.Clone(open), frame{frameData, n, 1}.append(nil)...)), body...)
	}
	for name, send := range map[string][]byte{
		"http":                []byte("GET / HTTP/1.1\r\n\r\n"),
		"type":                append(said, frame{99, 0, 1}.append(nil)...),
		"no flow":             append(said, frame{frameClose, 0, 7}.append(nil)...),
		"flow of a ping":      append(said, frame{framePing, 0, 7}.append(nil)...),
		"open twice":          append(append(said, open...), open...),
		"long":                append(said, frame{frameData, maxData + 1, 1}.append(nil)...),
		"credit for nothing":  append(said, append(frame{frameCredit, 8, 9}.append(nil), 0, 0, 0, 1, 0, 0, 0, 0)...),
		"grant of nothing":    append(said, append(frame{frameGrant, 4, 9}.append(nil), 0, 0, 0, 0)...),
		"refusal of nothing":  append(said, append(frame{frameRefuse, 4, 9}.append(nil), 0, 0, 0, 0)...),
		"closed unasked":      append(said, frame{frameClosed, 0, 1}.append(nil)...),
		"huge message":        append(said, data(messageHead, head{hops: 3, length: MaxBody + 1}, nil)...),
		"no hops":             append(said, data(messageHead, head{length: 0}, nil)...),
		"longer than said":    append(said, data(messageHead+2, head{hops: 3, length: 1}, []byte("ab"))...),
		"kind":                append(said, data(messageHead, head{kind: 9, hops: 3}, nil)...),
		"answer to nothing":   append(said, data(messageHead, head{kind: reply, hops: 3}, nil)...),
		"ends within":         append(append(said, data(messageHead+1, head{hops: 3, length: 2}, []byte("a"))...), frame{frameClose, 0, 1}.append(nil)...),
		"drop of nothing":     append(append(said, open...), frame{frameDrop, 0, 1}.append(nil)...),
		"beyond the credit":   append(append(said, data(startCredit, head{hops: 3, length: 8 << 10}, make([]byte, startCredit-messageHead))...), append(frame{frameData, 8 << 10, 1}.append(nil), make([]byte, 8<<10)...)...),
		"short first piece":   append(append(said, open...), append(frame{frameData, 3, 1}.append(nil), 1, 2, 3)...),
		"routes end early":    append(said, append(frame{frameOpen, 3, 1}.append(nil), 1, 9, 'x')...),
		"no onward route":     append(said, append(frame{frameOpen, 2, 1}.append(nil), 0, 0)...),
		"address not allowed": append(said, append(frame{frameOpen, 5, 1}.append(nil), 1, 2, 'a', 0, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			nc := rawLink(t, addr)
			if _, err := nc.Write(send); err != nil {
				t.Fatal(err)
			}
			_ = nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the conn goes on")
			}
		})
	}
	wantEcho(t, newNode(t, Config{}), Route{addr, "echo"}, "the others go on")
}

// A tardyConn's first write deadline that is to come has passed before anything is
// written, as on a machine that has too much to do.
type tardyConn struct {
	net.Conn
	once sync.Once
}

func (c *tardyConn) SetWriteDeadline(at time.Time) error {
	if at.After(time.Now()) {
		c.once.Do(func() { at = time.Unix(1, 0) })
	}
	return c.Conn.SetWriteDeadline(at)
}

// TestLastWordsOnABusyMachine: what was sent before this side ends a conn is written,
// though it comes to that late.
func TestLastWordsOnABusyMachine(t *testing.T) {
	links := make(chan Address, 1)
	b := newNode(t, Config{Trace: &Trace{LinkUp: func(a Address, _ Origin, _ net.Addr) { links <- a }}})
	near, far := net.Pipe()
	defer far.Close()
	over := make(chan struct{})
	go func() {
		defer close(over)
		b.serveConn(context.Background(), &tardyConn{Conn: near})
	}()
	_ = far.SetDeadline(time.Now().Add(patience))
	if _, err := far.Write(hello{}.append(nil)); err != nil {
		t.Fatal(err)
	}
	s := &stranger{Conn: far, greeted: true}
	if _, err := readHello(s); err != nil {
		t.Fatal(err)
	}
	l := b.lookup(<-links).(*link)
	l.mu.Lock()
	l.out = frame{frameClosed, 0, 7}.append(l.out)
	l.mu.Unlock()
	l.close(errLinkClosed)
	if f, _ := s.next(t); f.typ != frameClosed || f.flow != 7 {
		t.Errorf("got a frame of type %d, of flow %d", f.typ, f.flow)
	}
	<-over
}

// A hastyConn takes what is written only after another deadline was set for it.
type hastyConn struct {
	net.Conn
	renewed bool
}

func (c *hastyConn) SetWriteDeadline(time.Time) error {
	c.renewed = true
	return nil
}

func (c *hastyConn) Write(b []byte) (int, error) {
	if !c.renewed {
		return 0, os.ErrDeadlineExceeded
	}
	return len(b), nil
}

// TestLastWordsWithAPoke: a link that ends at the moment when there is something to write
// writes it as its last words, within a deadline of their own.
func TestLastWordsWithAPoke(t *testing.T) {
	n := newNode(t, Config{})
	for range 100 { // either may be seen first
		l := n.newLink(n.ctx, new(hastyConn), "conn", Origin{Outside: true}, 0)
		l.control(frameClosed, 7, nil)
		l.close(errLinkClosed)
		close(l.quiet)
		if err := l.write(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlood: who asks for signs of life, or ends flows, without reading what is said
// is not read for ever.
func TestFlood(t *testing.T) {
	t.Parallel()
	b, addr := listening(t, Config{Keepalive: 300 * time.Millisecond})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	routes := appendRoutes(nil, Route{"echo"}, Route{"x"})
	one := frame{framePing, 0, 0}.append(nil)
	one = append(frame{frameOpen, len(routes), 1}.append(one), routes...)
	one = frame{frameClose, 0, 1}.append(one)
	near, far := net.Pipe() // the kernel would hold megabytes of answers
	over := make(chan struct{})
	go func() {
		defer close(over)
		b.serveConn(context.Background(), near)
	}()
	_ = far.SetDeadline(time.Now().Add(patience))
	if _, err := far.Write(hello{}.append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := readHello(far); err != nil {
		t.Fatal(err)
	}
	many, sent := bytes.Repeat(one, 1000), 0
	for {
		n, err := far.Write(many)
		sent += n
		if err != nil {
			break
		}
		if sent > 16<<20 {
			t.Fatalf("%d bytes were taken", sent)
		}
	}
	<-over
	wantEcho(t, newNode(t, Config{}), Route{addr, "echo"}, "the others go on")
}
