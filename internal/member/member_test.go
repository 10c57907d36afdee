package member

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/authority/authoritytest"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A ticket is used once: what it brought is kept, and the second start goes on
// with it.
func TestEnrolsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		m, stop := h.start()
		synctest.Wait()
		if s := m.Status(); !s.Connected || s.Credential == nil || s.Credential.Attributes["role"] != "api" || s.Err != nil {
			t.Fatalf("after the first start: %+v", s)
		}
		first := m.Bundle()
		if err := stop(); err != nil {
			t.Fatalf("Run = %v", err)
		}

		m, stop = h.start()
		if got := m.Bundle(); string(got) != string(first) {
			t.Error("the second start does not begin with what the first has got")
		}
		synctest.Wait()
		if n := a.Count(authoritytest.Is[credential.EnrollTicket]); n != 1 {
			t.Errorf("enrolled %d times, want once", n)
		}
		if err := stop(); err != nil {
			t.Fatalf("Run = %v", err)
		}
		if h.issued[0] != true || len(h.issued) != 1 {
			t.Errorf("told of issues %v, want the first alone", h.issued)
		}
	})
}

// A ticket that is refused ends a process that has nothing else, and says why.
func TestRefusedTicket(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*fakeAuthority, *machine)
		want   string
	}{
		{"used up", func(a *fakeAuthority, _ *machine) { a.Allow(&a.ticket, 0) }, "used up"},
		{"forged", func(a *fakeAuthority, h *machine) {
			forged := a.ticket
			forged.Secret = credential.NewSecret(make([]byte, 32))
			h.ticket = &forged
		}, "no such ticket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newFakeAuthority(t)
				h := newMachine(t, a)
				tt.change(a, h)
				m, err := h.make()
				if err != nil {
					t.Fatal(err)
				}
				err = m.Run(t.Context())
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Code != code.TicketRefused || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Run = %v, want %s with %q", err, code.TicketRefused, tt.want)
				}
				a.serving.Wait()
			})
		})
	}
}

// The answer to the first enrolment is lost with the process: the next start has
// no credential and a ticket that is used up, and goes on as the member that the
// authority knows.
func TestEnrolmentWhoseAnswerWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		a.Allow(&a.ticket, 0)
		a.Admit(h.id, api)
		m, stop := h.start()
		synctest.Wait()
		if s := m.Status(); s.Credential == nil {
			t.Errorf("no credential: %v", s.Err)
		}
		if err := stop(); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// A credential is renewed about halfway, again and again, not by all at once.
func TestRenewsHalfway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		times := map[time.Duration]bool{}
		for range 10 {
			a.Allow(&a.ticket, 1)
			h := newMachine(t, a)
			m, stop := h.start()
			synctest.Wait()
			for i := range 5 {
				was, began := m.Status().Credential.Serial, time.Now()
				for m.Status().Credential.Serial == was && time.Since(began) < time.Hour {
					time.Sleep(time.Second)
					synctest.Wait()
				}
				took := time.Since(began)
				times[took.Round(time.Second)] = true
				if took < 20*time.Minute || took > 37*time.Minute {
					t.Errorf("renewal %d after %s, want about half an hour", i, took)
				}
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if _, _, ended, fails := h.seen(); ended != 0 || len(fails) != 0 {
				t.Errorf("ended %d times, failures %v", ended, fails)
			}
		}
		if len(times) < 10 {
			t.Errorf("renewals come after %d different times", len(times))
		}
	})
}

// The authority's absence ends nothing until the credential ends, which is told
// once; and its return heals everything.
func TestAuthorityAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		m, stop := h.start()
		synctest.Wait()
		began := time.Now()
		a.setDown(true)
		a.cut()
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if _, _, ended, fails := h.seen(); ended != 0 || len(fails) == 0 || m.Bundle() == nil || m.Status().Connected {
			t.Errorf("before its end: ended %d, %d failures, status %+v", ended, len(fails), m.Status())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, _, ended, fails := h.seen(); ended != 1 || len(fails) > 250 {
			t.Errorf("an hour and %s later: ended %d times, %d attempts", time.Since(began)-time.Hour, ended, len(fails))
		}
		a.setDown(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := m.Status(); !s.Connected || !s.Credential.NotAfter.After(time.Now()) || s.Err != nil {
			t.Errorf("after its return: %+v", s)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// A renewal that is refused is tried again, and lists come all the same.
func TestRefusedRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		m, stop := h.start()
		synctest.Wait()
		a.Forget(h.id)
		time.Sleep(40 * time.Minute)
		a.revoke(true, identity.Identifier{1})
		synctest.Wait()
		if _, lists, _, fails := h.seen(); lists != 1 || len(fails) == 0 || !m.Status().Connected {
			t.Errorf("%d lists, failures %v", lists, fails)
		}
		if n := a.Count(authoritytest.Is[credential.Renew]); n < 2 || n > 100 {
			t.Errorf("asked %d times, want again and again, with pauses", n)
		}
		a.Admit(h.id, api)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := m.Status(); s.Err != nil || !s.Credential.NotAfter.After(time.Now().Add(50*time.Minute)) {
			t.Errorf("after it is a member again: %+v", s)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// Another ticket makes a member anew that the authority has forgotten; the one
// that was used does not.
func TestForgottenMemberEnrolsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		_, stop := h.start()
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		other := a.Ticket(api, a.ticket.Routes...)
		a.Forget(h.id)
		time.Sleep(2 * time.Hour)
		h.ticket = &other
		m, stop := h.start()
		synctest.Wait()
		if s := m.Status(); s.Err != nil || !s.Credential.NotAfter.After(time.Now()) {
			t.Errorf("after another ticket: %+v", s)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := a.Count(authoritytest.Is[credential.EnrollTicket]); n != 2 {
			t.Errorf("enrolled %d times, want 2", n)
		}
	})
}

// A token enrols and renews, read anew each time; one that is refused is tried
// again when the file has another.
func TestKubernetesToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		h.ticket, h.store = nil, nil
		var file atomic.Value
		set := func(token string) { file.Store(token) }
		set("old")
		h.token = func() (credential.Secret, error) {
			token := file.Load().(string)
			if token == "" {
				return credential.Secret{}, errors.New("no such file")
			}
			return credential.NewSecret([]byte(token)), nil
		}
		a.Accept("new")
		m, stop := h.start()
		time.Sleep(time.Minute)
		set("")
		time.Sleep(time.Minute)
		if m.Bundle() != nil || m.Status().Err == nil {
			t.Error("a credential without a token")
		}
		set("new")
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := m.Status(); s.Credential == nil || s.Err != nil {
			t.Fatalf("with the right token: %+v", s)
		}
		set("newer")
		a.Accept("newer")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if s := m.Status(); !s.Credential.NotAfter.After(time.Now()) || s.Err != nil {
			t.Errorf("two hours later: %+v", s)
		}
		if n := a.Count(authoritytest.Is[credential.Renew]); n != 0 {
			t.Errorf("renewed without a token %d times", n)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// Lists come by themselves and by asking, in any order, and hold after a restart
// without the authority.
func TestLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		_, stop := h.start()
		synctest.Wait()
		one, two, three, four := identity.Identifier{1}, identity.Identifier{2}, identity.Identifier{3}, identity.Identifier{4}
		wantRevoked := func(when string, ids ...identity.Identifier) {
			t.Helper()
			synctest.Wait()
			for _, id := range ids {
				if h.verifier.Revoked(id) == nil {
					t.Errorf("%s: %x is not revoked", when, id[:1])
				}
			}
		}
		a.revoke(true, one)
		wantRevoked("pushed whole", one)
		a.revoke(true, two)
		wantRevoked("pushed as a delta", one, two)
		a.revoke(false, three)
		a.revoke(true, four)
		wantRevoked("pushed as a delta to one that is missing", three, four)
		a.revoke(false, identity.Identifier{5})
		time.Sleep(6 * time.Minute)
		wantRevoked("polled", identity.Identifier{5})
		a.setDown(true)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if _, _, _, fails := h.seen(); len(fails) != 0 {
			t.Errorf("failures: %v", fails)
		}

		_, stop = h.start()
		wantRevoked("after a restart", one, two, three, four, identity.Identifier{5})
		a.setDown(false)
		a.revoke(false, identity.Identifier{6})
		time.Sleep(time.Second)
		wantRevoked("after the authority's return", identity.Identifier{6})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// What the authority says wrongly ends nothing for good, and is told.
func TestAuthorityThatErrs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(a *fakeAuthority, h *machine, r credential.Request) credential.Answer
		want   string
	}{
		{"a credential of another authority", func(a *fakeAuthority, h *machine, r credential.Request) credential.Answer {
			if authoritytest.Is[credential.EnrollTicket](r) {
				return credential.Issued{Bundle: newFakeAuthority(a.t).Issue(h.id, api)}
			}
			return nil
		}, "of another authority"},
		{"a credential for another", func(a *fakeAuthority, _ *machine, r credential.Request) credential.Answer {
			if authoritytest.Is[credential.EnrollTicket](r) {
				return credential.Issued{Bundle: a.Issue(identity.Identifier{9}, api)}
			}
			return nil
		}, "and this process is"},
		{"no credential at all", func(_ *fakeAuthority, _ *machine, r credential.Request) credential.Answer {
			if authoritytest.Is[credential.EnrollTicket](r) {
				return credential.Issued{Bundle: []byte{1, 2, 3}}
			}
			return nil
		}, "of no use"},
		{"an answer to something else", func(_ *fakeAuthority, _ *machine, r credential.Request) credential.Answer {
			if authoritytest.Is[credential.EnrollTicket](r) {
				return credential.Unchanged{Number: 1}
			}
			return nil
		}, "answers nothing that was asked"},
		{"a list that is none", func(_ *fakeAuthority, _ *machine, r credential.Request) credential.Answer {
			if authoritytest.Is[credential.FetchRevocations](r) {
				return credential.FullRevocations{List: []byte{1, 2, 3}}
			}
			return nil
		}, "taking a revocation list"},
		{"a delta that never fits", func(a *fakeAuthority, _ *machine, r credential.Request) credential.Answer {
			if authoritytest.Is[credential.FetchRevocations](r) {
				a.DropList()
				a.revoke(false, identity.Identifier{1})
				first := a.List()
				a.revoke(false, identity.Identifier{2})
				b, _ := a.List().Delta(first)
				return credential.DeltaRevocations{Delta: b}
			}
			return nil
		}, "not even the whole list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newFakeAuthority(t)
				h := newMachine(t, a)
				a.Answer(func(r credential.Request) credential.Answer { return tt.answer(a, h, r) })
				a.Allow(&a.ticket, 1000)
				m, stop := h.start()
				time.Sleep(time.Second)
				synctest.Wait()
				_, _, _, fails := h.seen()
				if len(fails) == 0 || !strings.Contains(fails[0].Error(), tt.want) {
					t.Errorf("failures %v, want %q", fails, tt.want)
				}
				a.Answer(nil)
				a.DropList()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if s := m.Status(); s.Credential == nil || !s.Connected {
					t.Errorf("after it errs no more: %+v", s)
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// An authority that is silent, in the middle of anything, is left and tried again.
func TestSilentAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		h := newMachine(t, a)
		release := make(chan struct{})
		a.Answer(func(credential.Request) credential.Answer { <-release; return nil })
		m, stop := h.start()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if _, _, _, fails := h.seen(); len(fails) == 0 || !strings.Contains(fails[0].Error(), "no answer within 2m0s") {
			t.Errorf("failures %v", fails)
		}
		a.Answer(nil)
		a.Allow(&a.ticket, 10)
		close(release)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if m.Bundle() == nil {
			t.Errorf("no credential: %v", m.Status().Err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// With a ticket of another authority a member changes sides: neither the former
// credential nor the former list is in the way.
func TestAnotherAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newFakeAuthority(t), newFakeAuthority(t)
		h := newMachine(t, a)
		_, stop := h.start()
		synctest.Wait()
		a.revoke(true, identity.Identifier{1})
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		ticket := b.ticket
		h.a, h.ticket = b, &ticket
		for range 2 {
			m, stop := h.start()
			synctest.Wait()
			if s := m.Status(); s.Credential == nil || s.Credential.Issuer != b.Identifier() || s.Err != nil {
				t.Fatalf("with another authority's ticket: %+v", s)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.Count(authoritytest.Is[credential.EnrollTicket]); n != 1 {
			t.Errorf("enrolled there %d times, want once", n)
		}
	})
}
