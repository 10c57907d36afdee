package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/code"
)

// A record is a worker that notes the bodies of what it gets.
type record struct {
	mu     sync.Mutex
	bodies []string
}

func (r *record) Handle(_ context.Context, _ *Self, m *Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies = append(r.bodies, string(m.Body))
	return nil
}

func (r *record) want(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.bodies, want) {
		t.Errorf("got %q, want %q", r.bodies, want)
	}
}

// holding returns an Allow of which the first call, which is told by close of held, goes on
// only when it is let to.
func holding() (allow func(Origin) error, held, release chan struct{}) {
	held, release = make(chan struct{}), make(chan struct{})
	var called atomic.Bool
	return func(Origin) error {
		if !called.Swap(true) {
			close(held)
			<-release
		}
		return nil
	}, held, release
}

// A gated worker notes what it gets, each when gate is closed.
type gated struct {
	record
	gate chan struct{}
}

func (g *gated) Handle(ctx context.Context, self *Self, m *Message) error {
	<-g.gate
	return g.record.Handle(ctx, self, m)
}

// attempt makes the conn of a series that has this number to n, and says something by it; what
// it begins is in parts.
func attempt(n *Node, parts *sync.WaitGroup, number uint64, onward Route, text string) {
	near, far := net.Pipe()
	parts.Go(func() { n.serveConn(n.ctx, far) })
	parts.Go(func() { _, _ = io.Copy(io.Discard, near) })
	parts.Go(func() {
		s := &stranger{Conn: near}
		_, _ = s.Write(hello{series: [16]byte{1}, attempt: number}.append(nil))
		_, _ = s.put(onward, nil, head{hops: 9}, text)
	})
}

// TestNothingFromALateConn: a conn whose bytes come late, when the conn that was made after
// it is over already, brings nothing.
func TestNothingFromALateConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		defer b.Close()
		var got record
		start(t, b, "sink", &got, Options{Allow: Anyone})
		var (
			parts   sync.WaitGroup
			conns   []net.Conn // at a's end
			release = make(chan struct{})
		)
		defer parts.Wait()
		a := New(Config{Dial: func(context.Context, string, string) (net.Conn, error) {
			near, left := net.Pipe()
			right, far := net.Pipe()
			first := len(conns) == 0
			conns = append(conns, near)
			parts.Go(func() { b.serveConn(b.ctx, far) })
			parts.Go(func() {
				defer left.Close()
				_, _ = io.Copy(left, right)
			})
			parts.Go(func() {
				defer right.Close()
				if !first {
					_, _ = io.Copy(right, left)
					return
				}
				late, _ := io.ReadAll(left)
				<-release
				_, _ = right.Write(late)
			})
			return near, nil
		}})
		defer a.Close()
		to := Route{"tcp://127.0.0.1:1", "sink"}
		sent := make(chan error, 1)
		go func() { sent <- a.Send(t.Context(), to, []byte("first")) }()
		synctest.Wait()
		_ = conns[0].Close()
		<-sent // it may know that this is lost
		synctest.Wait()
		if err := a.Send(t.Context(), to, []byte("second")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_ = conns[1].Close()
		synctest.Wait()
		got.want(t, "second")
		close(release)
		synctest.Wait()
		got.want(t, "second")
	})
}

// TestNothingFromTheConnBeforeTheLast: what a conn has brought, and the node is at, comes not
// behind what came by the second conn after it.
func TestNothingFromTheConnBeforeTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		var parts sync.WaitGroup
		defer parts.Wait()
		defer b.Close()
		var got record
		allow, held, release := holding()
		start(t, b, "sink", &got, Options{Allow: allow})
		attempt(b, &parts, 1, Route{"sink"}, "first")
		<-held
		attempt(b, &parts, 2, Route{"sink"}, "second")
		synctest.Wait()
		attempt(b, &parts, 3, Route{"sink"}, "third")
		synctest.Wait()
		close(release)
		synctest.Wait()
		got.want(t, "second", "third")
	})
}

// TestNothingFromTheConnBeforeAtTheName: what a conn has brought to a node that is registered
// under a name does not come behind what comes by the conn that it makes then.
func TestNothingFromTheConnBeforeAtTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &lines{}
		defer x.close()
		var links tally
		relay, b := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:2", Config{Trace: links.trace(t)})
		if err := relay.StartRelay("names", Relay{Allow: Anyone, Register: func(Origin, Address) error { return nil }}); err != nil {
			t.Fatal(err)
		}
		var got record
		allow, held, release := holding()
		start(t, b, "sink", &got, Options{Allow: allow})
		r, err := b.Register(t.Context(), Route{"tcp://127.0.0.1:1", "names"}, "bob")
		if err != nil {
			t.Fatal(err)
		}
		to := Route{"bob", "sink"}
		if err := relay.Send(t.Context(), to, []byte("first")); err != nil {
			t.Fatal(err)
		}
		<-held
		x.cut("127.0.0.1:1")
		synctest.Wait()
		free := make(chan struct{})
		go func() {
			defer close(free)
			// It has no name until it is registered again.
			for relay.Send(t.Context(), to, []byte("second")) != nil {
				wait.Sleep(t.Context(), renewEvery)
			}
		}()
		wait.Sleep(t.Context(), 3*renewEvery)
		synctest.Wait()
		links.want(t, 1, 3)
		close(release)
		<-free
		synctest.Wait()
		got.want(t, "second")
		_ = r.Close()
	})
}

// TestNothingGoesOnFromTheConnBefore: what a conn has brought to a hop, which is held up
// there, does not go on when another conn has the place of that.
func TestNothingGoesOnFromTheConnBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &lines{}
		defer x.close()
		m, b := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:2", Config{})
		const next = "tcp://127.0.0.1:2"
		var got record
		start(t, b, "sink", &got, Options{Allow: Anyone})
		allow, held, release := holding()
		if err := m.StartHop("on", Hop{Allow: allow, To: []Address{next}}); err != nil {
			t.Fatal(err)
		}
		to := Route{"on", next, "sink"}
		attempt(m, &x.parts, 1, to, "first")
		<-held
		attempt(m, &x.parts, 2, to, "second")
		synctest.Wait()
		// A new conn to the next node, with no flow that says whose message was the last.
		x.cut("127.0.0.1:2")
		synctest.Wait()
		if err := m.Send(t.Context(), Route{next, "sink"}, []byte("another's")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		got.want(t, "second", "another's")
	})
}

// TestOrderWhereAConnEndsFarBefore: a conn that ends, and is made anew, two conns and more
// before a mailbox that stalls, brings nothing out of order there.
func TestOrderWhereAConnEndsFarBefore(t *testing.T) {
	t.Run("on the way of a route", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x := &lines{}
			defer x.close()
			a, c := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:4", Config{})
			to := Route{"tcp://127.0.0.1:4", "sink"}
			for _, at := range []string{"127.0.0.1:3", "127.0.0.1:2"} {
				if err := x.node(t, at, Config{}).StartHop("on", Hop{Allow: Anyone, To: to[:1:1]}); err != nil {
					t.Fatal(err)
				}
				to = append(Route{Address("tcp://" + at), "on"}, to...)
			}
			// A worker, so there are return routes.
			start(t, a, "sender", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
				return self.Send(ctx, to, m.Body)
			}), Options{})
			inOrder(t, x, "127.0.0.1:2", c, func(text string) {
				if err := a.Send(t.Context(), Route{"sender"}, []byte(text)); err != nil {
					t.Error(err)
				}
			})
		})
	})
	t.Run("on the way of a name", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x := &lines{}
			defer x.close()
			relay, m, b := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:2", Config{}), x.node(t, "127.0.0.1:3", Config{})
			if err := relay.StartRelay("names", Relay{Allow: Anyone, Register: func(Origin, Address) error { return nil }}); err != nil {
				t.Fatal(err)
			}
			if err := m.StartHop("on", Hop{Allow: Anyone, To: []Address{"tcp://127.0.0.1:1"}}); err != nil {
				t.Fatal(err)
			}
			r, err := b.Register(t.Context(), Route{"tcp://127.0.0.1:2", "on", "tcp://127.0.0.1:1", "names"}, "bob")
			if err != nil {
				t.Fatal(err)
			}
			inOrder(t, x, "127.0.0.1:1", b, func(text string) {
				for relay.Send(t.Context(), Route{"bob", "sink"}, []byte(text)) != nil {
					wait.Sleep(t.Context(), time.Second) // it has no name until it is registered again
				}
			})
			_ = r.Close()
		})
	})
}

// inOrder has more said to a sink on last than its mailbox takes, and again when the conns
// to cut have ended, before the sink takes any of it; and looks at what it gets.
func inOrder(t *testing.T, x *lines, cut string, last *Node, say func(text string)) {
	t.Helper()
	got := &gated{gate: make(chan struct{})}
	start(t, last, "sink", got, Options{Allow: Anyone, Mailbox: 1})
	var want []string
	for i := range 8 {
		if i == 5 {
			x.cut(cut)
			synctest.Wait()
		}
		want = append(want, fmt.Sprint(i))
		say(want[i])
		synctest.Wait()
	}
	wait.Sleep(t.Context(), time.Second) // for whatever would go on by time
	close(got.gate)
	synctest.Wait()
	got.want(t, want...)
}

// A held conn is one that a node has made, whose other end is the test's; what comes by it
// is held up behind a message to the worker "busy".
type held struct {
	*stranger
	back Route  // of what the node has sent
	id   uint64 // of that
	all  []byte // to be sent at once
}

// holdConn returns the held conn that n makes when do is called, which sends one message by
// it, and has that credited.
func holdConn(t *testing.T, n *Node, ends <-chan net.Conn, do func()) *held {
	t.Helper()
	go do()
	h := &held{stranger: &stranger{Conn: <-ends}}
	h.write(t, hello{}.append(nil))
	for read := false; !read; {
		var err error
		f, b := h.next(t)
		switch f.typ {
		case frameOpen:
			_, h.back, err = parseRoutes(b)
		case frameData:
			var of head
			of, err = parseHead(b)
			h.id, read = of.id, true
			h.all = append(frame{frameCredit, 8, f.flow}.append(nil), 0, 0, 0, byte(f.length), 0, 0, 0, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = h.SetReadDeadline(time.Time{}) // next's
	h.add(Route{"busy"}, head{hops: 9}, "x")
	return h
}

// add adds a message to what is sent at once.
func (h *held) add(onward Route, of head, body string) {
	h.all = h.frames(h.all, onward, nil, of, body)
}

// TestWordsFromTheConnBefore: an answer, or word of a loss, that a conn has brought is taken
// also when another conn has its place: whoever waits for it hears it by nobody else.
func TestWordsFromTheConnBefore(t *testing.T) {
	const next = "tcp://127.0.0.1:9"
	for _, name := range []string{"an answer that goes on", "word of a loss"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &lines{}
				defer x.close()
				a, m := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:2", Config{})
				ends := make(chan net.Conn, 2)
				m.cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe()
					ends <- far
					return near, nil
				}
				if err := m.StartHop("on", Hop{Allow: Anyone, To: []Address{next}}); err != nil {
					t.Fatal(err)
				}
				allow, isHeld, release := holding()
				start(t, m, "busy", new(record), Options{Allow: allow})
				w := &teller{to: Route{next, "sink"}, errs: make(chan error, 2)}
				start(t, m, "teller", w, Options{})
				asked := make(chan error, 1)
				do := func() {
					_, err := a.Request(t.Context(), Route{"tcp://127.0.0.1:2", "on", next, "echo"}, nil)
					asked <- err
				}
				if name == "word of a loss" {
					do = func() { _ = m.Send(t.Context(), Route{"teller"}, nil) }
				}
				h := holdConn(t, m, ends, do)
				go func() { _, _ = io.Copy(io.Discard, h) }()
				if h.id != 0 {
					h.add(h.back, head{hops: 9, kind: reply, id: h.id}, "answer")
				} else {
					h.add(h.back, head{hops: 9, kind: failed}, string(failure(code.NoWorker, "sink", "nobody").encode()))
				}
				go func() { _, _ = h.Write(h.all) }()
				<-isHeld
				_ = h.Close()
				synctest.Wait()
				// The writer sees that it has ended; then there is another one.
				_ = m.Send(t.Context(), Route{next, "x"}, nil)
				synctest.Wait()
				go func() { _ = m.Send(t.Context(), Route{next, "x"}, nil) }()
				second := <-ends
				_, _ = readHello(second)
				go func() { _, _ = io.Copy(io.Discard, second) }()
				_, _ = second.Write(hello{}.append(nil))
				synctest.Wait()
				close(release)
				if h.id != 0 {
					if err := <-asked; err != nil {
						t.Error(err)
					}
				} else {
					wantCode(t, <-w.errs, code.NoWorker)
				}
				_ = second.Close()
			})
		})
	}
}

// TestAnswerByTheNextConn: a conn that a node has made anew has the address of the one
// before. Who was written to from there answers by it when something has come by the new one,
// too; others do not.
func TestAnswerByTheNextConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &lines{}
		defer x.close()
		a, m, b := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:2", Config{}), x.node(t, "127.0.0.1:3", Config{})
		if err := m.StartHop("on", Hop{Allow: Anyone, To: []Address{"tcp://127.0.0.1:3"}}); err != nil {
			t.Fatal(err)
		}
		back := make(chan *Message, 1)
		start(t, b, "later", WorkerFunc(func(_ context.Context, _ *Self, m *Message) error {
			back <- m
			return nil
		}), Options{Allow: Anyone})
		start(t, a, "worker", echo, Options{Allow: Anyone})
		say := func() (way Route) {
			to := Route{"tcp://127.0.0.1:2", "on", "tcp://127.0.0.1:3", "later"}
			if err := a.lookup("worker").(*worker).self.Send(t.Context(), to, nil); err != nil {
				t.Fatal(err)
			}
			return (<-back).Return
		}
		way := say()
		wantEcho(t, b, way, "here")
		x.cut("127.0.0.1:2")
		synctest.Wait()
		if err := a.Send(t.Context(), Route{"tcp://127.0.0.1:2", "on"}, nil); err != nil { // the next conn
			t.Fatal(err)
		}
		synctest.Wait()
		_, err := b.Request(t.Context(), way, nil)
		wantCode(t, err, code.WorkerDenied)
		if again := say(); !slices.Equal(again, way) {
			t.Errorf("the return route was %s, and is %s", way, again)
		}
		wantEcho(t, b, way, "here again")
		mallory := x.node(t, "127.0.0.1:4", Config{})
		_, err = mallory.Request(t.Context(), Route{"tcp://127.0.0.1:2", way[2], "worker"}, nil)
		wantCode(t, err, code.WorkerDenied)
	})
}
