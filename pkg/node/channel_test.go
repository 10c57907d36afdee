package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A tap carries conns to an address, keeps what passes, and does to it what a test
// wants.
type tap struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	seen  bytes.Buffer
	conns []net.Conn
	spoil func(b []byte) []byte // of what goes to the address; nil leaves it
}

func newTap(t testing.TB, to Address) *tap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, address := to.transport()
	p := &tap{ln: ln, to: address}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", p.to)
			if err != nil {
				_ = nc.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, nc, far)
			p.mu.Unlock()
			wg.Go(func() { p.copy(far, nc, true) })
			wg.Go(func() { p.copy(nc, far, false) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *tap) copy(dst, src net.Conn, onward bool) {
	defer dst.Close()
	b := make([]byte, 16<<10)
	for {
		n, err := src.Read(b)
		out := b[:n]
		p.mu.Lock()
		p.seen.Write(out)
		if onward && p.spoil != nil {
			out = p.spoil(out)
		}
		p.mu.Unlock()
		if _, werr := dst.Write(out); err != nil || werr != nil {
			return
		}
	}
}

// cut ends all conns.
func (p *tap) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, nc := range p.conns {
		_ = nc.Close()
	}
	p.conns = nil
}

func (p *tap) addr() Address { return Addr(p.ln) }

func only(ids ...identity.Identifier) func(channel.Peer) error {
	return func(p channel.Peer) error {
		for _, id := range ids {
			if id == p.Identifier {
				return nil
			}
		}
		return errors.New("not on the list")
	}
}

// A trio is alice, a middle with a hop that leads on to bob, and bob, who serves
// channels to alice.
type trio struct {
	alice, middle, bob *Node
	alices, bobs       identity.Identifier
	toBob              Route
	wire               *tap // between the middle and bob
}

func newTrio(t testing.TB, allow func(alice identity.Identifier) func(channel.Peer) error) *trio {
	t.Helper()
	aliceLocal, alices := newLocal(t)
	bobLocal, bobs := newLocal(t)
	set := channel.Settings{Keepalive: time.Second, Grace: patience, Handshake: channel.Options{Timeout: 3 * time.Second}}
	bob, bobAddr := listening(t, Config{Local: bobLocal, Channel: set, Keepalive: time.Second})
	if err := bob.ServeChannels("channels", allow(alices)); err != nil {
		t.Fatal(err)
	}
	wire := newTap(t, bobAddr)
	middle, middleAddr := listening(t, Config{Keepalive: time.Second})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{wire.addr()}}); err != nil {
		t.Fatal(err)
	}
	return &trio{
		alice: newNode(t, Config{Local: aliceLocal, Channel: set, Keepalive: time.Second}), middle: middle, bob: bob, alices: alices, bobs: bobs,
		toBob: Route{middleAddr, "on", wire.addr(), "channels"}, wire: wire,
	}
}

func (x *trio) open(t testing.TB) *Channel {
	t.Helper()
	c, err := x.alice.OpenChannel(inTime(t), x.toBob, x.bobs)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChannel(t *testing.T) {
	x := newTrio(t, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
	from := make(chan Origin, 1)
	start(t, x.bob, "echo", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		from <- m.From
		return self.Reply(ctx, m, m.Body)
	}), Options{Allow: Peers(x.alices)})
	c := x.open(t)
	const secret = "the secret that nobody between reads"
	m := wantEcho(t, x.alice, Route{c.Address(), "echo"}, secret)
	if f := <-from; f.Peer == nil || f.Peer.Identifier != x.alices || f.Carried {
		t.Errorf("bob has heard it from %+v", f)
	}
	if m.From.Peer == nil || m.From.Peer.Identifier != x.bobs || m.From.Carried {
		t.Errorf("alice has heard it from %+v", m.From)
	}
	// The same worker is nobody's without a channel.
	_, err := x.alice.Request(inTime(t), append(x.toBob[:3:3], "echo"), nil)
	wantCode(t, err, code.WorkerDenied)
	x.wire.mu.Lock()
	defer x.wire.mu.Unlock()
	if bytes.Contains(x.wire.seen.Bytes(), []byte(secret)) || x.wire.seen.Len() == 0 {
		t.Error("the wire has carried the secret, or nothing")
	}
	if err := c.Close(); err != nil || c.Err() == nil {
		t.Errorf("after Close: %v, %v", err, c.Err())
	}
	_, err = x.alice.Request(inTime(t), Route{c.Address(), "echo"}, nil)
	wantCode(t, err, code.NoWorker)
}

func TestChannelRefusals(t *testing.T) {
	x := newTrio(t, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
	mallory, mallorys := newLocal(t)
	m := newNode(t, Config{Local: mallory})
	_, err := m.OpenChannel(inTime(t), x.toBob, x.bobs)
	var refused *channel.RefusedError
	var lost *channel.LostError
	if !(errors.As(err, &refused) && refused.Code == code.ChannelDenied) && !(errors.As(err, &lost) && lost.Code == code.ChannelDenied) {
		t.Errorf("mallory gets %v", err)
	}
	// Bob is not mallory, and learns nothing of alice.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err = x.alice.OpenChannel(ctx, x.toBob, mallorys); err == nil {
		t.Error("alice has taken bob for mallory")
	}
	if _, err := x.middle.OpenChannel(ctx, x.toBob, x.bobs); err == nil {
		t.Error("a node without an identity has opened a channel")
	}
	_, err = x.alice.OpenChannel(ctx, Route{x.toBob[0], "nobody"}, x.bobs)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("no_worker")) {
		t.Errorf("the route ends nowhere: %v", err)
	}
}

// TestChannelOutlivesItsWay: conns between the nodes end all the time, and no message
// is lost, doubled or out of order.
func TestChannelOutlivesItsWay(t *testing.T) {
	x := newTrio(t, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
	const count = 300
	next, done := 0, make(chan struct{})
	start(t, x.bob, "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		if want := fmt.Sprint(next); string(m.Body[:len(want)]) != want {
			t.Errorf("got %q, want %s", m.Body[:8], want)
		}
		if next++; next == count {
			close(done)
		}
		return nil
	}), Options{Allow: Peers(x.alices)})
	c := x.open(t)
	for i := range count {
		if err := x.alice.Send(inTime(t), Route{c.Address(), "sink"}, append(fmt.Append(nil, i), make([]byte, 20<<10)...)); err != nil {
			t.Fatal(err)
		}
		if i%60 == 30 {
			x.wire.cut()
		}
	}
	select {
	case <-done:
	case <-c.Done():
		t.Fatalf("the channel has ended: %v", c.Err())
	case <-time.After(patience):
		t.Fatalf("%d of %d have come", next, count)
	}
}

// TestTamper: whatever the middle changes, leaves out or sends twice of what is
// between alice and bob, bob gets what alice has sent, or alice hears that he does
// not.
func TestTamper(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(b []byte) []byte
	}{
		{"flipped", func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }},
		{"left out", func(b []byte) []byte { return b[:len(b)/2] }},
		{"twice", func(b []byte) []byte { return append(bytes.Clone(b), b...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTrio(t, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
			start(t, x.bob, "echo", echo, Options{Allow: Peers(x.alices)})
			ch := x.open(t)
			spoilt := 0
			x.wire.mu.Lock()
			x.wire.spoil = func(b []byte) []byte {
				if spoilt++; spoilt%3 == 2 && spoilt < 12 {
					return c.spoil(b)
				}
				return b
			}
			x.wire.mu.Unlock()
			for i := range 30 {
				wantEcho(t, x.alice, Route{ch.Address(), "echo"}, fmt.Sprint("message ", i))
			}
			x.wire.mu.Lock()
			defer x.wire.mu.Unlock()
			if spoilt < 5 {
				t.Errorf("only %d pieces have passed", spoilt)
			}
		})
	}
}

// TestRelay: nodes that nobody can dial are reached by their identifiers.
func TestRelay(t *testing.T) {
	relayLocal, relays := newLocal(t)
	r, addr := listening(t, Config{Local: relayLocal})
	if err := r.ServeChannels("channels", func(channel.Peer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := r.StartRelay("relay", Relay{Allow: Anyone}); err != nil {
		t.Fatal(err)
	}
	way := newTap(t, addr)
	join := func() (*Node, identity.Identifier, *Channel) {
		local, id := newLocal(t)
		n := newNode(t, Config{Local: local})
		c, err := n.OpenChannel(inTime(t), Route{way.addr(), "channels"}, relays)
		if err != nil {
			t.Fatal(err)
		}
		return n, id, c
	}
	alice, alices, aliceToRelay := join()
	bob, bobs, bobToRelay := join()
	g, err := bob.Register(inTime(t), Route{bobToRelay.Address(), "relay"}, Address(bobs.String()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = alice.Register(inTime(t), Route{aliceToRelay.Address(), "relay"}, Address(bobs.String()))
	wantCode(t, err, code.RegisterDenied)
	if err := bob.ServeChannels("channels", only(alices)); err != nil {
		t.Fatal(err)
	}
	start(t, bob, "echo", echo, Options{Allow: Peers(alices)})
	toBob := Route{aliceToRelay.Address(), Address(bobs.String()), "channels"}
	c, err := alice.OpenChannel(inTime(t), toBob, bobs)
	if err != nil {
		t.Fatal(err)
	}
	wantEcho(t, alice, Route{c.Address(), "echo"}, "Hello")
	way.cut() // all of the ways to the relay, the registration's, too
	wantEcho(t, alice, Route{c.Address(), "echo"}, "Hello again")
	if err := g.Close(); err != nil || g.Err() != nil {
		t.Errorf("%v, %v", err, g.Err())
	}
	_, err = alice.Request(inTime(t), toBob, nil)
	wantCode(t, err, code.NoWorker)
}

// TestFlowsAreBounded: more routes than there may be flows are used one after the
// other and at once.
func TestFlowsAreBounded(t *testing.T) {
	b, addr := listening(t, Config{})
	a := newNode(t, Config{})
	const routes = maxFlows + 50
	for i := range routes {
		if err := b.StartHop(Address(fmt.Sprint("h", i)), Hop{Allow: Anyone}); err != nil {
			t.Fatal(err)
		}
	}
	start(t, b, "echo", echo, Options{Allow: Anyone})
	for range 2 {
		for i := range routes {
			wantEcho(t, a, Route{addr, Address(fmt.Sprint("h", i)), "echo"}, fmt.Sprint(i))
		}
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

// TestMalformed: what breaks the protocol ends the conn, and nothing else.
func TestMalformed(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	routes := appendRoutes(nil, Route{"echo"}, Route{"x"})
	open := append(frame{frameOpen, len(routes), 1}.append(nil), routes...)
	data := func(n int, h head, body []byte) []byte {
		return append(h.append(append(bytes.Clone(open), frame{frameData, n, 1}.append(nil)...)), body...)
	}
	for name, send := range map[string][]byte{
		"http":                []byte("GET / HTTP/1.1\r\n\r\n"),
		"type":                append(preamble[:], frame{99, 0, 1}.append(nil)...),
		"no flow":             append(preamble[:], frame{frameClose, 0, 7}.append(nil)...),
		"flow of a ping":      append(preamble[:], frame{framePing, 0, 7}.append(nil)...),
		"open twice":          append(append(preamble[:], open...), open...),
		"long":                append(preamble[:], frame{frameData, maxData + 1, 1}.append(nil)...),
		"credit for nothing":  append(preamble[:], append(frame{frameCredit, 4, 9}.append(nil), 0, 0, 0, 1)...),
		"closed unasked":      append(preamble[:], frame{frameClosed, 0, 1}.append(nil)...),
		"huge message":        append(preamble[:], data(messageHead, head{hops: 3, length: MaxBody + 1}, nil)...),
		"no hops":             append(preamble[:], data(messageHead, head{length: 0}, nil)...),
		"longer than said":    append(preamble[:], data(messageHead+2, head{hops: 3, length: 1}, []byte("ab"))...),
		"kind":                append(preamble[:], data(messageHead, head{kind: 9, hops: 3}, nil)...),
		"answer to nothing":   append(preamble[:], data(messageHead, head{kind: reply, hops: 3}, nil)...),
		"ends within":         append(append(preamble[:], data(messageHead+1, head{hops: 3, length: 2}, []byte("a"))...), frame{frameClose, 0, 1}.append(nil)...),
		"drop of nothing":     append(append(preamble[:], open...), frame{frameDrop, 0, 1}.append(nil)...),
		"beyond the credit":   append(append(preamble[:], data(startCredit, head{hops: 3, length: 8 << 10}, make([]byte, startCredit-messageHead))...), append(frame{frameData, 8 << 10, 1}.append(nil), make([]byte, 8<<10)...)...),
		"short first piece":   append(append(preamble[:], open...), append(frame{frameData, 3, 1}.append(nil), 1, 2, 3)...),
		"routes end early":    append(preamble[:], append(frame{frameOpen, 3, 1}.append(nil), 1, 9, 'x')...),
		"no onward route":     append(preamble[:], append(frame{frameOpen, 2, 1}.append(nil), 0, 0)...),
		"address not allowed": append(preamble[:], append(frame{frameOpen, 5, 1}.append(nil), 1, 2, 'a', 0, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			nc := rawLink(t, addr)
			if _, err := nc.Write(send); err != nil {
				t.Fatal(err)
			}
			_ = nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, context.DeadlineExceeded) {
				t.Error("the conn goes on")
			}
		})
	}
	wantEcho(t, newNode(t, Config{}), Route{addr, "echo"}, "the others go on")
}

// TestFlood: who asks for signs of life, or ends flows, without reading what is said
// is not read for ever.
func TestFlood(t *testing.T) {
	b, addr := listening(t, Config{Keepalive: time.Second})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	routes := appendRoutes(nil, Route{"echo"}, Route{"x"})
	one := frame{framePing, 0, 0}.append(nil)
	one = append(frame{frameOpen, len(routes), 1}.append(one), routes...)
	one = frame{frameClose, 0, 1}.append(one)
	nc := rawLink(t, addr)
	if _, err := nc.Write(preamble[:]); err != nil {
		t.Fatal(err)
	}
	many, sent := bytes.Repeat(one, 1000), 0
	_ = nc.SetWriteDeadline(time.Now().Add(patience))
	for {
		n, err := nc.Write(many)
		sent += n
		if err != nil {
			break
		}
		if sent > 256<<20 {
			t.Fatalf("%d bytes were taken", sent)
		}
	}
	wantEcho(t, newNode(t, Config{}), Route{addr, "echo"}, "the others go on")
}

func FuzzParseRoutes(f *testing.F) {
	f.Add(appendRoutes(nil, Route{"a", "tcp://127.0.0.1:4000", "~x"}, Route{"b"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		onward, back, err := parseRoutes(b)
		if err != nil {
			return
		}
		if again := appendRoutes(nil, onward, back); !bytes.Equal(again, b) {
			t.Errorf("%x is printed as %x", b, again)
		}
	})
}

func FuzzNotice(f *testing.F) {
	f.Add(failure(code.NoWorker, "a", "why").encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e := decodeNotice(b); e.Code == code.OK || len(e.Reason) > code.MaxReason {
			t.Errorf("%x is read as %+v", b, e)
		}
	})
}

func FuzzRoute(f *testing.F) {
	f.Add("tcp://127.0.0.1:4000,hop,unix:///run/x,~conn-abc")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRoute(s)
		if err != nil {
			return
		}
		again, err := ParseRoute(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}

// FuzzLink: whatever comes on a conn is survived.
func FuzzLink(f *testing.F) {
	routes := appendRoutes(nil, Route{"echo"}, Route{"x"})
	b := append(frame{frameOpen, len(routes), 1}.append(preamble[:]), routes...)
	b = append(head{hops: 3, length: 2}.append(frame{frameData, messageHead + 2, 1}.append(b)), "ab"...)
	f.Add(frame{frameClose, 0, 1}.append(b))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := New(Config{})
		_ = n.Start("echo", echo, Options{Allow: Anyone})
		near, far := net.Pipe()
		over := make(chan struct{})
		go func() {
			defer close(over)
			n.serveConn(context.Background(), near)
		}()
		go func() {
			_, _ = far.Write(b)
			_ = far.Close()
		}()
		_, _ = io.Copy(io.Discard, far)
		<-over
		_ = n.Close()
	})
}
