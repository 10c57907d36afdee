package member

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/authority/authoritytest"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A credential whose serial is revoked is noticed from the list, told once, and
// replaced after everybody has had the time to cut what it was for; whether the list
// comes by itself or was kept.
func TestRevokedCredentialIsReplaced(t *testing.T) {
	for _, tt := range []struct {
		name string
		kept bool
	}{{"pushed", false}, {"kept", true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newFakeAuthority(t)
				a.revoke(false)
				h := newMachine(t, a)
				m, stop := h.start()
				synctest.Wait()
				was := m.Status().Credential
				if tt.kept {
					if err := stop(); err != nil {
						t.Fatal(err)
					}
					a.RevokeSilently(nil, was)
					if err := h.store.SaveList(a.List()); err != nil {
						t.Fatal(err)
					}
					m, stop = h.start()
				} else {
					a.Revoke(nil, was)
				}
				synctest.Wait()
				time.Sleep(7 * time.Second)
				s := m.Status()
				if s.Revoked == nil || s.Revoked.Code != code.CredentialRevoked || s.Credential.Serial != was.Serial {
					t.Errorf("7 s later: revoked %v, want %s, and the same credential", s.Revoked, code.CredentialRevoked)
				}
				a.revoke(true, identity.Identifier{9}) // another list changes nothing
				time.Sleep(14 * time.Second)
				synctest.Wait()
				s = m.Status()
				if s.Revoked != nil || s.Credential.Serial == was.Serial {
					t.Errorf("21 s later: revoked %v, serial as before: %t, want another credential", s.Revoked, s.Credential.Serial == was.Serial)
				}
				if told := h.revoked(); len(told) != 1 || told[0] != code.CredentialRevoked {
					t.Errorf("told of %v, want once of %s", told, code.CredentialRevoked)
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A revoked identity is told, and does not ask for what it will not be given; and
// does not hammer an authority that ends its streams.
func TestRevokedIdentityAsksNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAuthority(t)
		a.revoke(false)
		h := newMachine(t, a)
		m, stop := h.start()
		synctest.Wait()
		a.revoke(true, h.id)
		a.Answer(func(credential.Request) credential.Answer {
			return credential.Refused{Code: code.IdentityRevoked, Reason: "it is revoked, for ever"}
		})
		synctest.Wait()
		opened := a.streams()
		a.cut()
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if s := m.Status(); s.Revoked == nil || s.Revoked.Code != code.IdentityRevoked {
			t.Errorf("revoked: %v, want %s", s.Revoked, code.IdentityRevoked)
		}
		if n := a.Count(authoritytest.Is[credential.Renew]); n != 0 {
			t.Errorf("asked %d times for a credential that it will not be given", n)
		}
		if n := a.streams() - opened; n < 10 || n > 60 {
			t.Errorf("%d streams in three hours, want one each some minutes", n)
		}
		if told := h.revoked(); len(told) != 1 || told[0] != code.IdentityRevoked {
			t.Errorf("told of %v, want once of %s", told, code.IdentityRevoked)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// Another authority's revocation of the identifier is told, and the own authority
// asked all the same: what it says of its members is its own business.
func TestRevokedByAnotherAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, other := newFakeAuthority(t), newFakeAuthority(t)
		h := newMachine(t, a)
		h.trusted = []identity.Identifier{other.Identifier()}
		other.revoke(false, h.id)
		m, stop := h.start()
		synctest.Wait()
		a.Say(authoritytest.Whole(t, other.List()))
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := m.Status(); s.Revoked == nil || s.Revoked.Code != code.IdentityRevoked || s.Revoked.Authority != other.Identifier() {
			t.Errorf("revoked: %v, want by the other authority", s.Revoked)
		}
		if n := a.Count(authoritytest.Is[credential.Renew]); n == 0 {
			t.Error("the own authority is not asked any more")
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}
