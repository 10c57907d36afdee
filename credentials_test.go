package culvert_test

import (
	"context"
	"io"
	"maps"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A member world has an authority, and a relay that lets its members in.
type memberWorld struct {
	t        *testing.T
	operator *admin.Client
	relay    string // its route
}

// quietObs is that of a command whose log nobody reads.
func quietObs(t *testing.T, command string) *obs.Obs {
	t.Helper()
	o, err := obs.New(obs.Config{Command: command, LogOutput: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func keyFile(t *testing.T) (string, identity.Identifier) {
	t.Helper()
	id := newIdentity(t)
	file := filepath.Join(t.TempDir(), "x.key")
	if err := id.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	return file, id.Identifier()
}

// runs runs a command's work until the test has ended.
func runs(t *testing.T, work func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := work(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func newMemberWorld(t *testing.T) *memberWorld {
	t.Helper()
	loopback := []config.Address{{Host: "127.0.0.1"}}
	key, id := keyFile(t)
	dir := t.TempDir()
	cfg := config.Authority{
		Common: config.Common{Identity: key, Admin: "unix://" + filepath.Join(dir, "a.sock"), DrainTimeout: time.Second},
		Store:  filepath.Join(dir, "authority.db"), Listen: loopback,
	}
	// The authority's own port is in its tickets.
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = []config.Address{{Host: "127.0.0.1", Port: uint16(port.Addr().(*net.TCPAddr).Port)}}
	way, err := route.Parse("tcp://" + port.Addr().String() + "/" + id.String())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Routes = []route.Route{way}
	_ = port.Close()
	a, err := app.NewAuthority(&cfg, quietObs(t, "authority"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Listen(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	runs(t, a.Run)
	access, err := admin.ReadAccess(admin.AccessFile(cfg.Store))
	if err != nil {
		t.Fatal(err)
	}

	relayKey, relayID := keyFile(t)
	everyone := func(action policy.Action) *policy.Policy {
		p, err := policy.Compile(action, "true")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	r, err := app.NewRelay(&config.Relay{
		Common: config.Common{Identity: relayKey, DrainTimeout: time.Second}, Listen: loopback,
		Trust:    config.Trust{Authorities: []identity.Identifier{id}},
		Register: everyone(policy.Register), Connect: everyone(policy.Connect),
	}, quietObs(t, "relay"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Listen(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	runs(t, r.Run)
	return &memberWorld{t: t, operator: admin.NewClient(cfg.Admin, access), relay: "tcp://" + r.Addrs()[0].String() + "/" + relayID.String()}
}

// ticket returns a ticket for one member with those attributes.
func (w *memberWorld) ticket(attributes credential.Attributes) string {
	w.t.Helper()
	ticket, _, err := w.operator.CreateTicket(withPatience(w.t), authority.TicketRequest{Attributes: attributes})
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := ticket.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// member returns the config of a new member with those attributes.
func (w *memberWorld) member(attributes credential.Attributes) culvert.Config {
	return culvert.Config{Identity: newIdentity(w.t), State: filepath.Join(w.t.TempDir(), "state"), Ticket: w.ticket(attributes), Keepalive: time.Second}
}

// A service is had by its name, from whoever proves to offer it, by whoever proves to be
// what it asks for; the conn has what was proven, and a revocation cuts it.
func TestByNameAndRevoked(t *testing.T) {
	w := newMemberWorld(t)
	ln := listen(t, culvert.ListenerConfig{
		Config: w.member(credential.Attributes{"service": "orders"}), Service: "orders", AllowIf: `peer.attr.role == "api"`, Relays: []string{w.relay},
	})
	api := newDialer(t, culvert.DialerConfig{
		Config: w.member(credential.Attributes{"role": "api", "team": "shop"}), Routes: []string{w.relay}, ConnectTimeout: patience,
	})
	accepted := make(chan *culvert.Conn, 1)
	go func() {
		c, err := ln.AcceptConn()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	c, err := api.Dial(withPatience(t), "orders")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := <-accepted
	if s == nil {
		return
	}
	defer s.Close()
	if got, want := s.Peer().Attributes, map[string]string{"role": "api", "team": "shop"}; !maps.Equal(got, want) {
		t.Errorf("the dialer's attributes are %v, want %v", got, want)
	}
	if got := c.Peer(); got.Identifier != ln.Identifier() || got.Attributes["service"] != "orders" {
		t.Errorf("the listener is %+v", got)
	}

	guest := newDialer(t, culvert.DialerConfig{Config: w.member(credential.Attributes{"role": "guest"}), Routes: []string{w.relay}, ConnectTimeout: patience})
	_, err = guest.Dial(withPatience(t), "orders")
	wantCode(t, err, code.StreamDenied)

	if _, err := w.operator.Revoke(withPatience(t), authority.Revocation{Identifiers: []identity.Identifier{api.Identifier()}, Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*culvert.Conn{c, s} {
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err := c.Read(make([]byte, 1))
		if err == nil || err == io.EOF {
			t.Errorf("of one who is revoked: %v", err)
		}
	}
}

// A ticket that is used up is a reason that both say.
func TestTicketRefused(t *testing.T) {
	w := newMemberWorld(t)
	cfg := w.member(credential.Attributes{"role": "api"})
	d := newDialer(t, culvert.DialerConfig{Config: cfg, Routes: []string{w.relay}, ConnectTimeout: time.Second})
	if _, err := d.Dial(withPatience(t), "nothing"); err == nil {
		t.Error("dialled what there is not")
	}
	second := cfg
	second.Identity, second.State = newIdentity(t), filepath.Join(t.TempDir(), "state")
	late, err := culvert.NewDialer(culvert.DialerConfig{Config: second, Routes: []string{w.relay}, ConnectTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // while it enrols, and afterwards
		_, err = late.Dial(withPatience(t), "nothing")
		wantCode(t, err, code.TicketRefused)
	}
	if err := late.Close(); err == nil {
		t.Error("closing a dialer that has failed: no error")
	}
	third := second
	third.Identity, third.State = newIdentity(t), filepath.Join(t.TempDir(), "state")
	_, err = culvert.Listen(withPatience(t), culvert.ListenerConfig{Config: third, Service: "x", AllowIf: "true", Relays: []string{w.relay}})
	wantCode(t, err, code.TicketRefused)
}
