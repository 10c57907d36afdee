package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// beginLarge sends the first piece of a message that has size bytes, in a flow of its
// own.
func (s *stranger) beginLarge(t testing.TB, onward, back Route, size int) {
	t.Helper()
	s.flows++
	routes := appendRoutes(nil, onward, back)
	f := append(frame{frameOpen, len(routes), s.flows}.append(nil), routes...)
	f = head{hops: 9, length: size}.append(frame{frameData, startCredit, s.flows}.append(f))
	s.write(t, append(f, make([]byte, startCredit-messageHead)...))
}

// next returns the next frame that the node says to s, but for signs of life.
func (s *stranger) next(t testing.TB) (frame, []byte) {
	t.Helper()
	if !s.greeted {
		if _, err := readHello(s); err != nil {
			t.Fatal(err)
		}
		s.greeted = true
	}
	_ = s.SetReadDeadline(time.Now().Add(patience))
	for {
		var scratch [frameHead]byte
		f, err := readFrame(s, &scratch)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, f.length)
		if _, err := io.ReadFull(s, b); err != nil {
			t.Fatal(err)
		}
		if f.typ != framePing && f.typ != framePong {
			return f, b
		}
	}
}

// narrow leaves n's room for large messages that wide.
func narrow(n *Node, wide int) {
	n.budget.take(&claim{account: n.budget.account(Origin{Outside: true}), n: MaxBody - wide, grant: func() {}, giveWay: func() {}})
}

// TestDeniedHasNoRoom: who may not reach a worker, or names none, gets no room for a
// message of megabytes, and hears so before it sends that.
func TestDeniedHasNoRoom(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "private", echo, Options{})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	if err := b.StartHop("hop", Hop{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		onward Route
		want   code.Code
	}{
		{Route{"private"}, code.WorkerDenied},
		{Route{"nobody"}, code.NoWorker},
		{Route{"hop", "echo"}, code.WorkerDenied},
		{Route{"tcp://127.0.0.1:1", "echo"}, code.WorkerDenied},
	} {
		s := newStranger(t, addr)
		s.beginLarge(t, c.onward, nil, MaxBody)
		f, said := s.next(t)
		if f.typ == frameCredit { // of what was thrown away
			f, said = s.next(t)
		}
		if f.typ != frameRefuse || binary.BigEndian.Uint32(said) != 0 {
			t.Fatalf("%s: the node says %d, %x", c.onward, f.typ, said)
		}
		wantCode(t, decodeNotice(said[4:]), c.want)
		if left, _ := b.budget.state(); left != b.budget.all {
			t.Errorf("%s: %d of %d bytes are left", c.onward, left, b.budget.all)
		}
		// The conn is good for more.
		s.write(t, frame{frameDrop, 0, s.flows}.append(nil))
		s.send(t, Route{"echo"}, Route{"me"}, head{hops: 9}, "there")
		for f.typ != frameData {
			f, said = s.next(t)
		}
		if !bytes.HasSuffix(said, []byte("there")) {
			t.Errorf("the answer is %q", said)
		}
		// A node that sends such hears it from the send itself.
		a := newNode(t, Config{})
		wantCode(t, a.Send(inTime(t), append(Route{addr}, c.onward...), make([]byte, 1<<20)), c.want)
		_, err := a.Request(inTime(t), append(Route{addr}, c.onward...), make([]byte, 1<<20))
		wantCode(t, err, c.want)
	}
}

// TestStrangersShareRoom: strangers that hold all the room that they may have hold up no
// peer.
func TestStrangersShareRoom(t *testing.T) {
	bobLocal, bobs := newLocal(t)
	aliceLocal, alices := newLocal(t)
	b, addr := listening(t, Config{Local: bobLocal})
	if err := b.ServeChannels("channels", only(alices)); err != nil {
		t.Fatal(err)
	}
	start(t, b, "echo", echo, Options{Allow: Peers(alices)})
	granted := 0
	for range 5 {
		b.budget.take(&claim{account: b.budget.account(Origin{Outside: true}), n: MaxBody, grant: func() { granted++ }, giveWay: func() {}})
	}
	if granted != 2 {
		t.Fatalf("strangers have %d times %d bytes of %d", granted, MaxBody, b.budget.all)
	}
	a := newNode(t, Config{Local: aliceLocal})
	c, err := a.OpenChannel(inTime(t), Route{addr, "channels"}, bobs)
	if err != nil {
		t.Fatal(err)
	}
	wantEcho(t, a, Route{c.Address(), "echo"}, strings.Repeat("x", 3<<20))
}

// TestPathsHaveRoom: what is promised to large messages is not what the paths of
// channels run by: else those would wait for what comes through these.
func TestPathsHaveRoom(t *testing.T) {
	x := newTrio(t, func(a identity.Identifier) func(channel.Peer) error { return only(a) })
	for _, n := range []*Node{x.alice, x.middle, x.bob} {
		n.budget.mu.Lock()
		n.budget.left = 0
		n.budget.mu.Unlock()
	}
	count, all := 0, make(chan struct{})
	const each, size = 200, startCredit - messageHead
	start(t, x.bob, "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		if count++; count == each {
			close(all)
		}
		return nil
	}), Options{Allow: Anyone})
	start(t, x.bob, "echo", echo, Options{Allow: Anyone})
	c := x.open(t)
	for range each {
		if err := x.alice.Send(inTime(t), Route{c.Address(), "sink"}, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	<-all
	wantEcho(t, x.alice, Route{c.Address(), "echo"}, strings.Repeat("x", size))
}

// TestSlowStrangers: strangers that begin messages of megabytes, and do not go on, hold
// up others for as long as they may be slow only, and hear that they gave way.
func TestSlowStrangers(t *testing.T) {
	t.Parallel()
	b, addr := listening(t, Config{Buffer: 1})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	s := newStranger(t, addr)
	s.beginLarge(t, Route{"echo"}, nil, MaxBody)
	if f, said := s.next(t); f.typ != frameGrant || binary.BigEndian.Uint32(said) != 0 {
		t.Fatalf("the node says %d, %x", f.typ, said)
	}
	wantEcho(t, newNode(t, Config{}), Route{addr, "echo"}, strings.Repeat("x", 3<<20))
	if f, said := s.next(t); f.typ == frameRefuse {
		wantCode(t, decodeNotice(said[4:]), code.Limit)
	} else if f, said = s.next(t); f.typ != frameRefuse {
		t.Errorf("the node says %d, %x", f.typ, said)
	}
}

// TestStalledRoom: messages of megabytes for a mailbox that stalls give way to those
// for another one in the end, and their sender hears.
func TestStalledRoom(t *testing.T) {
	t.Parallel()
	for name, behind := range map[string]int{"first in its flow": 0, "behind small ones": 3} {
		t.Run(name, func(t *testing.T) { stalledRoom(t, behind) })
	}
}

// stalledRoom is TestStalledRoom where so many small messages are before the large one.
func stalledRoom(t *testing.T, behind int) {
	t.Parallel()
	b, addr := listening(t, Config{Buffer: 1, Patience: 2 * time.Second})
	narrow(b, 1<<20)
	const size = 600 << 10 // of which there is room for one
	stallFull(t, b)
	start(t, b, "length", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		return self.Reply(ctx, m, fmt.Append(nil, len(m.Body)))
	}), Options{Allow: Anyone})
	a := newNode(t, Config{})
	lost := make(chan error, 1)
	for range behind {
		m := &Message{Onward: Route{addr, "stalled"}, Return: a.inbox, hops: maxHops}
		if err := a.send(inTime(t), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		_, err := a.Request(inTime(t), Route{addr, "stalled"}, make([]byte, size))
		lost <- err
	}()
	eventually(t, func() bool { left, _ := b.budget.state(); return left < size })
	m, err := newNode(t, Config{}).Request(inTime(t), Route{addr, "length"}, make([]byte, size))
	if err != nil || string(m.Body) != fmt.Sprint(size) {
		t.Errorf("the other mailbox: %v, %v", m, err)
	}
	wantCode(t, <-lost, code.Limit)
}

// TestPassedOn: a node holds no room for messages of megabytes that it carries on, and
// brings them on whole.
func TestPassedOn(t *testing.T) {
	last, lastAddr := listening(t, Config{})
	got := make(chan []byte, 1)
	start(t, last, "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		got <- m.Body
		return nil
	}), Options{Allow: Anyone})
	start(t, last, "private", echo, Options{})
	middle, addr := listening(t, Config{})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{lastAddr}}); err != nil {
		t.Fatal(err)
	}
	var claimed atomic.Bool
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				middle.budget.mu.Lock()
				if middle.budget.granted.Len()+middle.budget.waiting > 0 {
					claimed.Store(true)
				}
				middle.budget.mu.Unlock()
			}
		}
	})
	a := newNode(t, Config{})
	body := make([]byte, 3<<20)
	for i := range body {
		body[i] = byte(i * 7 >> 3)
	}
	for range 2 {
		if err := a.Send(inTime(t), Route{addr, "on", lastAddr, "sink"}, bytes.Clone(body)); err != nil {
			t.Fatal(err)
		}
		if b := <-got; !bytes.Equal(b, body) {
			t.Fatalf("%d bytes have come, others than were sent", len(b))
		}
	}
	// What the last one refuses, the first one hears.
	_, err := a.Request(inTime(t), Route{addr, "on", lastAddr, "private"}, bytes.Clone(body))
	wantCode(t, err, code.WorkerDenied)
	// A sender that gives up in the middle holds nobody up.
	s := newStranger(t, addr)
	s.beginLarge(t, Route{"on", lastAddr, "sink"}, nil, MaxBody)
	s2 := newStranger(t, addr)
	s2.beginLarge(t, Route{"on", lastAddr, "sink"}, nil, MaxBody)
	eventually(t, func() bool {
		last.budget.mu.Lock()
		defer last.budget.mu.Unlock()
		return last.budget.granted.Len()+last.budget.waiting == 2
	})
	s.write(t, frame{frameDrop, 0, s.flows}.append(nil))
	_ = s2.Close()
	eventually(t, func() bool { left, grown := last.budget.state(); return left+grown == last.budget.all })
	if err := a.Send(inTime(t), Route{addr, "on", lastAddr, "sink"}, bytes.Clone(body)); err != nil {
		t.Fatal(err)
	}
	<-got
	close(stop)
	wg.Wait()
	if claimed.Load() {
		t.Error("the middle has claimed room")
	}
}

// TestFullOfEachOther: two nodes that carry messages on to each other, each of which
// fills a node's room, do not wait for each other.
func TestFullOfEachOther(t *testing.T) {
	t.Parallel()
	const each, size = 3, 600 << 10 // of which there is room for one
	var nodes [2]*Node
	var addrs [2]Address
	var got [2]chan int
	for i := range nodes {
		nodes[i], addrs[i] = listening(t, Config{Buffer: 1})
		narrow(nodes[i], 1<<20)
		got[i] = make(chan int, 2*each)
		start(t, nodes[i], "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
			got[i] <- len(m.Body)
			return nil
		}), Options{Allow: Anyone})
	}
	for i, n := range nodes {
		if err := n.StartHop("on", Hop{Allow: Anyone, To: []Address{addrs[1-i]}}); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i := range nodes {
		for range 2 {
			a := newNode(t, Config{Patience: 4 * patience})
			wg.Go(func() {
				for range each {
					ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
					if err := a.Send(ctx, Route{addrs[i], "on", addrs[1-i], "sink"}, make([]byte, size)); err != nil {
						t.Errorf("by way of node %d: %v", i, err)
					}
					cancel()
				}
			})
		}
	}
	wg.Wait()
	for i := range got {
		for range 2 * each {
			select {
			case n := <-got[i]:
				if n != size {
					t.Errorf("%d bytes have come of %d", n, size)
				}
			case <-time.After(patience):
				t.Fatalf("messages to node %d do not come", i)
			}
		}
	}
}

// TestSilentConns: conns on which nothing is said give way.
func TestSilentConns(t *testing.T) {
	t.Parallel()
	b, addr := listening(t, Config{MaxConns: 3})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	for range 3 {
		rawLink(t, addr)
	}
	a := newNode(t, Config{})
	began := time.Now()
	wantEcho(t, a, Route{addr, "echo"}, "there")
	if took := time.Since(began); took > connectTime {
		t.Errorf("it has waited for %s", took)
	}
}

// TestSuccession: a conn that comes later than another one of its series ends it, and one
// that comes earlier is refused.
func TestSuccession(t *testing.T) {
	downs := make(chan string, 10)
	b, addr := listening(t, Config{Trace: &Trace{LinkDown: func(_ Address, err error) { downs <- err.Error() }}})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	say := func(series byte, attempt uint64) net.Conn {
		nc := rawLink(t, addr)
		if _, err := nc.Write(hello{series: [16]byte{series}, attempt: attempt}.append(nil)); err != nil {
			t.Fatal(err)
		}
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		return nc
	}
	series := func() int { b.mu.Lock(); defer b.mu.Unlock(); return len(b.series) }
	first, other := say(1, 5), say(2, 1)
	eventually(t, func() bool { return series() == 2 })
	if n, err := io.Copy(io.Discard, say(1, 4)); n > 0 || err != nil { // its end, and no word before
		t.Errorf("an earlier attempt: %d bytes, %v", n, err)
	}
	second := say(1, 6)
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Errorf("the one before: %v", err)
	}
	if why := <-downs; why != errReplaced.Error() {
		t.Errorf("it has ended as %q", why)
	}
	_, _ = second.Close(), other.Close()
	eventually(t, func() bool { return series() == 0 })
	wantEcho(t, newNode(t, Config{}), Route{addr, "echo"}, "the others go on")
}

// newInflow returns a flow to there on a link of n's that nobody runs.
func newInflow(n *Node, onward Route) *inflow {
	l := n.newLink(n.ctx, nil, "conn", Origin{Outside: true}, 0)
	return &inflow{link: l, onward: onward, back: Route{"me"}, window: startCredit, left: startCredit}
}

// comes has a message come in full, in two pieces, but for its being delivered.
func (in *inflow) comes(size int) *arrival {
	a := in.begin(head{hops: 9, length: size}, startCredit)
	in.left = 0
	in.claim(a, nil)
	a.body, a.got, a.whole = make([]byte, size), size, true
	return a
}

// TestGiveWayJustWhole: a message that has just come whole when it gives way keeps nothing
// of the room or the credit, is delivered or not, and its sender hears of the one or the other.
func TestGiveWayJustWhole(t *testing.T) {
	losses := 0
	n := newNode(t, Config{Trace: &Trace{Lost: func(*DeliveryError) { losses++ }}})
	got := make(chan int, 2)
	start(t, n, "sink", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		got <- len(m.Body)
		return nil
	}), Options{Allow: Anyone})
	in := newInflow(n, Route{"sink"})
	a := in.comes(1 << 20)
	if left, _ := n.budget.state(); left == n.budget.all {
		t.Fatal("it has no room")
	}
	in.giveWay(a)
	in.finish(a)
	in.giveWay(a) // too late
	if left, grown := n.budget.state(); left+grown != n.budget.all || in.left+in.owed+in.more != in.window {
		t.Errorf("%d of %d bytes are left, and %d, %d and %d of %d of credit", left, n.budget.all, in.left, in.owed, in.more, in.window)
	}
	if losses == 0 {
		<-got
	}
	if losses > 1 {
		t.Errorf("it was lost %d times", losses)
	}
}
