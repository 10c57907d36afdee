package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
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
	return newLivelyTrio(t, 0, allow)
}

// newLivelyTrio returns one that notices soon where nothing comes any more, alive being
// the keepalive of channels and conns. A process that stands still for that long has none of
// either left.
func newLivelyTrio(t testing.TB, alive time.Duration, allow func(alice identity.Identifier) func(channel.Peer) error) *trio {
	t.Helper()
	aliceLocal, alices := newLocal(t)
	bobLocal, bobs := newLocal(t)
	set := channel.Settings{Grace: 2 * patience, Linger: patience}
	if alive > 0 {
		set.Keepalive, set.Handshake.Timeout = alive, 3*alive
	}
	bob, bobAddr := listening(t, Config{Local: bobLocal, Channel: set, Keepalive: alive})
	if err := bob.ServeChannels("channels", allow(alices)); err != nil {
		t.Fatal(err)
	}
	wire := newTap(t, bobAddr)
	middle, middleAddr := listening(t, Config{Keepalive: alive})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{wire.addr()}}); err != nil {
		t.Fatal(err)
	}
	return &trio{
		alice: newNode(t, Config{Local: aliceLocal, Channel: set, Keepalive: alive}), middle: middle, bob: bob, alices: alices, bobs: bobs,
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
	if bytes.Contains(x.wire.seen.Bytes(), []byte(secret)) || x.wire.seen.Len() == 0 {
		t.Error("the wire has carried the secret, or nothing")
	}
	x.wire.mu.Unlock()
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
	if _, err = x.alice.OpenChannel(inTime(t), x.toBob, mallorys); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("alice has taken bob for mallory, or waits for her: %v", err)
	}
	if _, err := x.middle.OpenChannel(inTime(t), x.toBob, x.bobs); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a node without an identity has opened a channel, or tries to: %v", err)
	}
	_, err = x.alice.OpenChannel(inTime(t), Route{x.toBob[0], "nobody"}, x.bobs)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("no_worker")) {
		t.Errorf("the route ends nowhere: %v", err)
	}
}

// TestChannelOutlivesItsWay: conns between the nodes end all the time, and no message
// is lost, doubled or out of order.
func TestChannelOutlivesItsWay(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(b []byte) []byte
	}{
		{"flipped", func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }},
		{"left out", func(b []byte) []byte { return b[:len(b)/2] }},
		{"twice", func(b []byte) []byte { return append(bytes.Clone(b), b...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newLivelyTrio(t, time.Second, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
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

// TestTubeLeavesNothing: a path that the channel has given up ends, though the next hop
// takes nothing of it.
func TestTubeLeavesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{})
	stallFull(t, n)
	nc, err := n.path(Route{"stalled"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = nc.Close()
	left := func() int { n.mu.Lock(); defer n.mu.Unlock(); return len(n.table) }
	eventually(t, func() bool { return left() == 2 }) // the path's worker is not there any more
}

// TestSilentHandshakes: strangers that open channels and say nothing give way.
func TestSilentHandshakes(t *testing.T) {
	t.Parallel()
	bobLocal, bobs := newLocal(t)
	aliceLocal, alices := newLocal(t)
	// Alone none of them would end as long as the test lasts.
	b, addr := listening(t, Config{Local: bobLocal, Channel: channel.Settings{Handshake: channel.Options{Timeout: time.Hour}}})
	if err := b.ServeChannels("channels", only(alices)); err != nil {
		t.Fatal(err)
	}
	const conns = 2
	for range conns {
		s := newStranger(t, addr)
		for range maxHandshakes/conns + 1 {
			s.send(t, Route{"channels"}, Route{"me"}, head{hops: 9}, string([]byte{tubeOpen, 0, 0, 0, 0, 'C'}))
		}
	}
	under := func() (n int) { // paths
		b.mu.Lock()
		defer b.mu.Unlock()
		for a := range b.table {
			if strings.HasPrefix(string(a), own+"path-") {
				n++
			}
		}
		return n
	}
	eventually(t, func() bool { return under() >= maxHandshakes })
	a := newNode(t, Config{Local: aliceLocal})
	c, err := a.OpenChannel(inTime(t), Route{addr, "channels"}, bobs)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
