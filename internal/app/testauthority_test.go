package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A testAuthority speaks an authority's side, with real signatures, on real
// channels. It keeps nothing.
type testAuthority struct {
	t     testing.TB
	id    *identity.Identity
	local *channel.Local
	table *channel.Table
	route route.Route

	mu       sync.Mutex
	lifetime time.Duration
	tickets  map[credential.TicketID]credential.Attributes // unused ones
	secrets  map[credential.TicketID]credential.Secret
	members  map[identity.Identifier]credential.Attributes
	issued   map[identity.Identifier]*credential.Credential // the newest
	renewals int
	list     *credential.List
	streams  map[*tunnel.Stream]*sync.Mutex
}

func startAuthority(t *testing.T) *testAuthority {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	a := &testAuthority{
		t: t, id: id, lifetime: time.Hour, tickets: map[credential.TicketID]credential.Attributes{}, secrets: map[credential.TicketID]credential.Secret{},
		members: map[identity.Identifier]credential.Attributes{}, issued: map[identity.Identifier]*credential.Credential{}, streams: map[*tunnel.Stream]*sync.Mutex{},
		table: channel.NewTable(channel.Settings{}, channel.Limits{}),
	}
	if a.local, err = channel.NewLocal(id); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.route = routeTo(ln.Addr(), id.Identifier())
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { a.serve(ctx, nc) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		serving.Wait()
	})
	return a
}

func (a *testAuthority) serve(ctx context.Context, nc net.Conn) {
	in, err := channel.Respond(ctx, nc, a.local, channel.PurposeChannel, channel.Options{})
	if err != nil {
		return
	}
	if in.Resumes() {
		_, _ = a.table.Resume(in, "")
		return
	}
	ch, err := a.table.Open(in, "")
	if err != nil {
		return
	}
	s := &lasting{Session: tunnel.NewServer(ch, tunnel.Config{}), ch: ch}
	var streams sync.WaitGroup
	streams.Go(func() {
		for {
			req, err := s.Accept(ctx)
			if err != nil {
				return
			}
			if req.Service != authority.ServiceName {
				req.Refuse(code.ServiceUnknown, "")
				continue
			}
			st, err := req.Accept()
			if err != nil {
				return
			}
			streams.Go(func() { a.converse(req.Peer().Identifier, st) })
		}
	})
	_ = s.Run(ctx)
	streams.Wait()
}

func (a *testAuthority) converse(peer identity.Identifier, st *tunnel.Stream) {
	a.mu.Lock()
	a.streams[st] = &sync.Mutex{}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.streams, st)
	}()
	for {
		id, r, err := credential.ReadRequest(st)
		if err != nil {
			return
		}
		a.say(st, id, a.answer(peer, r))
	}
}

func (a *testAuthority) say(st *tunnel.Stream, id uint32, m credential.Answer) {
	b, err := credential.AppendAnswer(nil, id, m)
	if err != nil {
		a.t.Error(err)
		return
	}
	a.mu.Lock()
	writing := a.streams[st]
	a.mu.Unlock()
	if writing == nil {
		return
	}
	writing.Lock()
	defer writing.Unlock()
	_, _ = st.Write(b) // the member may have gone
}

func (a *testAuthority) answer(peer identity.Identifier, r credential.Request) credential.Answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r := r.(type) {
	case credential.FetchRevocations:
		if a.list == nil || a.list.Number() == r.Since {
			return credential.Unchanged{Number: r.Since}
		}
		return credential.FullRevocations{List: a.full()}
	case credential.EnrollTicket:
		attributes, ok := a.tickets[r.ID]
		if !ok || !r.Secret.Equal(a.secrets[r.ID]) {
			return credential.Refused{Code: code.TicketRefused, Reason: "the ticket is used up"}
		}
		delete(a.tickets, r.ID)
		a.members[peer] = attributes
	case credential.Renew:
		a.renewals++
	}
	attributes, ok := a.members[peer]
	if !ok {
		return credential.Refused{Code: code.NotEnrolled, Reason: "there is no such member"}
	}
	c, b, err := credential.Issue(a.id, credential.Template{Subject: peer, NotBefore: time.Now(), Lifetime: a.lifetime, Attributes: attributes})
	if err != nil {
		a.t.Error(err)
	}
	a.issued[peer] = c
	return credential.Issued{Bundle: b}
}

func (a *testAuthority) full() []byte {
	b, err := a.list.Full()
	if err != nil {
		a.t.Error(err)
	}
	return b
}

// ticket makes a ticket for one member with those attributes.
func (a *testAuthority) ticket(attributes credential.Attributes) config.Trust {
	a.mu.Lock()
	defer a.mu.Unlock()
	ticket, err := credential.NewTicket(a.id.Identifier(), []string{a.route.String()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.tickets[ticket.ID], a.secrets[ticket.ID] = attributes, ticket.Secret
	return config.Trust{Ticket: &ticket, TicketRoutes: []route.Route{a.route}}
}

// revoke makes the next list and pushes it to all.
func (a *testAuthority) revoke(ids []identity.Identifier, credentials ...*credential.Credential) {
	a.t.Helper()
	var serials []credential.RevokedSerial
	for _, c := range credentials {
		serials = append(serials, credential.RevokedSerial{Serial: c.Serial, End: c.NotAfter})
	}
	a.mu.Lock()
	number, set := uint64(1), (*credential.Set)(nil)
	if a.list != nil {
		number, set = a.list.Number()+1, a.list.Set()
	}
	set, err := set.Add(ids, serials)
	if err == nil {
		a.list, err = credential.SignList(a.id, number, time.Now(), time.Time{}, set)
	}
	if err != nil {
		a.mu.Unlock()
		a.t.Fatal(err)
	}
	list := credential.FullRevocations{List: a.full()}
	var streams []*tunnel.Stream
	for st := range a.streams {
		streams = append(streams, st)
	}
	a.mu.Unlock()
	for _, st := range streams {
		a.say(st, 0, list)
	}
}

// of returns the newest credential of a member.
func (a *testAuthority) of(id identity.Identifier) *credential.Credential {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issued[id]
}

// cutWithin wants nc reset, or ended, within the time that a revocation may take.
func cutWithin(t *testing.T, nc net.Conn, d time.Duration) {
	t.Helper()
	watch := testenv.Start(t)
	_ = nc.SetReadDeadline(time.Now().Add(d + patience))
	_, err := nc.Read(make([]byte, 1))
	var timeout net.Error
	if took := watch.Took(); err == nil || took > d || errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("after %s: %v, want a reset within %s", took, err, d)
	}
}
