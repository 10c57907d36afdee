package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
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

// put sends a small message in a flow of its own, whose number it returns.
func (s *stranger) put(onward, back Route, h head, body string) (uint32, error) {
	s.flows++
	routes := appendRoutes(nil, onward, back)
	b := append(frame{frameOpen, len(routes), s.flows}.append(nil), routes...)
	h.length = len(body)
	b = h.append(frame{frameData, messageHead + len(body), s.flows}.append(b))
	_, err := s.Write(append(b, body...))
	return s.flows, err
}

func (s *stranger) send(t testing.TB, onward, back Route, h head, body string) {
	t.Helper()
	if _, err := s.put(onward, back, h, body); err != nil {
		t.Fatal(err)
	}
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
	s.send(t, Route{"on", lastAddr}, nil, head{hops: 9}, "ends at the conn")
	s.send(t, Route{lastAddr}, nil, head{hops: 9}, "ends at the conn, too")
	s.send(t, Route{lastAddr, "nobody"}, nil, head{hops: 1}, "its last hop")
	s.send(t, Route{lastAddr, "nobody"}, long, head{hops: 9}, "a long way back")
	if err := middle.Send(inTime(t), Route{lastAddr}, nil); err == nil {
		t.Error("a route that ends at a conn is taken")
	}
	select {
	case err := <-downs:
		t.Errorf("a conn has ended: %v", err)
	case <-time.After(time.Second):
	}
	wantEcho(t, middle, Route{lastAddr, "echo"}, "still there")
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
		case <-time.After(5 * time.Second):
			t.Fatal("what has come is not read")
		}
	}
}

// TestClosedFlowsAreBounded: flows whose messages wait count until those are
// delivered, closed or not.
func TestClosedFlowsAreBounded(t *testing.T) {
	b, addr := listening(t, Config{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	start(t, b, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-release
		return nil
	}), Options{Allow: Anyone, Mailbox: 1})
	s := newStranger(t, addr)
	_ = s.SetDeadline(time.Now().Add(2 * time.Second))
	for range 4 * maxFlows {
		n, err := s.put(Route{"stalled"}, nil, head{hops: 9}, "x")
		if err != nil {
			break
		}
		if _, err := s.Write(frame{frameClose, 0, n}.append(nil)); err != nil {
			break
		}
	}
	if _, err := io.Copy(io.Discard, s); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d flows have ended and wait, on %d goroutines", s.flows, runtime.NumGoroutine())
	}
}

// TestBudgetComesBack: what flows had of the budget is there again when their conn has
// ended, whatever waited.
func TestBudgetComesBack(t *testing.T) {
	b, addr := listening(t, Config{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	start(t, b, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-release
		return nil
	}), Options{Allow: Anyone, Mailbox: 1})
	for range 5 {
		s := newStranger(t, addr)
		for range 50 {
			s.send(t, Route{"stalled"}, nil, head{hops: 9}, string(make([]byte, startCredit-messageHead)))
		}
		// A part of a message that is larger.
		s.flows++
		routes := appendRoutes(nil, Route{"stalled"}, nil)
		f := append(frame{frameOpen, len(routes), s.flows}.append(nil), routes...)
		f = head{hops: 9, length: 1 << 20}.append(frame{frameData, startCredit, s.flows}.append(f))
		s.write(t, append(f, make([]byte, startCredit-messageHead)...))
		eventually(t, func() bool { left, _ := b.budget.state(); return left < b.budget.all })
		_ = s.Close()
		eventually(t, func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.table) == 2 // the requests and the worker
		})
		if left, grown := b.budget.state(); left != b.cfg.Buffer || grown != 0 {
			t.Fatalf("%d of %d bytes are left, %d taken by windows", left, b.cfg.Buffer, grown)
		}
	}
}

func (b *budget) state() (left, grown int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left, b.grown
}

// TestLargestMessageFits: windows that have grown leave room for the largest message.
func TestLargestMessageFits(t *testing.T) {
	b := newBudget(0)
	for b.grow(64 << 10) {
	}
	granted := false
	b.take(MaxBody, func() { granted = true })
	if !granted {
		t.Errorf("a message of %d bytes waits for windows that have %d", MaxBody, b.grown)
	}
}

// TestFlowsTurnOver: where all flows of a conn are taken, a route more waits for
// whichever is free first, and not for those that stall.
func TestFlowsTurnOver(t *testing.T) {
	b, addr := listening(t, Config{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	start(t, b, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-release
		return nil
	}), Options{Allow: Anyone, Mailbox: 1})
	for range 2 { // one that it handles, and one in its mailbox: the next waits on its flow
		if err := b.Send(inTime(t), Route{"stalled"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	start(t, b, "echo", echo, Options{Allow: Anyone})
	via := func(i int, to Address) Route {
		h := Address(fmt.Sprint("h", i))
		if b.lookup(h) == nil {
			if err := b.StartHop(h, Hop{Allow: Anyone}); err != nil {
				t.Fatal(err)
			}
		}
		return Route{addr, h, to}
	}
	for name, c := range map[string]struct{ stalled, busy int }{
		"those quiet for longest stall": {stalled: 8},
		"all but one are busy":          {stalled: maxFlows - 1, busy: maxFlows - 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := newNode(t, Config{})
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			for i := range c.stalled {
				r := via(i, "stalled")
				if err := a.Send(inTime(t), r, make([]byte, startCredit-messageHead)); err != nil {
					t.Fatal(err)
				}
				if i < c.busy {
					wg.Go(func() { _ = a.Send(ctx, r, nil) })
				}
			}
			for i := range maxFlows - c.stalled {
				wantEcho(t, a, via(i, "echo"), "there")
			}
			l := a.dials[addr].link
			eventually(t, func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				busy := 0
				for _, f := range l.flows {
					busy += f.users
				}
				return busy == c.busy && len(l.flows) == maxFlows
			})
			within, stop := context.WithTimeout(context.Background(), 10*time.Second)
			defer stop()
			var others sync.WaitGroup
			for s := range 4 {
				others.Go(func() {
					for i := range 10 {
						if _, err := a.Request(within, Route{addr, Address(fmt.Sprint("h", 10*s+i)), "h0", "echo"}, make([]byte, 20<<10)); err != nil {
							t.Errorf("route %d of %d: %v", i, s, err)
							return
						}
					}
				})
			}
			others.Wait()
		})
	}
}

// TestNoCircle: who was let into a mailbox does not wait for it any more, though it has
// not run since.
func TestNoCircle(t *testing.T) {
	n := newNode(t, Config{})
	a, b := &worker{node: n, box: newMailbox(1, 1)}, &worker{node: n, box: newMailbox(1, 1)}
	for _, k := range []*worker{a, b} {
		if err := k.put(inTime(t), &Message{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	admitted := make(chan error, 1)
	go func() { admitted <- a.put(inTime(t), &Message{}, b) }()
	eventually(t, func() bool { a.box.mu.Lock(); defer a.box.mu.Unlock(); return a.box.waiting.Len() == 1 })
	a.box.mu.Lock()
	a.box.removeLocked()
	a.box.admitLocked()
	if b.waits.Load() != nil {
		t.Error("b waits for a, which has let it in")
	}
	a.box.mu.Unlock()
	if err := <-admitted; err != nil {
		t.Error(err)
	}
}

// TestTubeLeavesNothing: a path that the channel has given up ends, though the next hop
// takes nothing of it.
func TestTubeLeavesNothing(t *testing.T) {
	n := newNode(t, Config{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	start(t, n, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
		<-release
		return nil
	}), Options{Mailbox: 1})
	for range 2 {
		if err := n.Send(inTime(t), Route{"stalled"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	nc, err := n.path(Route{"stalled"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = nc.Close()
	left := func() int { n.mu.Lock(); defer n.mu.Unlock(); return len(n.table) }
	for end := time.Now().Add(5 * time.Second); left() > 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the path's worker is there")
		}
	}
}

// TestRenewal: a name leads somewhere while its registration is renewed.
func TestRenewal(t *testing.T) {
	n := newNode(t, Config{})
	anyone := func(Origin, Address) error { return nil }
	if err := n.StartRelay("relay", Relay{Register: anyone}); err != nil {
		t.Fatal(err)
	}
	start(t, n, "echo", echo, Options{})
	body, err := canon.Marshal(registering{"name", "echo", false})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Request(inTime(t), Route{"relay"}, body); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3000 {
			if _, err := n.Request(inTime(t), Route{"relay"}, body); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		if n.lookup("name") == nil {
			t.Error("the name leads nowhere")
			<-done
			return
		}
	}
}

// TestRegistrationEnds: a registration by a channel that is over is over.
func TestRegistrationEnds(t *testing.T) {
	relayLocal, relays := newLocal(t)
	r, addr := listening(t, Config{Local: relayLocal})
	if err := errors.Join(r.ServeChannels("channels", func(channel.Peer) error { return nil }), r.StartRelay("relay", Relay{})); err != nil {
		t.Fatal(err)
	}
	local, id := newLocal(t)
	n := newNode(t, Config{Local: local})
	c, err := n.OpenChannel(inTime(t), Route{addr, "channels"}, relays)
	if err != nil {
		t.Fatal(err)
	}
	g, err := n.Register(inTime(t), Route{c.Address(), "relay"}, Address(id.String()))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	select {
	case <-g.Done():
		wantCode(t, g.Err(), code.NoWorker)
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
}

// TestDropGivesBack: a message that is given up in the middle leaves nothing of the
// other side's budget taken.
func TestDropGivesBack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := newNode(t, Config{})
	sent := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { sent <- a.Send(ctx, Route{Addr(ln), "x"}, make([]byte, 1<<20)) }()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := nc.Write(preamble[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, len(preamble))); err != nil {
		t.Fatal(err)
	}
	var scratch [frameHead]byte
	for _, typ := range []byte{frameOpen, frameData, frameDrop, frameClose} {
		f, err := readFrame(nc, &scratch)
		if err != nil || f.typ != typ {
			t.Fatalf("got a frame of type %d, %v; want %d", f.typ, err, typ)
		}
		_, _ = io.CopyN(io.Discard, nc, int64(f.length))
		if typ == frameData {
			cancel()
			if err := <-sent; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
	}
}

// TestDropInLine: nor does it stay in line for it.
func TestDropInLine(t *testing.T) {
	b, addr := listening(t, Config{Buffer: 1})
	b.budget.take(MaxBody, func() {})
	s := newStranger(t, addr)
	s.flows++
	routes := appendRoutes(nil, Route{"x"}, nil)
	f := append(frame{frameOpen, len(routes), 1}.append(nil), routes...)
	f = head{hops: 9, length: 1 << 20}.append(frame{frameData, startCredit, 1}.append(f))
	s.write(t, append(f, make([]byte, startCredit-messageHead)...))
	line := func() int { b.budget.mu.Lock(); defer b.budget.mu.Unlock(); return len(b.budget.line) }
	eventually(t, func() bool { return line() == 1 })
	s.write(t, frame{frameDrop, 0, 1}.append(nil))
	for end := time.Now().Add(3 * time.Second); line() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was dropped waits for credit")
		}
	}
}

// TestRedial: who sends when a conn has just ended makes another one.
func TestRedial(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "echo", echo, Options{Allow: Anyone})
	held, release := make(chan struct{}), make(chan struct{})
	a := newNode(t, Config{})
	start(t, a, "back", WorkerFunc(func(context.Context, *Self, *Message) error { return nil }), Options{Allow: func(Origin) error {
		close(held)
		<-release
		return nil
	}})
	wantEcho(t, a, Route{addr, "echo"}, "there")
	// Something of the conn's lasts a while.
	start(t, b, "sends", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		return self.Send(ctx, Route{m.Return[0], "back"}, nil)
	}), Options{Allow: Anyone})
	if err := a.send(inTime(t), &Message{Onward: Route{addr, "sends"}, Return: a.inbox, hops: 9}, nil); err != nil {
		t.Fatal(err)
	}
	<-held
	defer close(release)
	a.mu.Lock()
	l := a.dials[addr].link
	a.mu.Unlock()
	l.close(errLinkClosed)
	wantEcho(t, a, Route{addr, "echo"}, "there again")
}

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
	if _, err := io.ReadFull(s, make([]byte, len(preamble))); err != nil {
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

// TestGoexit: a worker that ends its goroutine has stopped, and its senders hear.
func TestGoexit(t *testing.T) {
	n := newNode(t, Config{})
	start(t, n, "gone", WorkerFunc(func(context.Context, *Self, *Message) error {
		runtime.Goexit()
		return nil
	}), Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := n.Request(ctx, Route{"gone"}, nil)
	wantCode(t, err, code.WorkerStopped)
	eventually(t, func() bool { return n.lookup("gone") == nil })
}
