package node

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A tally counts links that are up, of which none may be twice at a time.
type tally struct {
	mu   sync.Mutex
	ups  map[Address]int
	all  int   // calls
	last error // that one was down for
}

func (y *tally) trace(t *testing.T) *Trace {
	y.ups = map[Address]int{}
	count := func(a Address, n int) {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.all++
		if y.ups[a] += n; y.ups[a] < 0 || y.ups[a] > 1 {
			t.Errorf("%s is up %d times", a, y.ups[a])
		}
	}
	return &Trace{
		LinkUp: func(a Address, _ Origin, _ net.Addr) { count(a, 1) },
		LinkDown: func(a Address, err error) {
			count(a, -1)
			y.mu.Lock()
			defer y.mu.Unlock()
			y.last = err
		},
	}
}

func (y *tally) want(t *testing.T, addresses, calls int) {
	t.Helper()
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.ups) != addresses || y.all != calls {
		t.Errorf("%d links have been told of, %d times; want %d and %d", len(y.ups), y.all, addresses, calls)
	}
}

// TestTraceOfSuccession: the trace hears of a conn's end before it hears that the next one of
// its series is up, also where the program holds up something that the first has brought.
func TestTraceOfSuccession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var links tally
		b := New(Config{Trace: links.trace(t)})
		allow, held, release := holding()
		start(t, b, "sink", new(record), Options{Allow: allow})
		var parts sync.WaitGroup
		defer parts.Wait()
		defer b.Close()
		defer close(release)
		for i := range uint64(4) {
			attempt(b, &parts, i+1, Route{"sink"}, "x")
			if i == 0 {
				<-held
			}
			synctest.Wait()
		}
		links.want(t, 1, 7)
	})
}

// TestTraceOfAFailedDial: also where a conn could not be made in between, the trace hears of
// the end of the one before it before it hears of the next one.
func TestTraceOfAFailedDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &lines{}
		defer x.close()
		var links tally
		a, b := x.node(t, "127.0.0.1:1", Config{Trace: links.trace(t)}), x.node(t, "127.0.0.1:2", Config{})
		refuse, errRefused := false, errors.New("refused")
		a.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if refuse {
				return nil, errRefused
			}
			return x.dial(ctx, network, address)
		}
		const to = "tcp://127.0.0.1:2"
		start(t, b, "echo", echo, Options{Allow: Anyone})
		allow, held, release := holding()
		defer close(release)
		start(t, a, "held", new(record), Options{Allow: allow})
		start(t, b, "back", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
			return self.Send(ctx, append(m.Return[:1:1], "held"), nil)
		}), Options{Allow: Anyone})
		if err := a.send(t.Context(), &Message{Onward: Route{to, "back"}, Return: a.inbox, hops: 9}, nil); err != nil {
			t.Fatal(err)
		}
		<-held // what the conn has brought, and so its end
		x.cut("127.0.0.1:2")
		synctest.Wait()
		_ = a.Send(t.Context(), Route{to, "echo"}, nil) // the writer sees that it has ended
		synctest.Wait()
		refuse = true
		wantCode(t, a.Send(t.Context(), Route{to, "echo"}, nil), code.Unreachable)
		refuse = false
		wantEcho(t, a, Route{to, "echo"}, "again")
		synctest.Wait()
		links.want(t, 1, 3)
		if errors.Is(links.last, errRefused) || links.last == nil {
			t.Errorf("it has ended as %v", links.last)
		}
	})
}

// TestAsksOfATrace: what the trace is told of may send by the next conn, and wait for the
// answer. Where the next one waits for that it does so for a mutex, and the clock here stands:
// the test ends then by its time in the world.
func TestAsksOfATrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &lines{}
		defer x.close()
		const to = "tcp://127.0.0.1:2"
		answers := make(chan error, 2)
		var a *Node
		ask := func() {
			_, err := a.Request(t.Context(), Route{to, "echo"}, nil)
			answers <- err
		}
		var asked bool
		a = x.node(t, "127.0.0.1:1", Config{Trace: &Trace{
			LinkUp: func(Address, Origin, net.Addr) {
				if !asked {
					ask()
				}
			},
			LinkDown: func(Address, error) {
				if !asked {
					asked = true
					ask()
				}
			},
		}})
		start(t, x.node(t, "127.0.0.1:2", Config{}), "echo", echo, Options{Allow: Anyone})
		wantEcho(t, a, Route{to, "echo"}, "first")
		if err := <-answers; err != nil {
			t.Errorf("LinkUp: %v", err)
		}
		began := time.Now()
		x.cut("127.0.0.1:2")
		if err := <-answers; err != nil || time.Since(began) > 0 {
			t.Errorf("LinkDown: %v, after %s", err, time.Since(began))
		}
	})
}

// TestAnotherNodeAtTheAddress: a conn that leads to another node than before, where the
// transport's address does, has another address on return routes.
func TestAnotherNodeAtTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &lines{}
		defer x.close()
		a, first := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:2", Config{})
		addressOf := func(n *Node) Address {
			t.Helper()
			start(t, n, "echo", echo, Options{Allow: Anyone})
			wantEcho(t, a, Route{"tcp://127.0.0.1:2", "echo"}, "x")
			return a.dialled()[0].address
		}
		was := addressOf(first)
		x.cut("127.0.0.1:2")
		synctest.Wait()
		wantEcho(t, a, Route{"tcp://127.0.0.1:2", "echo"}, "x")
		if is := a.dialled()[0].address; is != was {
			t.Errorf("of the same node it was %s, and is %s", was, is)
		}
		_ = first.Close()
		synctest.Wait()
		if is := addressOf(x.node(t, "127.0.0.1:2", Config{})); is == was {
			t.Error("it is the same for another node")
		}
	})
}

// TestAnswerByASuccessor: an answer that has to come by a conn is taken from the one that has
// its place, and from no other.
func TestAnswerByASuccessor(t *testing.T) {
	n := newNode(t, Config{})
	p := &pending{answer: make(chan *Message, 1), via: &link{address: "~conn-a"}}
	id := n.await(p)
	for via, want := range map[*link]bool{{address: "~conn-a"}: true, {address: "~conn-b"}: false, nil: true} {
		err := n.expected(&Message{Onward: Route{"x"}, id: id, kind: reply, via: via})
		if got := err == nil; got != want {
			t.Errorf("by %+v: %v", via, err)
		}
	}
}
