package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// asker returns a worker that asks along onward within Handle, and says what came of it.
func asker(onward Route, errs chan<- error) Worker {
	return WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		_, err := self.Request(ctx, onward, nil)
		errs <- err
		return self.Reply(ctx, m, nil)
	})
}

// TestAsksItself: a worker that asks itself something hears at once that nobody will answer,
// also by way of a hop, and goes on.
func TestAsksItself(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{})
	if err := n.StartHop("hop", Hop{}); err != nil {
		t.Fatal(err)
	}
	for i, onward := range []Route{{"self0"}, {"hop", "self1"}} {
		errs := make(chan error, 1)
		at := onward[len(onward)-1]
		start(t, n, at, asker(onward, errs), Options{})
		began := time.Now()
		if _, err := n.Request(inTime(t), Route{at}, nil); err != nil {
			t.Errorf("worker %d: %v", i, err)
		}
		wantCode(t, <-errs, code.Circle)
		if took := time.Since(began); took > patience/2 {
			t.Errorf("worker %d has waited for %s", i, took)
		}
	}
}

// TestAskEachOther: workers that ask each other in a circle do not wait for ever: the one
// that would close it hears, and all of them go on.
func TestAskEachOther(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{Patience: 4 * patience})
	const size = 3
	errs := make(chan error, size)
	for i := range size {
		start(t, n, Address(fmt.Sprint("w", i)), asker(Route{Address(fmt.Sprint("w", (i+1)%size))}, errs), Options{})
	}
	if _, err := n.Request(inTime(t), Route{"w0"}, nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-errs, code.Circle) // the last one asks the first
	for range size - 1 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestAnswersThenAsks: who has answered what it was asked may ask who has asked it.
func TestAnswersThenAsks(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{})
	errs := make(chan error, 1)
	start(t, n, "asks", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		if string(m.Body) == "back" {
			return self.Reply(ctx, m, nil)
		}
		_, err := self.Request(ctx, Route{"asked"}, nil)
		return errors.Join(err, self.Reply(ctx, m, nil))
	}), Options{})
	start(t, n, "asked", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		if err := self.Reply(ctx, m, nil); err != nil {
			return err
		}
		_, err := self.Request(ctx, Route{"asks"}, []byte("back"))
		errs <- err
		return nil
	}), Options{})
	for range 100 {
		if _, err := n.Request(inTime(t), Route{"asks"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; err != nil {
			t.Fatalf("asking back: %v", err)
		}
	}
}

// TestSendsBesideHandle: what other goroutines send by a worker's Self holds up them, and
// not the worker: no circle is seen where there is none.
func TestSendsBesideHandle(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{})
	selves := make(chan *Self, 1)
	var got atomic.Int64
	start(t, n, "a", WorkerFunc(func(_ context.Context, self *Self, m *Message) error {
		if string(m.Body) == "self" {
			selves <- self
		}
		got.Add(1)
		return nil
	}), Options{Mailbox: 1})
	in, out := make(chan struct{}), make(chan struct{})
	const count = 10
	start(t, n, "b", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		if string(m.Body) != "go" {
			return nil
		}
		close(in)
		<-out
		for range count {
			if err := self.Send(ctx, Route{"a"}, nil); err != nil {
				t.Errorf("b sends to a: %v", err)
			}
		}
		return nil
	}), Options{Mailbox: 1})
	if err := n.Send(inTime(t), Route{"a"}, []byte("self")); err != nil {
		t.Fatal(err)
	}
	self := <-selves
	if err := n.Send(inTime(t), Route{"b"}, []byte("go")); err != nil {
		t.Fatal(err)
	}
	<-in
	var wg sync.WaitGroup
	for range 3 { // one fills b's mailbox, the others wait for it
		wg.Go(func() {
			if err := self.Send(inTime(t), Route{"b"}, nil); err != nil {
				t.Errorf("beside a's Handle: %v", err)
			}
		})
	}
	box := n.lookup("b").(*worker).box
	eventually(t, func() bool { box.mu.Lock(); defer box.mu.Unlock(); return box.waiting.Len() == 2 })
	close(out)
	wg.Wait()
	eventually(t, func() bool { return got.Load() == 1+count })
}

// TestPanicInRestart: what panics where a worker is to be made anew ends the worker, and
// not the program.
func TestPanicInRestart(t *testing.T) {
	var panics atomic.Int64
	n := newNode(t, Config{Trace: &Trace{Panicked: func(Address, any, []byte) { panics.Add(1) }}})
	bomb := WorkerFunc(func(context.Context, *Self, *Message) error { panic("bang") })
	for name, restart := range map[Address]func() Worker{
		"panics": func() Worker { panic("and again") },
		"nil":    func() Worker { return nil },
	} {
		panics.Store(0)
		start(t, n, name, bomb, Options{Restart: restart})
		_, err := n.Request(inTime(t), Route{name}, nil)
		wantCode(t, err, code.WorkerFailed)
		eventually(t, func() bool { return n.lookup(name) == nil })
		if got := panics.Load(); name == "panics" && got != 2 || name == "nil" && got != 1 {
			t.Errorf("%s: %d panics were told", name, got)
		}
	}
}

// TestNoWorkerAtAll: a nil worker does not start.
func TestNoWorkerAtAll(t *testing.T) {
	n := newNode(t, Config{})
	if err := n.Start("nobody", nil, Options{}); err == nil {
		t.Error("it starts")
	}
}

// TestOneName: of workers that start at one address at once, one does.
func TestOneName(t *testing.T) {
	n := newNode(t, Config{})
	var started atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch err := n.Start("one", echo, Options{}); {
			case err == nil:
				started.Add(1)
			default:
				wantCode(t, err, code.Replaced)
			}
		})
	}
	wg.Wait()
	if got := started.Load(); got != 1 {
		t.Errorf("%d have started", got)
	}
	for name, err := range map[string]error{
		"a hop":      n.StartHop("one", Hop{}),
		"a relay":    n.StartRelay("one", Relay{}),
		"own":        n.Start("~mine", echo, Options{}),
		"transport":  n.Start("tcp://127.0.0.1:1", echo, Options{}),
		"empty":      n.Start("", echo, Options{}),
		"with a gap": n.Start("a b", echo, Options{}),
	} {
		if err == nil {
			t.Errorf("%s has started", name)
		}
	}
	wantEcho(t, n, Route{"one"}, "there")
}

// TestClosed: whatever is asked of a node that is closed, or is being closed, ends, with
// ErrClosed.
func TestClosed(t *testing.T) {
	t.Parallel()
	local, id := newLocal(t)
	asks := map[string]func(ctx context.Context, n *Node, to Route) error{
		"Send": func(ctx context.Context, n *Node, to Route) error {
			for {
				if err := n.Send(ctx, to, make([]byte, 1<<10)); err != nil {
					return err
				}
			}
		},
		"Request": func(ctx context.Context, n *Node, to Route) error { _, err := n.Request(ctx, to, nil); return err },
		"OpenChannel": func(ctx context.Context, n *Node, to Route) error {
			_, err := n.OpenChannel(ctx, to, id)
			return err
		},
		"Register":   func(ctx context.Context, n *Node, to Route) error { _, err := n.Register(ctx, to, "name"); return err },
		"Start":      func(_ context.Context, n *Node, _ Route) error { return n.Start("w", echo, Options{}) },
		"StartHop":   func(_ context.Context, n *Node, _ Route) error { return n.StartHop("h", Hop{}) },
		"StartRelay": func(_ context.Context, n *Node, _ Route) error { return n.StartRelay("r", Relay{}) },
		"ServeChannels": func(_ context.Context, n *Node, _ Route) error {
			return n.ServeChannels("c", func(channel.Peer) error { return nil })
		},
	}
	b, addr := listening(t, Config{})
	stallFull(t, b)
	for name, ask := range asks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := inTime(t)
			over := newNode(t, Config{Local: local})
			start(t, over, "echo", echo, Options{})
			_ = over.Close()
			for _, to := range []Route{{"echo"}, {addr, "stalled"}} {
				if err := ask(ctx, over, to); !errors.Is(err, ErrClosed) {
					t.Errorf("closed: %v", err)
				}
			}
			if name[0] == 'S' && name != "Send" {
				return // they do not wait
			}
			for _, to := range []Route{{addr, "stalled"}, {"stalled"}} {
				n := newNode(t, Config{Local: local})
				stallFull(t, n)
				errs := make(chan error, 1)
				go func() { errs <- ask(ctx, n, to) }()
				eventually(t, func() bool { return n.busy() })
				go n.Close() // waits for the worker that stalls
				select {
				case err := <-errs:
					if !errors.Is(err, ErrClosed) {
						t.Errorf("over %s, while it closes: %v", to, err)
					}
				case <-time.After(patience / 2):
					t.Errorf("over %s it waits on a closed node", to)
				}
			}
		})
	}
}

// busy reports whether something waits for a mailbox of the node's, or has left it.
func (n *Node) busy() bool {
	if k, ok := n.lookup("stalled").(*worker); ok {
		k.box.mu.Lock()
		defer k.box.mu.Unlock()
		if k.box.waiting.Len() > 0 {
			return true
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.dials {
		select {
		case <-d.made:
			return d.link != nil
		default:
		}
	}
	return false
}

// TestWhereItFailed: who asks a worker that cannot send further on hears which one that was.
func TestWhereItFailed(t *testing.T) {
	b, addr := listening(t, Config{})
	start(t, b, "courier", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		return self.Send(ctx, Route{"tcp://127.0.0.1:1", "x"}, m.Body)
	}), Options{Allow: Anyone})
	_, err := newNode(t, Config{}).Request(inTime(t), Route{addr, "courier"}, nil)
	wantCode(t, err, code.Unreachable)
	if de := new(DeliveryError); errors.As(err, &de) && de.At != "courier" {
		t.Errorf("it is said to be lost at %q", de.At)
	}
}

// TestDeadline: what a deadline ends says so to who knows errors of contexts only, the
// sender's own deadline and the node's.
func TestDeadline(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{Patience: 50 * time.Millisecond})
	stallFull(t, n)
	start(t, n, "mute", WorkerFunc(func(context.Context, *Self, *Message) error { return nil }), Options{})
	own, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for name, ctx := range map[string]context.Context{"its own": own, "the node's": context.Background()} {
		_, err := n.Request(ctx, Route{"mute"}, nil)
		for what, err := range map[string]error{"Send": n.Send(ctx, Route{"stalled"}, nil), "Request": err} {
			wantCode(t, err, code.Timeout)
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				t.Errorf("%s, by %s deadline: %v", what, name, err)
			}
		}
	}
}

// TestStalled: a send that waits is told of.
func TestStalled(t *testing.T) {
	t.Parallel()
	type stalled struct {
		from   Address
		onward string
	}
	told := make(chan stalled, 10)
	n := newNode(t, Config{Trace: &Trace{Stalled: func(from Address, onward Route) { told <- stalled{from, onward.String()} }}})
	stallFull(t, n)
	ctx, cancel := context.WithCancel(inTime(t))
	defer cancel()
	start(t, n, "sender", WorkerFunc(func(_ context.Context, self *Self, _ *Message) error {
		return self.Send(ctx, Route{"stalled"}, nil)
	}), Options{})
	if err := n.Send(inTime(t), Route{"sender"}, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-told:
		if want := (stalled{"sender", "stalled"}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	case <-time.After(patience):
		t.Error("nobody is told")
	}
}

// TestStandoff: workers of two nodes that send to each other, and do not read meanwhile,
// stand for as long as one of them has patience. That is told after a second; the one hears
// of it then, and both go on.
func TestStandoff(t *testing.T) {
	t.Parallel()
	const size, each = 1 << 10, 64
	var nodes [2]*Node
	var addrs [2]Address
	stalled, ended := make(chan Address, 2*each), make(chan error, 2)
	var in atomic.Int64
	both := make(chan struct{})
	for i := range nodes {
		nodes[i], addrs[i] = listening(t, Config{
			Patience: 3 * time.Second,
			Trace:    &Trace{Stalled: func(from Address, _ Route) { stalled <- from }},
		})
	}
	for i, n := range nodes {
		start(t, n, "worker", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
			if string(m.Body) != "go" {
				return self.Reply(ctx, m, nil)
			}
			if in.Add(1) == int64(len(nodes)) {
				close(both)
			}
			select {
			case <-both: // the other one answers nobody any more
			case <-ctx.Done():
				return nil
			}
			var err error
			for j := 0; j < each && err == nil; j++ {
				err = self.Send(ctx, Route{addrs[1-i], "sink"}, make([]byte, size))
			}
			ended <- err
			return nil
		}), Options{Allow: Anyone, Mailbox: 1})
		// What comes for the sink waits until the worker has a place for it.
		start(t, n, "sink", WorkerFunc(func(_ context.Context, self *Self, _ *Message) error {
			_, err := self.Request(inTime(t), Route{"worker"}, nil) // for longer than a send
			return err
		}), Options{Allow: Anyone, Mailbox: 1})
	}
	for _, n := range nodes {
		if err := n.Send(inTime(t), Route{"worker"}, []byte("go")); err != nil {
			t.Fatal(err)
		}
	}
	told := map[bool]int{}
	for range nodes {
		err := <-ended
		if told[err == nil]++; err != nil {
			wantCode(t, err, code.Timeout)
		}
	}
	if told[false] == 0 {
		t.Error("nobody has heard of it")
	}
	select {
	case <-stalled:
	case <-time.After(patience):
		t.Error("the trace was told nothing")
	}
	for _, n := range nodes {
		if _, err := n.Request(inTime(t), Route{"worker"}, nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}
