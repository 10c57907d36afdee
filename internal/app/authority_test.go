package app

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A memberClient is a member's side of a stream to an authority.
type memberClient struct {
	t      *testing.T
	stream *tunnel.Stream
	last   uint32
}

// dialAuthority opens a channel and a stream as a member does. They end with the
// test.
func dialAuthority(t *testing.T, keyFile string, to identity.Identifier, r route.Route) *memberClient {
	t.Helper()
	id, err := identity.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	local, err := channel.NewLocal(id)
	if err != nil {
		t.Fatal(err)
	}
	d := &relay.Dialer{Local: local}
	c := &channel.Caller{
		Local: local, Peer: to, Routes: 1, Settings: channel.Settings{Buffers: channel.NewBuffers(1 << 20)},
		Path: func(ctx context.Context, _ int, instance *channel.Instance, address int) (net.Conn, error) {
			return d.Path(ctx, r, to, instance, address)
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ch, err := c.Dial(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := tunnel.NewClient(ch, tunnel.Config{})
	go func() { _ = s.Run(context.Background()) }()
	t.Cleanup(func() {
		s.Close(code.OK, "")
		<-s.Done()
	})
	st, err := s.Open(ctx, tunnel.Open{Service: authority.ServiceName})
	if err != nil {
		t.Fatal(err)
	}
	return &memberClient{t: t, stream: st}
}

func (c *memberClient) ask(m credential.Request) credential.Answer {
	c.t.Helper()
	c.last++
	b, err := credential.AppendRequest(nil, c.last, m)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.stream.Write(b); err != nil {
		c.t.Fatal(err)
	}
	id, a := c.receive()
	if id != c.last {
		c.t.Fatalf("an answer of id %d, want %d", id, c.last)
	}
	return a
}

func (c *memberClient) receive() (uint32, credential.Answer) {
	c.t.Helper()
	_ = c.stream.SetReadDeadline(time.Now().Add(20 * time.Second))
	id, a, err := credential.ReadAnswer(c.stream)
	if err != nil {
		c.t.Fatal(err)
	}
	return id, a
}

// An authority behind a relay enrols, is told by its admin server what to revoke,
// sends that on, and goes on after a new key and a restart.
func TestAuthorityBehindARelay(t *testing.T) {
	t.Parallel()
	relayKey, relayID := newIdentity(t)
	key, id := newIdentity(t)
	memberKey, memberID := newIdentity(t)
	r, _, _ := startRelay(t, config.Relay{
		Common: config.Common{Identity: relayKey}, Listen: []config.Address{local(0)},
		Register: policy.List(id), Connect: policy.List(memberID),
	})
	way := routeTo(r.Addrs()[0], relayID)
	dir := t.TempDir()
	cfg := config.Authority{
		Common: config.Common{Identity: key, Admin: "unix://" + filepath.Join(dir, "admin.sock"), DrainTimeout: time.Second},
		Store:  filepath.Join(dir, "authority.db"), Relays: []route.Route{way},
	}
	start := func() (*Authority, *logBuffer, func()) {
		t.Helper()
		o, log := newObs(t, "authority")
		a, err := NewAuthority(&cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		return a, log, run(t, a.Run)
	}
	a, log, stop := start()
	eventually(t, "the authority is registered", func() bool { return a.deciding.Load() != nil && a.countRegistrations() > 0 })

	access, err := admin.ReadAccess(admin.AccessFile(cfg.Store))
	if err != nil {
		t.Fatal(err)
	}
	operator := admin.NewClient(cfg.Admin, access)
	ticket, info, err := operator.CreateTicket(t.Context(), authority.TicketRequest{Attributes: credential.Attributes{"role": "api"}})
	if err != nil || ticket.Authority != id || len(ticket.Routes) != 1 || ticket.Routes[0] != way.String() {
		t.Fatalf("ticket %s %+v, %v", ticket, info, err)
	}
	c := dialAuthority(t, memberKey, id, way)
	issued, ok := c.ask(credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret}).(credential.Issued)
	if !ok {
		t.Fatal("no credential")
	}
	v, err := credential.NewVerifier(credential.Config{Authorities: []identity.Identifier{id}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Verify(memberID, issued.Bundle, time.Now()); err != nil || got.Attributes["role"] != "api" {
		t.Errorf("%+v, %v", got, err)
	}
	if members, err := operator.Members(t.Context(), identity.Identifier{}, 10); err != nil || len(members) != 1 || members[0].Identifier != memberID || members[0].Ticket != ticket.ID {
		t.Errorf("members %+v, %v", members, err)
	}

	// A new key makes a new list, by itself.
	if _, err := identity.RotateFile(key, time.Now(), identity.Validity); err != nil {
		t.Fatal(err)
	}
	a.Reload()
	if _, l := c.receive(); l == nil {
		t.Error("no list of the new key")
	}
	if _, err := operator.Revoke(t.Context(), authority.Revocation{Identifiers: []identity.Identifier{memberID}}); err != nil {
		t.Fatal(err)
	}
	number, pushed := c.receive()
	full, ok := pushed.(credential.FullRevocations)
	if number != 0 || !ok {
		t.Fatalf("%d, %T: want a list", number, pushed)
	}
	if _, err := v.ApplyList(full.List, time.Now()); err != nil || v.Revoked(memberID) == nil || v.History(id).Len() != 2 {
		t.Errorf("the list that was pushed: %v", err)
	}
	if _, err := c.stream.Read(make([]byte, 1)); tunnel.CodeOf(err) != code.IdentityRevoked {
		t.Errorf("the stream of who is revoked ended with %v", err)
	}
	if found := log.lines(t, map[string]string{"msg": "member enrolled", "peer": memberID.String()}); len(found) != 1 {
		t.Errorf("%d lines about the member, want 1", len(found))
	}
	stop()
	before := v.List(id).Number()
	a, _, _ = start()
	eventually(t, "the authority is back", func() bool { return a.deciding.Load() != nil && a.countRegistrations() > 0 })
	if n, entries := a.deciding.Load().Number(); n <= before || entries != 1 {
		t.Errorf("list %d with %d entries after %d", n, entries, before)
	}
	again := dialAuthority(t, memberKey, id, way)
	if r, ok := again.ask(credential.Renew{}).(credential.Refused); !ok || r.Code != code.IdentityRevoked {
		t.Errorf("%+v, want identity_revoked", r)
	}
}

// Two authorities cannot have one store, and one that cannot listen leaves it.
func TestAuthorityStoreIsItsOwn(t *testing.T) {
	key, _ := newIdentity(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := config.Authority{
		Common: config.Common{Identity: key}, Store: filepath.Join(t.TempDir(), "authority.db"),
		Listen: []config.Address{local(portOf(taken.Addr()))},
	}
	newOne := func() *Authority {
		t.Helper()
		o, _ := newObs(t, "authority")
		a, err := NewAuthority(&cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if err := newOne().Listen(t.Context()); err == nil {
		t.Fatal("it listens where somebody does")
	}
	cfg.Listen = []config.Address{local(0)}
	first := newOne()
	if err := first.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, first.Run)
	if err := newOne().Listen(t.Context()); err == nil {
		t.Error("two have one store")
	}
	if _, err := OpenOffline(&cfg); err == nil {
		t.Error("the store of one that runs was opened")
	}
	if _, err := os.Stat(cfg.Store); err != nil {
		t.Error(err)
	}
}
