package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
)

// anyName lets everybody have every name.
func anyName(Origin, Address) error { return nil }

// TestNameForManyCallers: more callers than a conn has flows for reach a node by its name at
// the same time, each of them in order: those that are quiet make room for the others, and
// nothing of theirs is lost.
func TestNameForManyCallers(t *testing.T) {
	t.Parallel()
	r, addr := listening(t, Config{})
	if err := r.StartRelay("relay", Relay{Register: anyName, Allow: Anyone}); err != nil {
		t.Fatal(err)
	}
	b := newNode(t, Config{})
	if _, err := b.Register(inTime(t), Route{addr, "relay"}, "b"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	next := map[string]int{}
	start(t, b, "count", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		mu.Lock()
		defer mu.Unlock()
		caller := m.Return.String()
		next[caller]++
		return self.Reply(ctx, m, fmt.Append(nil, next[caller]))
	}), Options{Allow: Anyone})
	const nodes, callers, rounds = 2, maxFlows * 3 / 4, 3
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	var wg sync.WaitGroup
	for range nodes { // each of them within the flows of its own conn
		a := newNode(t, Config{})
		for i := range callers {
			done := make(chan struct{})
			name := Address(fmt.Sprint("caller", i))
			start(t, a, name, WorkerFunc(func(_ context.Context, self *Self, _ *Message) error {
				defer close(done)
				for round := 1; round <= rounds; round++ {
					m, err := self.Request(ctx, Route{addr, "b", "count"}, nil)
					if err != nil || string(m.Body) != fmt.Sprint(round) {
						t.Errorf("%s, %d: got %+v, %v", name, round, m, err)
						return nil
					}
				}
				return nil
			}), Options{})
			wg.Go(func() {
				if err := a.Send(ctx, Route{name}, nil); err != nil {
					t.Error(err)
					return
				}
				<-done
			})
		}
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(next) != nodes*callers {
		t.Errorf("%d callers have come, of %d", len(next), nodes*callers)
	}
}

// register asks the relay of n's own for a name, or for its end.
func register(t testing.TB, n *Node, name string, end bool) error {
	t.Helper()
	body, err := canon.Marshal(registering{name, "entry", end})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Request(inTime(t), Route{"relay"}, body)
	return err
}

// TestNamesAreBounded: a relay that has as many names as it may takes no other one, and
// none of them gives way; those that are there are renewed, and one that ends makes room.
func TestNamesAreBounded(t *testing.T) {
	n := newNode(t, Config{})
	s := &relay{Relay: Relay{Register: anyName}, node: n, names: map[Address]*forwarder{}}
	start(t, n, "relay", s, Options{})
	for i := range maxRegistrations {
		if err := s.register(&Message{Return: Route{"~requests-x"}}, Address(fmt.Sprint("n", i)), "entry", false); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, register(t, n, "one-more", false), code.Limit)
	if n.lookup("one-more") != nil || n.lookup("n0") == nil {
		t.Error("another name has given way")
	}
	if err := register(t, n, "n0", false); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := register(t, n, "n1", true); err != nil {
		t.Error(err)
	}
	if err := register(t, n, "one-more", false); err != nil {
		t.Errorf("after an end: %v", err)
	}
	if n.lookup("n1") != nil || n.lookup("one-more") == nil {
		t.Error("the names are others")
	}
}

// TestRegistrationIsShort: what is no registration is not parsed.
func TestRegistrationIsShort(t *testing.T) {
	n := newNode(t, Config{})
	if err := n.StartRelay("relay", Relay{Register: anyName}); err != nil {
		t.Fatal(err)
	}
	longest := make([]byte, MaxAddress)
	for i := range longest {
		longest[i] = 'x'
	}
	body, err := canon.Marshal(registering{string(longest), string(longest), true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Request(inTime(t), Route{"relay"}, body); err != nil {
		t.Errorf("the longest one, of %d bytes: %v", len(body), err)
	}
	for _, body := range [][]byte{nil, []byte("hello"), make([]byte, maxRegistering+1), append(body, 0)} {
		_, err := n.Request(inTime(t), Route{"relay"}, body)
		wantCode(t, err, code.WorkerFailed)
	}
}

// TestRelayStops: with a relay its names end, and another one at its place has them at once.
func TestRelayStops(t *testing.T) {
	n := newNode(t, Config{})
	start(t, n, "entry", echo, Options{})
	for range 2 {
		if err := n.StartRelay("relay", Relay{Register: anyName}); err != nil {
			t.Fatal(err)
		}
		if err := register(t, n, "name", false); err != nil {
			t.Fatal(err)
		}
		wantEcho(t, n, Route{"name"}, "by name")
		if err := n.Stop(inTime(t), "relay"); err != nil {
			t.Fatal(err)
		}
		_, err := n.Request(inTime(t), Route{"name"}, nil)
		wantCode(t, err, code.NoWorker)
	}
}

// TestStopWithin: a worker that stops itself with the context that it handles a message
// with does not wait for itself, and others wait for no longer than they say.
func TestStopWithin(t *testing.T) {
	n := newNode(t, Config{})
	errs := make(chan error, 1)
	out := make(chan struct{})
	start(t, n, "itself", WorkerFunc(func(ctx context.Context, self *Self, _ *Message) error {
		errs <- self.Node().Stop(ctx, self.Address())
		<-out
		return nil
	}), Options{})
	if err := n.Send(inTime(t), Route{"itself"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("it hears %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Stop(ctx, "itself"); !errors.Is(err, context.Canceled) {
		t.Errorf("somebody else hears %v", err)
	}
	close(out)
	eventually(t, func() bool { return n.lookup("itself") == nil })
	if err := n.StartHop("hop", Hop{}); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(inTime(t), "hop"); err != nil {
		t.Error(err)
	}
	wantCode(t, n.Stop(inTime(t), "hop"), code.NoWorker)
	wantCode(t, n.Stop(inTime(t), n.inbox[0]), code.NoWorker)
}
