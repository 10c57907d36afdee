package tunnel

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; it is never waited
// out by a test that passes.
const patience = 15 * time.Second

// A plainCarrier is a Carrier without encryption, which remembers with what it
// was closed.
type plainCarrier struct {
	net.Conn
	once   sync.Once
	code   code.Code
	closed chan struct{}
}

func plain(nc net.Conn) *plainCarrier {
	return &plainCarrier{Conn: nc, closed: make(chan struct{})}
}

func (c *plainCarrier) Peer() channel.Peer { return channel.Peer{} }

func (c *plainCarrier) CloseWithReason(cd code.Code, _ string) error {
	c.once.Do(func() {
		c.code = cd
		close(c.closed)
	})
	return c.Conn.Close()
}

// tcpPair returns both ends of a loopback TCP connection.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func plainPair(t testing.TB) (a, b Carrier) {
	t.Helper()
	x, y := tcpPair(t)
	return plain(x), plain(y)
}

// channelPair returns both ends of a channel on TCP. Cutting what paths returns
// makes it go on over another one.
func channelPair(t testing.TB) (a, b Carrier) {
	t.Helper()
	a, b, _ = lastingPair(t)
	return a, b
}

// lastingPair is channelPair with a func that cuts the present path.
func lastingPair(t testing.TB) (a, b Carrier, cut func()) {
	t.Helper()
	locals := [2]*channel.Local{}
	for i := range locals {
		id, err := identity.New(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if locals[i], err = channel.NewLocal(id); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var path net.Conn
	var serving sync.WaitGroup
	table := channel.NewTable(channel.Settings{}, channel.Limits{})
	opened := make(chan *channel.Channel, 1)
	caller := &channel.Caller{
		Local: locals[0], Peer: locals[1].Identifier(), Routes: 1,
		Path: func(context.Context, int, *channel.Instance, int) (net.Conn, error) {
			x, y := tcpPair(t)
			mu.Lock()
			path = x
			mu.Unlock()
			serving.Go(func() {
				in, err := channel.Respond(context.Background(), y, locals[1], channel.PurposeChannel, channel.Options{})
				switch {
				case err != nil:
				case in.Resumes():
					_, _ = table.Resume(in, "")
				default:
					if c, err := table.Open(in, ""); err == nil {
						opened <- c
					}
				}
			})
			return x, nil
		},
	}
	c, err := caller.Dial(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s := <-opened
	ctx, cancel := context.WithCancel(context.Background())
	serving.Go(func() { _ = c.Run(ctx) })
	serving.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return c, s, func() {
		mu.Lock()
		defer mu.Unlock()
		_ = sock.ResetClose(path)
	}
}

// A pair is two sessions that talk to each other.
type pair struct {
	client, server *Session
}

func newPair(t testing.TB, cfg Config) *pair {
	t.Helper()
	a, b := plainPair(t)
	return startPair(t, a, b, cfg, cfg)
}

func startPair(t testing.TB, a, b Carrier, client, server Config) *pair {
	t.Helper()
	p := &pair{NewClient(a, client), NewServer(b, server)}
	go func() { _ = p.client.Run(context.Background()) }()
	go func() { _ = p.server.Run(context.Background()) }()
	t.Cleanup(func() { p.close(t) })
	return p
}

func (p *pair) close(t testing.TB) {
	t.Helper()
	for _, s := range []*Session{p.client, p.server} {
		s.Close(code.OK, "")
		await(t, s.Done(), "the end of a session")
	}
}

// open opens a stream and accepts it.
func (p *pair) open(t testing.TB) (client, server *Stream) {
	t.Helper()
	client = p.request(t)
	server, err := p.accept(t).Accept()
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	return client, server
}

func (p *pair) request(t testing.TB) *Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience) // not soon, which the test holds to its end
	defer cancel()
	st, err := p.client.Open(ctx, Open{Service: "db", ClientAddress: "192.0.2.1:5"})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return st
}

func (p *pair) accept(t testing.TB) *Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := p.server.Accept(ctx)
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	return r
}

// forgotten waits until both sessions hold nothing but their control stream.
func (p *pair) forgotten(t testing.TB) {
	t.Helper()
	for _, s := range []*Session{p.client, p.server} {
		eventually(t, "a session forgets its streams", func() bool {
			return s.Streams() == 0 && s.mux.NumStreams() == 1 && s.adapter.windows.count() == 1 &&
				len(s.slots) == 0 && len(s.unacked) == 0 && s.gateFree() == gateBytes
		})
	}
}

func (s *Session) gateFree() int {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.free
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func await[T any](t testing.TB, ch <-chan T, what string) (v T) {
	t.Helper()
	return awaitFor(t, patience, ch, what)
}

// awaitFor is await for what has much to be done before it: of a thousand that run at
// once the first may end with the last.
func awaitFor[T any](t testing.TB, most time.Duration, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(most):
		t.Fatalf("waited %v for %s", most, what)
	}
	return v
}

// eventually polls what has no event to wait for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}

// async runs f and returns its error when it has one.
func async(f func() error) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- f() }()
	return ch
}

func wantReset(t testing.TB, err error, c code.Code, remote bool) {
	t.Helper()
	var re *ResetError
	if !errors.As(err, &re) || *re != (ResetError{Code: c, Remote: remote}) {
		t.Errorf("got error %v (%T), want ResetError{%v, remote %v}", err, err, c, remote)
	}
}

func wantLoss(t testing.TB, err error) {
	t.Helper()
	var le *LossError
	if !errors.As(err, &le) {
		t.Errorf("got error %v (%T), want *LossError", err, err)
	}
}
