package member

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeAuthority speaks the authority's side over pipes, with real signatures. It
// keeps nothing, and does what the test says.
type fakeAuthority struct {
	t        testing.TB
	id       *identity.Identity
	lifetime time.Duration

	mu       sync.Mutex
	down     bool
	conns    map[net.Conn]*sync.Mutex // for writing
	members  map[identity.Identifier]bool
	ticket   credential.Ticket
	uses     int
	token    string // that is taken; "": none is
	list     *credential.List
	requests []credential.Request
	opened   int // streams
	// answer takes a request's answer over, if it does not return nil.
	answer func(r credential.Request) credential.Answer

	serving sync.WaitGroup
}

func newFakeAuthority(t testing.TB) *fakeAuthority {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := credential.NewTicket(id.Identifier(), []string{"tcp://authority:1/" + id.Identifier().String()})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeAuthority{
		t: t, id: id, lifetime: time.Hour, conns: map[net.Conn]*sync.Mutex{}, members: map[identity.Identifier]bool{},
		ticket: ticket, uses: 1,
	}
}

// open is a Config's Open of a member with that identifier.
func (a *fakeAuthority) open(peer identity.Identifier) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.down {
			return nil, errors.New("nobody is there")
		}
		near, far := net.Pipe()
		a.opened++
		a.conns[far] = &sync.Mutex{}
		a.serving.Go(func() { a.serve(peer, far) })
		return near, nil
	}
}

func (a *fakeAuthority) serve(peer identity.Identifier, conn net.Conn) {
	defer conn.Close()
	for {
		id, r, err := credential.ReadRequest(conn)
		if err != nil {
			a.mu.Lock()
			delete(a.conns, conn)
			a.mu.Unlock()
			return
		}
		a.mu.Lock()
		a.requests = append(a.requests, r)
		answer := a.answer
		a.mu.Unlock()
		var m credential.Answer
		if answer != nil {
			m = answer(r)
		}
		if m == nil {
			m = a.decide(peer, r)
		}
		a.say(conn, id, m)
		if no, ok := m.(credential.Refused); ok && no.Code == code.IdentityRevoked {
			a.mu.Lock()
			delete(a.conns, conn)
			a.mu.Unlock()
			return
		}
	}
}

func (a *fakeAuthority) say(conn net.Conn, id uint32, m credential.Answer) {
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

// decide answers as an authority does.
func (a *fakeAuthority) decide(peer identity.Identifier, r credential.Request) credential.Answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r := r.(type) {
	case credential.EnrollTicket:
		switch {
		case r.ID != a.ticket.ID || !r.Secret.Equal(a.ticket.Secret):
			return credential.Refused{Code: code.TicketRefused, Reason: "there is no such ticket"}
		case a.uses == 0:
			return credential.Refused{Code: code.TicketRefused, Reason: "the ticket is used up"}
		}
		a.uses--
		a.members[peer] = true
	case credential.EnrollKubernetes:
		if a.token == "" || string(r.Token.Reveal()) != a.token {
			return credential.Refused{Code: code.TokenRefused, Reason: "the token is not accepted"}
		}
		a.members[peer] = true
	case credential.FetchRevocations:
		if a.list == nil || a.list.Number() == r.Since {
			return credential.Unchanged{Number: r.Since}
		}
		return credential.FullRevocations{List: a.full(a.list)}
	}
	if !a.members[peer] {
		return credential.Refused{Code: code.NotEnrolled, Reason: "there is no such member"}
	}
	return credential.Issued{Bundle: a.issue(peer)}
}

func (a *fakeAuthority) issue(peer identity.Identifier) []byte {
	_, b, err := credential.Issue(a.id, credential.Template{
		Subject: peer, NotBefore: time.Now(), Lifetime: a.lifetime, Attributes: credential.Attributes{"role": "api"},
	})
	if err != nil {
		a.t.Error(err)
	}
	return b
}

func (a *fakeAuthority) full(l *credential.List) []byte {
	b, err := l.Full()
	if err != nil {
		a.t.Error(err)
	}
	return b
}

// revoke makes the next list and, if push is set, sends the delta to it to all.
func (a *fakeAuthority) revoke(push bool, ids ...identity.Identifier) { a.revokeAll(push, ids, nil) }

// revokeSerials is revoke for credentials.
func (a *fakeAuthority) revokeSerials(push bool, serials ...credential.RevokedSerial) {
	a.revokeAll(push, nil, serials)
}

func (a *fakeAuthority) revokeAll(push bool, ids []identity.Identifier, serials []credential.RevokedSerial) {
	a.mu.Lock()
	number, set, was := uint64(1), (*credential.Set)(nil), a.list
	if was != nil {
		number, set = was.Number()+1, was.Set()
	}
	set, err := set.Add(ids, serials)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.list, err = credential.SignList(a.id, number, time.Now(), time.Time{}, set); err != nil {
		a.t.Fatal(err)
	}
	m := credential.Answer(credential.FullRevocations{List: a.full(a.list)})
	if was != nil {
		b, err := a.list.Delta(was)
		if err != nil {
			a.t.Fatal(err)
		}
		m = credential.DeltaRevocations{Delta: b}
	}
	var conns []net.Conn
	for c := range a.conns {
		conns = append(conns, c)
	}
	a.mu.Unlock()
	if push {
		for _, c := range conns {
			a.say(c, 0, m)
		}
	}
}

// set changes the authority.
func (a *fakeAuthority) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// cut ends all conversations.
func (a *fakeAuthority) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		_ = c.Close()
	}
}

// streams returns how many were opened.
func (a *fakeAuthority) streams() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened
}

// asked returns how many requests of r's type there were.
func (a *fakeAuthority) asked(like func(credential.Request) bool) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.requests {
		if like(r) {
			n++
		}
	}
	return n
}

func isA[R credential.Request](r credential.Request) bool {
	_, ok := r.(R)
	return ok
}

// A machine is where a member's process starts, and starts again.
type machine struct {
	t        testing.TB
	a        *fakeAuthority
	id       identity.Identifier
	store    *Store
	verifier *credential.Verifier // of the last process
	ticket   *credential.Ticket
	token    func() (credential.Secret, error)
	timing   Timing
	trusted  []identity.Identifier // beside the own authority
	memory   *identity.Memory      // that outlives the process; nil: none does

	mu     sync.Mutex
	issued []bool // whether each was the first
	lists  int
	ended  int
	told   []code.Code // of revocations
	fails  []error
}

func newMachine(t testing.TB, a *fakeAuthority) *machine {
	t.Helper()
	id, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ticket := a.ticket
	return &machine{t: t, a: a, id: id.Identifier(), store: NewStore(t.TempDir(), id.Identifier()), ticket: &ticket}
}

// make makes the process's member.
func (h *machine) make() (*Member, error) {
	var err error
	if h.verifier, err = credential.NewVerifier(credential.Config{
		Authorities: append([]identity.Identifier{h.a.id.Identifier()}, h.trusted...), Memory: h.memory,
	}); err != nil {
		h.t.Fatal(err)
	}
	add := func(change func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		change()
	}
	return New(Config{
		Identifier: h.id, Authority: h.a.id.Identifier(), Routes: h.a.ticket.Routes, Verifier: h.verifier, Open: h.a.open(h.id),
		Store: h.store, Ticket: h.ticket, Token: h.token, Timing: h.timing,
		Trace: &Trace{
			Issued: func(_ *credential.Credential, _ []byte, first bool) {
				add(func() { h.issued = append(h.issued, first) })
			},
			Listed: func(*credential.List) { add(func() { h.lists++ }) },
			Failed: func(err error) { add(func() { h.fails = append(h.fails, err) }) },
			Ended:  func(*credential.Credential) { add(func() { h.ended++ }) },
			Revoked: func(_ *credential.Credential, why *credential.Error) {
				add(func() { h.told = append(h.told, why.Code) })
			},
			Unkept: func(err error) { h.t.Errorf("not kept: %v", err) },
		},
	})
}

// start starts the process; stop ends it, and returns what Run returned.
func (h *machine) start() (m *Member, stop func() error) {
	h.t.Helper()
	m, err := h.make()
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	return m, func() error {
		cancel()
		err := <-done
		h.a.serving.Wait()
		return err
	}
}

// revoked returns what the trace was told of revocations.
func (h *machine) revoked() []code.Code {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told
}

// seen returns counts of what the trace was told.
func (h *machine) seen() (issued, lists, ended int, fails []error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.issued), h.lists, h.ended, h.fails
}
