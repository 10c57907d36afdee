// Package authoritytest owns an authority for tests: it speaks an authority's side of the
// messages with members (docs/protocol.md, section 8.4), with real signatures, over
// whatever conns a test has. It keeps nothing, and does what the test says. It is for
// tests only.
package authoritytest

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// An Authority has members, tickets and a revocation list. It is made by [New]; its
// methods may be called by several goroutines at a time.
type Authority struct {
	t  testing.TB
	id *identity.Identity

	mu       sync.Mutex
	lifetime time.Duration
	tickets  map[credential.TicketID]*ticket
	token    string // that is taken; "": none is
	members  map[identity.Identifier]credential.Attributes
	issued   map[identity.Identifier]*credential.Credential // the newest
	list     *credential.List
	requests []credential.Request
	answer   func(credential.Request) credential.Answer
	conns    map[io.ReadWriter]*sync.Mutex // for writing
}

// A ticket is one that the authority has made.
type ticket struct {
	secret     credential.Secret
	attributes credential.Attributes
	uses       int // that are left
}

// New returns an authority whose identity is an hour old, and whose credentials hold for
// an hour. What it cannot do is the test's error.
func New(t testing.TB) *Authority {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{
		t: t, id: id, lifetime: time.Hour, tickets: map[credential.TicketID]*ticket{}, members: map[identity.Identifier]credential.Attributes{},
		issued: map[identity.Identifier]*credential.Credential{}, conns: map[io.ReadWriter]*sync.Mutex{},
	}
}

// Identity returns what it signs with.
func (a *Authority) Identity() *identity.Identity { return a.id }

// Identifier returns the identity's.
func (a *Authority) Identifier() identity.Identifier { return a.id.Identifier() }

// SetLifetime has credentials hold for d from now on.
func (a *Authority) SetLifetime(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lifetime = d
}

// Ticket makes a ticket for one member with those attributes, with routes to the authority.
func (a *Authority) Ticket(attributes credential.Attributes, routes ...string) credential.Ticket {
	a.t.Helper()
	made, err := credential.NewTicket(a.Identifier(), routes)
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tickets[made.ID] = &ticket{secret: made.Secret, attributes: attributes, uses: 1}
	return made
}

// Allow lets a ticket that it has made be used so often from now on.
func (a *Authority) Allow(t *credential.Ticket, uses int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tickets[t.ID].uses = uses
}

// Accept has that Kubernetes token make members from now on, and no other; "": none.
func (a *Authority) Accept(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

// Admit makes a member, whatever it has shown.
func (a *Authority) Admit(id identity.Identifier, attributes credential.Attributes) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members[id] = attributes
}

// Forget takes a member out: it is given no other credential.
func (a *Authority) Forget(id identity.Identifier) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.members, id)
}

// Answer has f answer requests from now on; where it returns nil, or is nil, the authority
// answers as one does. F is called by whoever serves.
func (a *Authority) Answer(f func(credential.Request) credential.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

// Count returns how many requests there were that are like that.
func (a *Authority) Count(like func(credential.Request) bool) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.requests {
		if like(r) {
			n++
		}
	}
	return n
}

// Is reports whether a request is of a type, for [Authority.Count].
func Is[R credential.Request](r credential.Request) bool {
	_, ok := r.(R)
	return ok
}

// Issued returns the newest credential of a member, nil if it has none.
func (a *Authority) Issued(id identity.Identifier) *credential.Credential {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issued[id]
}

// Issue issues a credential for whomever, a member or not, and returns its bundle.
func (a *Authority) Issue(id identity.Identifier, attributes credential.Attributes) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issueLocked(id, attributes)
}

func (a *Authority) issueLocked(id identity.Identifier, attributes credential.Attributes) []byte {
	c, b, err := credential.Issue(a.id, credential.Template{Subject: id, NotBefore: time.Now(), Lifetime: a.lifetime, Attributes: attributes})
	if err != nil {
		a.t.Error(err)
		return nil
	}
	a.issued[id] = c
	return b
}

// Serve answers the peer's requests on conn until that cannot be read any more, or the
// peer was told that its identity is revoked. The caller closes conn.
func (a *Authority) Serve(peer identity.Identifier, conn io.ReadWriter) {
	a.mu.Lock()
	a.conns[conn] = &sync.Mutex{}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.conns, conn)
	}()
	for {
		id, r, err := credential.ReadRequest(conn)
		if err != nil {
			return
		}
		m := a.decide(peer, r)
		a.say(conn, id, m)
		if no, ok := m.(credential.Refused); ok && no.Code == code.IdentityRevoked {
			return
		}
	}
}

// Say sends to all what they have not asked for.
func (a *Authority) Say(m credential.Answer) {
	a.mu.Lock()
	var conns []io.ReadWriter
	for c := range a.conns {
		conns = append(conns, c)
	}
	a.mu.Unlock()
	for _, c := range conns {
		a.say(c, 0, m)
	}
}

func (a *Authority) say(conn io.ReadWriter, id uint32, m credential.Answer) {
	b, err := credential.AppendAnswer(nil, id, m)
	if err != nil {
		a.t.Error(err)
		return
	}
	a.mu.Lock()
	writing := a.conns[conn]
	a.mu.Unlock()
	if writing == nil {
		return
	}
	writing.Lock()
	defer writing.Unlock()
	_, _ = conn.Write(b) // the member may have gone
}

// decide answers as the test says, or as an authority does.
func (a *Authority) decide(peer identity.Identifier, r credential.Request) credential.Answer {
	a.mu.Lock()
	a.requests = append(a.requests, r)
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		if m := answer(r); m != nil {
			return m
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r := r.(type) {
	case credential.EnrollTicket:
		t := a.tickets[r.ID]
		switch {
		case t == nil || !r.Secret.Equal(t.secret):
			return credential.Refused{Code: code.TicketRefused, Reason: "there is no such ticket"}
		case t.uses == 0:
			return credential.Refused{Code: code.TicketRefused, Reason: "the ticket is used up"}
		}
		t.uses--
		a.members[peer] = t.attributes
	case credential.EnrollKubernetes:
		if a.token == "" || string(r.Token.Reveal()) != a.token {
			return credential.Refused{Code: code.TokenRefused, Reason: "the token is not accepted"}
		}
		a.members[peer] = nil
	case credential.FetchRevocations:
		if a.list == nil || a.list.Number() == r.Since {
			return credential.Unchanged{Number: r.Since}
		}
		return Whole(a.t, a.list)
	}
	attributes, ok := a.members[peer]
	if !ok {
		return credential.Refused{Code: code.NotEnrolled, Reason: "there is no such member"}
	}
	return credential.Issued{Bundle: a.issueLocked(peer, attributes)}
}
