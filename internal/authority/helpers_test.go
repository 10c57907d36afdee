package authority

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// identifier returns the n-th made-up identifier; they ascend.
func identifier(n int) (id identity.Identifier) {
	binary.BigEndian.PutUint32(id[:], uint32(n))
	id[31] = 1
	return id
}

func newIdentity(t testing.TB) *identity.Identity {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// routes are what tickets of the tests have.
func routes() []string {
	return []string{"tcp://relay.example:4000/" + identifier(7).String()}
}

// A fixture is an authority on a store of its own.
type fixture struct {
	*Authority
	t     testing.TB
	id    *identity.Identity
	path  string
	store *Store
}

// start makes an authority in a new folder, whose store is closed when the test
// ends.
func start(t testing.TB, cfg Config) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "authority.db"), id: cfg.Identity}
	if f.id == nil {
		f.id = newIdentity(t)
	}
	f.open(cfg)
	t.Cleanup(func() { _ = f.store.Close() })
	return f
}

// open opens the store and starts the authority.
func (f *fixture) open(cfg Config) {
	f.t.Helper()
	cfg.Identity = f.id
	if cfg.Routes == nil {
		cfg.Routes = routes()
	}
	var err error
	if f.store, err = OpenStore(f.path, f.id.Identifier()); err != nil {
		f.t.Fatal(err)
	}
	if f.Authority, err = New(f.store, cfg); err != nil {
		f.t.Fatal(err)
	}
}

// restart closes the store and opens it again.
func (f *fixture) restart(cfg Config) {
	f.t.Helper()
	if err := f.store.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open(cfg)
}

func (f *fixture) ticket(r TicketRequest) credential.Ticket {
	f.t.Helper()
	t, _, err := f.CreateTicket(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return t
}

// enrol makes a member by a ticket of its own.
func (f *fixture) enrol(peer identity.Identifier, attributes credential.Attributes) *credential.Credential {
	f.t.Helper()
	t := f.ticket(TicketRequest{Attributes: attributes})
	b, err := f.enrollTicket(peer, credential.EnrollTicket{ID: t.ID, Secret: t.Secret})
	if err != nil {
		f.t.Fatal(err)
	}
	return inspect(f.t, b)
}

func (f *fixture) revokeID(ids ...identity.Identifier) Revoked {
	f.t.Helper()
	r, err := f.Revoke(f.t.Context(), Revocation{Identifiers: ids})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func (f *fixture) verifier() *credential.Verifier {
	f.t.Helper()
	v, err := credential.NewVerifier(credential.Config{Authorities: []identity.Identifier{f.Identifier()}})
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func inspect(t testing.TB, bundle []byte) *credential.Credential {
	t.Helper()
	c, _, err := credential.Inspect(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A client is a member's side of one stream.
type client struct {
	t       testing.TB
	conn    net.Conn
	last    uint32
	unasked int           // lists that nobody had asked for, passed over by ask
	done    chan struct{} // closed when Serve has returned
	err     error         // what it returned, then
}

// dial has the authority serve a peer.
func (f *fixture) dial(peer identity.Identifier) *client {
	f.t.Helper()
	mine, theirs := net.Pipe()
	c := &client{t: f.t, conn: mine, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(c.done)
		c.err = f.Serve(ctx, peer, theirs)
		_ = theirs.Close()
	}()
	f.t.Cleanup(sync.OnceFunc(func() {
		cancel()
		_ = mine.Close()
		<-c.done
	}))
	return c
}

// ask sends a request and returns the answer, passing over lists that nobody has
// asked for.
func (c *client) ask(m credential.Request) credential.Answer {
	c.t.Helper()
	c.send(m)
	for {
		id, a := c.receive()
		if id == c.last {
			return a
		}
		c.unasked++
	}
}

func (c *client) send(m credential.Request) {
	c.t.Helper()
	c.last++
	b, err := credential.AppendRequest(nil, c.last, m)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) receive() (uint32, credential.Answer) {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	id, a, err := credential.ReadAnswer(c.conn)
	if err != nil {
		c.t.Fatal(err)
	}
	return id, a
}

// wantEnd waits until the authority has ended the stream with a refusal of that
// code, or with nil for code.OK.
func (c *client) wantEnd(want code.Code) {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		c.t.Fatal("the stream does not end")
	}
	if want == code.OK {
		if c.err != nil {
			c.t.Errorf("the stream ended with %v, want nil", c.err)
		}
		return
	}
	wantRefusal(c.t, c.err, want)
}

// wantRevoked reads what there is and waits for the end as who is revoked.
func (c *client) wantRevoked() {
	c.t.Helper()
	go func() { _, _ = io.Copy(io.Discard, c.conn) }() // until the conn is closed, with the stream
	c.wantEnd(code.IdentityRevoked)
}

// wantRefusal fails unless err is a *Refusal of that code that has every part.
func wantRefusal(t testing.TB, err error, want code.Code, parts ...string) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Code != want {
		t.Errorf("error %v, want a refusal of code %s", err, want)
		return
	}
	wantText(t, err, parts...)
}

func wantRefused(t testing.TB, a credential.Answer, want code.Code, parts ...string) {
	t.Helper()
	r, ok := a.(credential.Refused)
	if !ok {
		t.Errorf("answer %T, want a refusal of code %s", a, want)
		return
	}
	wantRefusal(t, &Refusal{Code: r.Code, Reason: r.Reason}, want, parts...)
}

func wantText(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want %q in it", err, part)
		}
	}
}
