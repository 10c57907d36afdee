package authority

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

func (f *fixture) use(peer identity.Identifier, t credential.Ticket) error {
	_, err := f.enrollTicket(peer, credential.EnrollTicket{ID: t.ID, Secret: t.Secret})
	return err
}

func TestEnrolByTicket(t *testing.T) {
	f := start(t, Config{Lifetime: 2 * time.Hour})
	ticket := f.ticket(TicketRequest{Attributes: credential.Attributes{"role": "api"}, Uses: 2})
	b, err := f.enrollTicket(identifier(1), credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret})
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.verifier().Verify(identifier(1), b, time.Now())
	if err != nil || c.Attributes["role"] != "api" || c.NotAfter.Sub(c.NotBefore) != 2*time.Hour {
		t.Errorf("credential %+v, %v", c, err)
	}
	// The answer was lost: the same ticket by the same peer is no second use.
	if err := f.use(identifier(1), ticket); err != nil {
		t.Errorf("the same peer again: %v", err)
	}
	if err := f.use(identifier(2), ticket); err != nil {
		t.Errorf("the second use: %v", err)
	}
	wantRefusal(t, f.use(identifier(3), ticket), code.TicketRefused, "used up (2 of 2)", ticket.ID.String(), "culvert ticket create")

	// Without its secret a ticket says nothing of itself, not even that it is there.
	forged := ticket
	forged.Secret = credential.NewSecret(make([]byte, 32))
	unknown, err := credential.NewTicket(f.Identifier(), routes())
	if err != nil {
		t.Fatal(err)
	}
	a, b2 := f.use(identifier(3), forged), f.use(identifier(3), unknown)
	wantRefusal(t, a, code.TicketRefused, "no such ticket")
	if a.Error() != b2.Error() {
		t.Errorf("forged: %q, unknown: %q, want the same", a, b2)
	}
	if err := f.RevokeTicket(t.Context(), ticket.ID); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, f.use(identifier(1), ticket), code.TicketRefused, "revoked")
	if _, err := f.renew(identifier(1)); err != nil {
		t.Errorf("a member whose ticket was revoked: %v", err)
	}
	if err := f.RevokeTicket(t.Context(), unknown.ID); !errors.Is(err, ErrNoTicket) {
		t.Errorf("revoking no ticket: %v", err)
	}
}

func TestTicketExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{})
		ticket := f.ticket(TicketRequest{ExpiresIn: time.Minute, Uses: 2})
		time.Sleep(59 * time.Second)
		if err := f.use(identifier(1), ticket); err != nil {
			t.Errorf("a second before its end: %v", err)
		}
		time.Sleep(time.Second)
		wantRefusal(t, f.use(identifier(2), ticket), code.TicketRefused, "expired at")
		wantRefusal(t, f.use(identifier(1), ticket), code.TicketRefused, "expired at")
		time.Sleep(keepTickets)
		if err := f.tidy(time.Now()); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, f.use(identifier(2), ticket), code.TicketRefused, "has forgotten it")
		if list, err := f.Tickets(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("tickets %v, %v", list, err)
		}
		if _, err := f.renew(identifier(1)); err != nil {
			t.Errorf("a member by ticket after a week: %v", err)
		}
	})
}

func TestTicketRequests(t *testing.T) {
	f := start(t, Config{})
	long := credential.Attributes{}
	for i := range credential.MaxAttributes {
		long[string(rune('a'+i%26))+string(rune('a'+i/26))] = "v"
	}
	big := credential.Attributes{}
	for name := range long {
		big[name] = string(bytesOf('x', credential.MaxAttribute))
	}
	for _, tt := range []struct {
		r    TicketRequest
		want string
	}{
		{TicketRequest{Uses: -1}, "-1 uses"},
		{TicketRequest{Uses: MaxTicketUses + 1}, "uses, want 1 to"},
		{TicketRequest{ExpiresIn: time.Millisecond}, "expire in 1ms"},
		{TicketRequest{ExpiresIn: MaxTicketTime + time.Second}, "want 1s to"},
		{TicketRequest{Attributes: credential.Attributes{"Role": "x"}}, "a name has only"},
		{TicketRequest{Attributes: credential.Attributes{"k8s.pod": "x"}}, "Kubernetes token has proven"},
		{TicketRequest{Attributes: big}, "fewer or shorter attributes"},
	} {
		_, _, err := f.CreateTicket(t.Context(), tt.r)
		wantText(t, err, "making a ticket", tt.want)
	}
	f.restart(Config{Routes: []string{}})
	_, _, err := f.CreateTicket(t.Context(), TicketRequest{})
	wantText(t, err, "set routes")
}

func bytesOf(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

// Of many that use a ticket at once as many get in as it says, and no more.
func TestLastUseOfATicket(t *testing.T) {
	f := start(t, Config{})
	const uses, peers = 5, 64
	ticket := f.ticket(TicketRequest{Uses: uses})
	var in, out atomic.Int64
	var wg sync.WaitGroup
	for i := range peers {
		wg.Go(func() {
			var r *Refusal
			switch err := f.use(identifier(i+1), ticket); {
			case err == nil:
				in.Add(1)
			case errors.As(err, &r) && r.Code == code.TicketRefused:
				out.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	members, err := f.Members(t.Context(), identity.Identifier{}, 0)
	list, err2 := f.Tickets(t.Context())
	if in.Load() != uses || out.Load() != peers-uses || len(members) != uses || len(list) != 1 || list[0].Used != uses {
		t.Errorf("%d in, %d refused, %d members, tickets %+v, %v: want %d in", in.Load(), out.Load(), len(members), list, errors.Join(err, err2), uses)
	}
}

func TestRenew(t *testing.T) {
	f := start(t, Config{})
	_, err := f.renew(identifier(1))
	wantRefusal(t, err, code.NotEnrolled, identifier(1).String(), "culvert ticket create")
	first := f.enrol(identifier(1), credential.Attributes{"role": "api"})
	b, err := f.renew(identifier(1))
	if err != nil {
		t.Fatal(err)
	}
	if c := inspect(t, b); c.Serial == first.Serial || c.Attributes["role"] != "api" || c.Subject != identifier(1) {
		t.Errorf("renewed %+v", c)
	}
	f.revokeID(identifier(1))
	_, err = f.renew(identifier(1))
	wantRefusal(t, err, code.IdentityRevoked, "for ever")
	wantRefusal(t, f.use(identifier(1), f.ticket(TicketRequest{})), code.IdentityRevoked)
}

// A member that renews all the time is stopped before its record grows, and goes
// on when its credentials have ended.
func TestOutstandingCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{Lifetime: time.Minute})
		f.enrol(identifier(1), nil)
		for range maxOutstanding - 1 {
			if _, err := f.renew(identifier(1)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := f.renew(identifier(1))
		wantRefusal(t, err, code.Limit, "256 credentials")
		time.Sleep(time.Minute + maxOutstanding*time.Second + credential.DropAfter) // each begins a second later
		if _, err := f.renew(identifier(1)); err != nil {
			t.Error(err)
		}
		if m, err := f.Members(t.Context(), identity.Identifier{}, 0); err != nil || len(m) != 1 || len(m[0].Serials) != 1 {
			t.Errorf("members %+v, %v", m, err)
		}
	})
}

// fakeTokens takes tokens that are the subject.
type fakeTokens func(ctx context.Context, token string) (string, credential.Attributes, error)

func (f fakeTokens) Verify(ctx context.Context, token string) (string, credential.Attributes, error) {
	return f(ctx, token)
}

func subjectTokens(_ context.Context, token string) (string, credential.Attributes, error) {
	if token == "bad" {
		return "", nil, errors.New("the token expired at noon: have the kubelet write another")
	}
	return token, credential.Attributes{"k8s.pod": "pod"}, nil
}

func (f *fixture) token(peer identity.Identifier, token string) error {
	f.t.Helper()
	_, err := f.enrollKubernetes(f.t.Context(), peer, credential.EnrollKubernetes{Token: credential.NewSecret([]byte(token))})
	return err
}

func TestEnrolByToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{})
		wantRefusal(t, f.token(identifier(1), "pod-a"), code.TokenRefused, "takes no Kubernetes tokens")
		f.restart(Config{Tokens: fakeTokens(subjectTokens)})
		wantRefusal(t, f.token(identifier(1), "bad"), code.TokenRefused, "expired at noon")
		wantRefusal(t, f.token(identifier(1), "two\nlines"), code.TokenRefused, "control characters")
		for i := range MaxPerSubject {
			for range 2 { // the second time is a renewal
				if err := f.token(identifier(i+1), "pod-a"); err != nil {
					t.Fatal(err)
				}
			}
		}
		wantRefusal(t, f.token(identifier(100), "pod-a"), code.Limit, "16 members", "pod-a")
		if err := f.token(identifier(100), "pod-"); err != nil {
			t.Errorf("a subject that begins another: %v", err)
		}
		_, err := f.renew(identifier(1))
		wantRefusal(t, err, code.TokenRefused, "renews by showing one again")

		// Who moves to another subject makes room, and so does who has ended.
		if err := f.token(identifier(1), "pod-b"); err != nil {
			t.Fatal(err)
		}
		if err := f.token(identifier(101), "pod-a"); err != nil {
			t.Errorf("after one has moved on: %v", err)
		}
		time.Sleep(time.Hour + 10*time.Second + credential.DropAfter)
		if err := f.tidy(time.Now()); err != nil {
			t.Fatal(err)
		}
		if m, err := f.Members(t.Context(), identity.Identifier{}, 0); err != nil || len(m) != 0 {
			t.Errorf("members %+v, %v after their tokens' time", m, err)
		}
		if err := f.token(identifier(102), "pod-a"); err != nil {
			t.Error(err)
		}
		f.restart(Config{Tokens: fakeTokens(subjectTokens), RenewWithoutToken: true})
		if _, err := f.renew(identifier(102)); err != nil {
			t.Errorf("renewing without a token where that is allowed: %v", err)
		}
	})
}

// A verifier that never answers holds a member for a time, and others not.
func TestTokensThatTakeForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{Tokens: fakeTokens(func(ctx context.Context, _ string) (string, credential.Attributes, error) {
			<-ctx.Done()
			return "", nil, ctx.Err()
		})})
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 2 * maxTokens {
			wg.Go(func() {
				var r *Refusal
				if err := f.token(identifier(i+1), "pod"); !errors.As(err, &r) {
					t.Errorf("%v, want a refusal", err)
				}
			})
		}
		if ticket := f.ticket(TicketRequest{}); f.use(identifier(200), ticket) != nil {
			t.Error("tokens hold up tickets")
		}
		wg.Wait()
		if took := time.Since(began); took > 2*tokenTime {
			t.Errorf("it took %s", took)
		}
	})
}

func TestAuthorityKeyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, err := identity.NewFor(time.Now(), identity.MinValidity)
		if err != nil {
			t.Fatal(err)
		}
		f := start(t, Config{Identity: id})
		f.enrol(identifier(1), nil)
		time.Sleep(identity.MinValidity)
		_, err = f.renew(identifier(1))
		wantRefusal(t, err, code.AuthorityExpired, "does not hold")
		_, err = f.Revoke(t.Context(), Revocation{Identifiers: []identity.Identifier{identifier(1)}})
		wantText(t, err, "revoking")
		if _, entries := f.Number(); entries != 0 {
			t.Error("something was revoked that no list says")
		}
	})
}

// Of the credentials of one member each begins later than the one before, however fast
// they are asked for: which one is the newest is never in doubt.
func TestEachCredentialBeginsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{})
		last := f.enrol(identifier(1), credential.Attributes{"role": "admin"})
		for i := range 8 {
			var is *credential.Credential
			if i%2 == 0 {
				is = f.enrol(identifier(1), credential.Attributes{"role": "api"})
			} else {
				b, err := f.renew(identifier(1))
				if err != nil {
					t.Fatal(err)
				}
				is = inspect(t, b)
			}
			if !is.NotBefore.After(last.NotBefore) {
				t.Errorf("credential %d begins at %s, the one before at %s", i+1, is.NotBefore, last.NotBefore)
			}
			last = is
		}
		if ahead := time.Until(last.NotBefore); ahead > 10*time.Second {
			t.Errorf("the last begins in %s, want within moments", ahead)
		}
		if other := f.enrol(identifier(2), nil); other.NotBefore.After(time.Now()) {
			t.Errorf("another member's begins at %s, and it is %s", other.NotBefore, time.Now())
		}
	})
}

// A clock that was set back within what is granted for clocks keeps the order; one
// that was far ahead does not keep members waiting for the time that it said.
func TestNextBegin(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := (*member)(nil).nextBegin(now); !got.Equal(now) {
		t.Errorf("a new member's begins at %s, want now", got)
	}
	for _, tt := range []struct{ renewed, want time.Duration }{
		{-time.Hour, 0},
		{-time.Second, 0},
		{0, time.Second},
		{time.Minute, time.Minute + time.Second},
		{mostAhead, mostAhead + time.Second},
		{mostAhead + time.Second, 0},
		{24 * time.Hour, 0},
	} {
		m := &member{renewed: now.Add(tt.renewed)}
		if got := m.nextBegin(now).Sub(now); got != tt.want {
			t.Errorf("after one that begins in %s, the next begins in %s, want %s", tt.renewed, got, tt.want)
		}
	}
	if mostAhead+time.Second >= credential.DefaultSkew {
		t.Errorf("a credential may begin %s ahead, and %s are granted for clocks", mostAhead, credential.DefaultSkew)
	}
}

// A member that has not renewed for long is forgotten, and may enrol anew; a pod's
// member soon after its last credential. What was revoked stays so.
func TestMembersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{Tokens: fakeTokens(subjectTokens), RenewWithoutToken: true, ForgetAfter: 30 * 24 * time.Hour})
		tidy := func() {
			t.Helper()
			if err := f.tidy(time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		wantMember := func(when string, n uint32, want bool) {
			t.Helper()
			if got := f.IsMember(identifier(int(n))); got != want {
				t.Errorf("%s: member %d: %t, want %t", when, n, got, want)
			}
		}
		gone, here := f.enrol(identifier(1), nil), f.enrol(identifier(2), nil)
		if err := f.token(identifier(3), "pod-a"); err != nil {
			t.Fatal(err)
		}
		f.enrol(identifier(4), nil)
		f.revokeID(identifier(4))
		if _, err := f.Revoke(t.Context(), Revocation{Serials: []credential.Serial{gone.Serial}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24*time.Hour + 59*time.Minute)
		tidy()
		wantMember("an hour before a day after its end", 3, true)
		time.Sleep(2 * time.Minute)
		tidy()
		wantMember("a day after its end", 3, false)
		for range 29 {
			if _, err := f.renew(here.Subject); err != nil {
				t.Fatal(err)
			}
			time.Sleep(24 * time.Hour)
		}
		tidy()
		wantMember("after 30 days", 1, false)
		wantMember("after 30 days", 2, true)
		_, err := f.renew(identifier(1))
		wantRefusal(t, err, code.NotEnrolled)
		f.enrol(identifier(1), nil)
		wantRefusal(t, f.use(identifier(4), f.ticket(TicketRequest{})), code.IdentityRevoked)
	})
}
