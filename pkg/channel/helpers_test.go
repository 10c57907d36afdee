package channel

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/noise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLocal(t testing.TB) *Local {
	t.Helper()
	id, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLocal(id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// tcpPair returns both ends of a loopback TCP connection.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

type answer struct {
	in  *Incoming
	err error
}

// handshakeOn runs both sides and returns both outcomes.
func handshakeOn(a, b net.Conn, init, resp *Local, p Purpose, request []byte, opt Options) (*Conn, answer, error) {
	ch := make(chan answer, 1)
	go func() {
		in, err := Respond(context.Background(), b, resp, p, opt)
		ch <- answer{in, err}
	}()
	c, err := Initiate(context.Background(), a, init, resp.Identifier(), p, request, opt)
	if err != nil {
		_ = a.Close()
	}
	return c, <-ch, err
}

// connPair returns two handshaken Conns on the given path.
func connPair(t testing.TB, a, b net.Conn, opt Options) (*Conn, *Conn) {
	t.Helper()
	c, ans, err := handshakeOn(a, b, newLocal(t), newLocal(t), PurposeChannel, nil, opt)
	if err != nil {
		t.Fatalf("Initiate: %v", err)
	}
	if ans.err != nil {
		t.Fatalf("Respond: %v", ans.err)
	}
	return c, ans.in.Accept()
}

var suites = []noise.Suite{noise.AESGCM, noise.ChaChaPoly}

// knownFast has channels take their paths for ones that have shown to be fast: to
// others little is given until the peer, which may not read, has answered a PING.
func knownFast(cs ...*Channel) {
	for _, c := range cs {
		c.mu.Lock()
		c.flight.assured, c.flight.ahead = fastRate, maxWindow
		c.backlog.Store(int64(c.flight.backlog()))
		c.mu.Unlock()
	}
}
