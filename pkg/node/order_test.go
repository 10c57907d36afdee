package node

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/culvert-net/culvert/internal/wait"
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
		conn := func(attempt uint64, text string) {
			near, far := net.Pipe()
			parts.Go(func() { b.serveConn(b.ctx, far) })
			parts.Go(func() { _, _ = io.Copy(io.Discard, near) })
			parts.Go(func() {
				s := &stranger{Conn: near}
				_, _ = s.Write(hello{series: [16]byte{1}, attempt: attempt}.append(nil))
				_, _ = s.put(Route{"sink"}, nil, head{hops: 9}, text)
			})
		}
		conn(1, "first")
		<-held
		conn(2, "second")
		synctest.Wait()
		conn(3, "third")
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
		relay, b := x.node(t, "127.0.0.1:1", Config{}), x.node(t, "127.0.0.1:2", Config{})
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
		close(release)
		<-free
		synctest.Wait()
		got.want(t, "second")
		_ = r.Close()
	})
}
