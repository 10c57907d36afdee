package member

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/authority/authoritytest"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeAuthority is an authority that members reach by pipes, unless it is down.
type fakeAuthority struct {
	*authoritytest.Authority
	t      testing.TB
	ticket credential.Ticket // good once, until the test says otherwise

	mu      sync.Mutex
	down    bool
	conns   map[net.Conn]struct{}
	opened  int
	serving sync.WaitGroup
}

// api are the attributes of the tests' members.
var api = credential.Attributes{"role": "api"}

func newFakeAuthority(t testing.TB) *fakeAuthority {
	t.Helper()
	a := &fakeAuthority{Authority: authoritytest.New(t), t: t, conns: map[net.Conn]struct{}{}}
	a.ticket = a.Ticket(api, "tcp://authority:1/"+a.Identifier().String())
	return a
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
		a.conns[far] = struct{}{}
		a.serving.Go(func() {
			a.Serve(peer, far)
			_ = far.Close()
			a.mu.Lock()
			defer a.mu.Unlock()
			delete(a.conns, far)
		})
		return near, nil
	}
}

// setDown says whether nobody reaches it any more. Conversations go on.
func (a *fakeAuthority) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
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

// revoke makes the next list, which is sent to all if push is set.
func (a *fakeAuthority) revoke(push bool, ids ...identity.Identifier) {
	a.t.Helper()
	if push {
		a.Revoke(ids)
	} else {
		a.RevokeSilently(ids)
	}
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
		Authorities: append([]identity.Identifier{h.a.Identifier()}, h.trusted...), Memory: h.memory,
	}); err != nil {
		h.t.Fatal(err)
	}
	add := func(change func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		change()
	}
	return New(Config{
		Identifier: h.id, Authority: h.a.Identifier(), Routes: h.a.ticket.Routes, Verifier: h.verifier, Open: h.a.open(h.id),
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
