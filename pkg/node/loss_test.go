package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	case <-time.After(patience):
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
		case <-time.After(patience):
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
	case <-time.After(patience):
		t.Error("it waits")
	}
}

// A teller sends what it is asked to from a worker of its own, and hears of losses.
type teller struct {
	to   Route
	errs chan error
}

func (w *teller) Handle(ctx context.Context, self *Self, m *Message) error {
	return self.Send(ctx, w.to, m.Body)
}

func (w *teller) HandleLoss(_ context.Context, _ *Self, err *DeliveryError) { w.errs <- err }

// TestLostInTheMailboxLine: who has sent what waits for a full mailbox hears when its conn
// ends, and, where a node in the middle has that conn, hears by the other one.
func TestLostInTheMailboxLine(t *testing.T) {
	b, addr := listening(t, Config{})
	stallFull(t, b)
	wire := newTap(t, addr)
	middle, middleAddr := listening(t, Config{})
	if err := middle.StartHop("on", Hop{Allow: Anyone, To: []Address{wire.addr()}}); err != nil {
		t.Fatal(err)
	}
	waiting := func() int {
		k := b.lookup("stalled").(*worker)
		k.box.mu.Lock()
		defer k.box.mu.Unlock()
		return k.box.waiting.Len()
	}
	for _, to := range []Route{{wire.addr(), "stalled"}, {middleAddr, "on", wire.addr(), "stalled"}} {
		a := newNode(t, Config{})
		w := &teller{to: to, errs: make(chan error, 10)}
		start(t, a, "teller", w, Options{})
		for range 3 {
			if err := a.Send(inTime(t), Route{"teller"}, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		asked := make(chan error, 1)
		go func() {
			_, err := a.Request(inTime(t), to, []byte("x"))
			asked <- err
		}()
		from := a
		if len(to) > 2 {
			from = middle
		}
		// They are on their way, and the flows' first ones wait.
		eventually(t, func() bool { return from.unsureAt(wire.addr()) == 4 && waiting() == 2 })
		wire.cut()
		for range 3 {
			select {
			case err := <-w.errs:
				wantCode(t, err, code.LinkLost)
			case <-time.After(patience / 2):
				t.Fatalf("over %s nobody hears", to)
			}
		}
		select {
		case err := <-asked:
			wantCode(t, err, code.LinkLost)
		case <-time.After(patience / 2):
			t.Fatalf("over %s the request waits", to)
		}
		eventually(t, func() bool { return waiting() == 0 })
	}
}

// unsureAt returns how many messages are sent to a and not known to be delivered.
func (n *Node) unsureAt(a Address) (count int) {
	n.mu.Lock()
	d := n.dials[a]
	n.mu.Unlock()
	if d == nil {
		return 0
	}
	<-d.made
	if d.link == nil {
		return 0
	}
	d.link.mu.Lock()
	defer d.link.mu.Unlock()
	for _, f := range d.link.byNumber {
		count += len(f.unsure)
	}
	return count
}

// TestDeliveredIsNotLost: a node that closes says what was delivered, and nobody hears
// that such is lost.
func TestDeliveredIsNotLost(t *testing.T) {
	b, addr := listening(t, Config{})
	const count = 10
	got := make(chan struct{}, count)
	start(t, b, "sink", WorkerFunc(func(context.Context, *Self, *Message) error {
		got <- struct{}{}
		return nil
	}), Options{Allow: Anyone})
	downs := make(chan error, 1)
	a := newNode(t, Config{Trace: &Trace{LinkDown: func(_ Address, err error) { downs <- err }}})
	w := &teller{to: Route{addr, "sink"}, errs: make(chan error, count)}
	start(t, a, "teller", w, Options{})
	for range count {
		if err := a.Send(inTime(t), Route{"teller"}, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range count {
		<-got
	}
	_ = b.Close()
	<-downs
	wantEcho(t, a, startEcho(t, a), "behind what it is told")
	select {
	case err := <-w.errs:
		t.Errorf("it has heard of %v", err)
	default:
	}
}

func startEcho(t testing.TB, n *Node) Route {
	t.Helper()
	start(t, n, "echo", echo, Options{})
	return Route{"echo"}
}

// TestOrderOverConns: messages of one sender along one route arrive in order, each once
// or not at all, over conns that end and are made anew all the time. It hears of as many
// losses as there are, where the ways to it stay.
func TestOrderOverConns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		middles int
		all     bool // conns end, and not the last one alone
	}{
		{name: "next door"},
		{name: "two conns away", middles: 1},
		{name: "two conns away, both of which end", middles: 1, all: true},
		{name: "four conns away, all of which end", middles: 3, all: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, addr := listening(t, Config{Keepalive: time.Second})
			const count = 600
			w := &numbered{count: count}
			start(t, b, "sink", WorkerFunc(w.take(t)), Options{Allow: Anyone, Mailbox: 1})
			taps := []*tap{newTap(t, addr)}
			w.to = Route{taps[0].addr(), "sink"}
			for range c.middles {
				m, middleAddr := listening(t, Config{Keepalive: time.Second})
				if err := m.StartHop("on", Hop{Allow: Anyone, To: w.to[:1:1]}); err != nil {
					t.Fatal(err)
				}
				near := newTap(t, middleAddr)
				w.to = append(Route{near.addr(), "on"}, w.to...)
				if c.all {
					taps = append(taps, near)
				}
			}
			w.cut = func(i int) { taps[i%len(taps)].cut() }
			a := newNode(t, Config{Keepalive: time.Second})
			start(t, a, "sender", w, Options{Mailbox: 4 * count})
			for end := time.Now().Add(patience); w.last.Load() < count; time.Sleep(5 * time.Millisecond) {
				if err := a.Send(inTime(t), Route{"sender"}, nil); err != nil || time.Now().After(end) {
					t.Fatalf("%d have come, up to %d (%v)", w.got.Load(), w.last.Load(), err)
				}
			}
			got := w.got.Load()
			if cuts := w.cuts.Load(); cuts < count/80 || got < count/10 {
				t.Errorf("%d of %d have come, by %d conns", got, count, cuts)
			}
			if !c.all {
				eventually(t, func() bool { return w.got.Load()+w.losses.Load() >= w.sent.Load() })
			}
		})
	}
}

// A numbered worker sends numbers, while conns are cut, and counts losses; and another
// message more whenever it is asked to.
type numbered struct {
	to    Route
	count int
	cut   func(i int)
	cuts  atomic.Int64

	sent, losses, got, last atomic.Int64
}

// take returns what takes the numbers.
func (w *numbered) take(t *testing.T) func(context.Context, *Self, *Message) error {
	w.last.Store(-1)
	return func(_ context.Context, _ *Self, m *Message) error {
		text, _, _ := bytes.Cut(m.Body, []byte{' '})
		i, err := strconv.ParseInt(string(text), 10, 64)
		if before := w.last.Swap(i); err != nil || i <= before {
			t.Errorf("%d comes behind %d (%v)", i, before, err)
		}
		w.got.Add(1)
		return nil
	}
}

func (w *numbered) Handle(ctx context.Context, self *Self, _ *Message) error {
	most := int64(w.count)
	if w.sent.Load() >= most {
		most = w.sent.Load() + 1
	}
	for i := w.sent.Load(); i < most; i++ {
		w.sent.Add(1)
		if err := self.Send(ctx, w.to, append(fmt.Append(nil, i, " "), make([]byte, i%997)...)); err != nil {
			w.losses.Add(1)
		}
		if i%40 == 20 && i < int64(w.count) {
			w.cut(int(w.cuts.Add(1)))
		}
	}
	return nil
}

func (w *numbered) HandleLoss(context.Context, *Self, *DeliveryError) { w.losses.Add(1) }

// TestNothingFromBefore: what waits for a mailbox when its sender's node comes by another
// conn is not delivered behind what comes by that, nor before it: that node says that it
// is lost.
func TestNothingFromBefore(t *testing.T) {
	b, addr := listening(t, Config{})
	release := make(chan struct{})
	got := make(chan string, 10)
	start(t, b, "slow", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
		<-release
		got <- string(m.Body)
		return nil
	}), Options{Allow: Anyone, Mailbox: 1})
	say := func(attempt uint64, texts ...string) *stranger {
		s := &stranger{Conn: rawLink(t, addr)}
		s.write(t, hello{series: [16]byte{1}, attempt: attempt}.append(nil))
		for _, text := range texts {
			s.send(t, Route{"slow"}, nil, head{hops: 9}, text)
		}
		return s
	}
	box := b.lookup("slow").(*worker).box
	waiting := func() int { box.mu.Lock(); defer box.mu.Unlock(); return box.waiting.Len() }
	for _, text := range []string{"handled", "in the mailbox"} {
		if err := b.Send(inTime(t), Route{"slow"}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	first := say(1, "waits", "waits, too")
	eventually(t, func() bool { return waiting() == 2 })
	say(2, "new")
	_ = first.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Errorf("the conn before: %v", err)
	}
	eventually(t, func() bool { return waiting() == 1 })
	close(release)
	for _, want := range []string{"handled", "in the mailbox", "new"} {
		if text := <-got; text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	}
	if len(got) > 0 {
		t.Errorf("got %q, too", <-got)
	}
}

// TestLastWordsAreTrue: what waits for a mailbox when its link ends is not said to be
// delivered, nor is what could be behind it.
func TestLastWordsAreTrue(t *testing.T) {
	n := newNode(t, Config{})
	stallFull(t, n)
	in := newInflow(n, Route{"stalled"})
	in.link.close(errLinkClosed)
	const size = startCredit - 100
	in.left -= size
	in.deliver(queued{m: in.message(head{hops: 9}), size: size})
	in.link.parts.Wait()
	in.onward = Route{"echo"}
	startEcho(t, n)
	in.deliver(queued{m: in.message(head{hops: 9}), size: 50})
	endsSilently(t, in)
}

// endsSilently ends a flow whose link is over: nothing of what it has brought is said to
// be delivered.
func endsSilently(t *testing.T, in *inflow) {
	t.Helper()
	in.link.parts.Wait()
	in.end()
	if out := in.link.out; len(out) > 0 {
		t.Errorf("it says %x", out)
	}
}

// TestLostWithTheLinkIsNotDelivered: what finds no worker when its link is over, where no
// word of that gets through any more, is not said to be delivered.
func TestLostWithTheLinkIsNotDelivered(t *testing.T) {
	n := newNode(t, Config{})
	startEcho(t, n)
	in := newInflow(n, Route{"nobody"})
	in.link.close(errLinkClosed)
	in.left = 0
	in.deliver(queued{m: in.message(head{hops: 9}), size: startCredit - 100})
	in.onward = Route{"echo"}
	in.deliver(queued{m: in.message(head{hops: 9}), size: 100})
	endsSilently(t, in)
}

// TestLostWithTheNodeIsNotDelivered: nor is what a node that closes has no place for any
// more, before its links have ended, too.
func TestLostWithTheNodeIsNotDelivered(t *testing.T) {
	for name, mailbox := range map[string]int{"waits for the mailbox": 1, "is in no line yet": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, Config{})
				release := make(chan struct{})
				start(t, n, "stalled", WorkerFunc(func(context.Context, *Self, *Message) error {
					<-release
					return nil
				}), Options{Allow: Anyone, Mailbox: mailbox})
				for range 2 { // one that it handles, and one in its mailbox
					if err := n.Send(t.Context(), Route{"stalled"}, nil); err != nil {
						t.Fatal(err)
					}
				}
				in := newInflow(n, Route{"stalled"})
				ctx, cancel := context.WithCancelCause(context.Background()) // ends later than the node
				in.link.ctx, in.link.cancel = ctx, cancel
				in.left = 0
				m := in.message(head{hops: 9})
				if mailbox == 1 {
					in.deliver(queued{m: m, size: startCredit})
				}
				synctest.Wait()
				n.stop()
				synctest.Wait()
				close(release) // the worker stops
				synctest.Wait()
				if mailbox > 1 {
					in.link.parts.Go(func() { in.deliver(queued{m: m, size: startCredit}) })
				}
				synctest.Wait()
				in.link.close(context.Canceled)
				endsSilently(t, in)
			})
		})
	}
}

// TestDroppedIsNotDelivered: a message that is given up behind one that waits for its
// mailbox does not have that one count as delivered: its sender hears when the conn ends.
func TestDroppedIsNotDelivered(t *testing.T) {
	b, addr := listening(t, Config{Buffer: 1})
	stallFull(t, b)
	start(t, b, "echo", echo, Options{Allow: Anyone})
	narrow(b, 0)
	wire := newTap(t, addr)
	a := newNode(t, Config{})
	w := &teller{errs: make(chan error, 10)}
	start(t, a, "teller", w, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	send := func(ctx context.Context, size int) error {
		m := &Message{Onward: Route{wire.addr(), "stalled"}, Return: Route{"teller"}, Body: make([]byte, size), hops: maxHops}
		return a.send(ctx, m, a.lookup("teller").(*worker))
	}
	if err := send(inTime(t), 1000); err != nil {
		t.Fatal(err)
	}
	dropped := make(chan error, 1)
	go func() { dropped <- send(ctx, 1<<20) }()
	line := func() int { b.budget.mu.Lock(); defer b.budget.mu.Unlock(); return b.budget.waiting }
	eventually(t, func() bool { return line() == 1 })
	cancel()
	if err := <-dropped; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	eventually(t, func() bool { return line() == 0 })
	wantEcho(t, a, Route{wire.addr(), "echo"}, "behind what is given back")
	wire.cut()
	select {
	case err := <-w.errs:
		wantCode(t, err, code.LinkLost)
	case <-time.After(patience / 2):
		t.Error("the message before is lost, and nobody told")
	}
}
