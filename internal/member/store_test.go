package member

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/authority/authoritytest"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// stored returns a store with a membership and a list in it.
func stored(t testing.TB) (*fakeAuthority, *machine, *Membership) {
	t.Helper()
	a := newFakeAuthority(t)
	h := newMachine(t, a)
	m := &Membership{Authority: a.Identifier(), Routes: a.ticket.Routes, Bundle: a.Issue(h.id, api), Ticket: a.ticket.ID}
	if err := h.store.Save(m); err != nil {
		t.Fatal(err)
	}
	a.revoke(false, identity.Identifier{7})
	if err := h.store.SaveList(a.List()); err != nil {
		t.Fatal(err)
	}
	return a, h, m
}

func TestStoreKeeps(t *testing.T) {
	_, h, want := stored(t)
	got, err := h.store.Load()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("Load = %+v, %v, want %+v", got, err, want)
	}
	if _, err := h.make(); err != nil {
		t.Fatal(err)
	}
	if h.verifier.Revoked(identity.Identifier{7}) == nil {
		t.Error("the list is forgotten")
	}
	want.Ticket, want.Routes = credential.TicketID{}, nil
	if err := h.store.Save(want); err != nil {
		t.Fatal(err)
	}
	if got, err = h.store.Load(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Load = %+v, %v, want %+v", got, err, want)
	}
	names, err := filepath.Glob(filepath.Join(h.store.folder, "*"))
	if err != nil || len(names) != 2 {
		t.Errorf("the folder has %v, want two files", names)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

// A file that was changed, cut at any byte or put there by somebody else is an
// error that names it: nothing that was revoked is forgotten without a word.
func TestStoreRefusesDamage(t *testing.T) {
	_, h, _ := stored(t)
	for _, path := range []string{h.store.membershipPath(), h.store.listPath(h.a.Identifier())} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		try := func(what string, b []byte) {
			t.Helper()
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := h.make(); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: New = %v, want an error that names the file", what, err)
			}
		}
		for n := range len(whole) {
			if n%7 == 0 || len(whole)-n < 10 {
				try("cut", whole[:n])
			}
		}
		for i := 0; i < len(whole); i += 5 {
			flipped := append([]byte(nil), whole...)
			flipped[i] ^= 0x10
			if path == h.store.membershipPath() && strings.Contains(string(whole), string(h.a.ticket.ID[:])) && i >= len(whole)-16 {
				continue // the ticket's id is not signed
			}
			if i < len(whole) && inRoutes(whole, h.a.ticket.Routes[0], i) {
				continue // nor are the routes
			}
			try("flipped", flipped)
		}
		try("longer", append(append([]byte(nil), whole...), 0))
		try("far too long", make([]byte, credential.MaxListLen+10))
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := h.make(); err != nil {
			t.Fatalf("whole again: %v", err)
		}
	}
}

func inRoutes(whole []byte, route string, i int) bool {
	at := strings.Index(string(whole), route)
	return at >= 0 && i >= at && i < at+len(route)
}

// What another identity has kept in a file of this one's name is not this one's.
func TestStoreOfAnother(t *testing.T) {
	_, h, m := stored(t)
	other, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := NewStore(h.store.folder, other.Identifier())
	if got, err := s.Load(); got != nil || err != nil {
		t.Errorf("Load of another identity = %+v, %v, want nothing", got, err)
	}
	if err := s.Save(m); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "and this process is") {
		t.Errorf("Load = %v, want that it is for another", err)
	}
}

// A folder that cannot be written is told, and the credential used all the same.
func TestStoreThatCannotWrite(t *testing.T) {
	a := newFakeAuthority(t)
	s := NewStore(filepath.Join(t.TempDir(), "missing"), identity.Identifier{1})
	if err := s.Save(&Membership{Authority: a.Identifier(), Bundle: a.Issue(identity.Identifier{1}, api)}); err == nil || !strings.Contains(err.Error(), "make the folder") {
		t.Errorf("Save = %v, want what to do", err)
	}
}

func FuzzParseMembership(f *testing.F) {
	_, h, m := stored(f)
	b, err := os.ReadFile(h.store.membershipPath())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseMembership(b, h.id)
		if err != nil {
			return
		}
		if got.Authority != m.Authority || string(got.Bundle) != string(m.Bundle) {
			t.Fatalf("read %+v, which nobody has signed", got)
		}
		if err := h.store.Save(got); err != nil {
			t.Fatal(err)
		}
		again, err := os.ReadFile(h.store.membershipPath())
		if err != nil || string(again) != string(b) {
			t.Fatalf("%x is read, and written as %x", b, again)
		}
	})
}

// What was revoked holds though the credential's file is gone.
func TestListsWithoutTheCredential(t *testing.T) {
	_, h, _ := stored(t)
	if err := os.Remove(h.store.membershipPath()); err != nil {
		t.Fatal(err)
	}
	m, err := h.make()
	if err != nil {
		t.Fatal(err)
	}
	if m.Bundle() != nil {
		t.Error("there is a credential that nobody has")
	}
	if h.verifier.Revoked(identity.Identifier{7}) == nil {
		t.Error("the list is forgotten with the credential's file")
	}
}

// A list of every trusted authority is kept and known again, whoever the own one is
// and whoever has brought it.
func TestListsOfOtherAuthorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, other := newFakeAuthority(t), newFakeAuthority(t)
		other.revoke(false, identity.Identifier{8})
		h := newMachine(t, a)
		h.trusted = []identity.Identifier{other.Identifier()}
		a.revoke(false, identity.Identifier{7})
		_, stop := h.start()
		synctest.Wait()
		a.Say(authoritytest.Whole(t, other.List()))
		synctest.Wait()
		if h.verifier.Revoked(identity.Identifier{8}) == nil {
			t.Error("another authority's list is not taken")
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := h.make(); err != nil {
			t.Fatal(err)
		}
		for _, id := range []identity.Identifier{{7}, {8}} {
			if h.verifier.Revoked(id) == nil {
				t.Errorf("after a restart the revocation of %s is forgotten", id)
			}
		}
		h.trusted, h.a = nil, other // another authority is the own one from now on
		other.serving.Wait()
		if _, err := h.make(); err != nil {
			t.Fatal(err)
		}
		if h.verifier.Revoked(identity.Identifier{8}) == nil {
			t.Error("the list that was kept is not known when its authority is the own one")
		}
	})
}

// What was kept holds whatever has become of the authority that has signed it: its
// key was replaced, its identifier revoked, or its history has diverged.
func TestKeptListsOutliveTheirAuthority(t *testing.T) {
	for _, tt := range []struct {
		name   string
		happen func(t *testing.T, h *machine, memory *identity.Memory)
	}{
		{"replaced", func(t *testing.T, h *machine, memory *identity.Memory) {
			next, err := h.a.Identity().Rotate(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := memory.Accept(next.History()); err != nil {
				t.Fatal(err)
			}
		}},
		{"diverged", func(t *testing.T, h *machine, memory *identity.Memory) {
			for range 2 {
				next, err := h.a.Identity().Rotate(time.Now())
				if err != nil {
					t.Fatal(err)
				}
				_ = memory.Accept(next.History()) // the second diverges
			}
		}},
		{"revoked", func(t *testing.T, h *machine, _ *identity.Memory) {
			other := newFakeAuthority(t)
			other.revoke(false, h.a.Identifier())
			if err := h.store.SaveList(other.List()); err != nil {
				t.Fatal(err)
			}
			h.trusted = []identity.Identifier{other.Identifier()}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, h, _ := stored(t)
			h.memory = identity.NewMemory(0)
			tt.happen(t, h, h.memory)
			m, err := h.make()
			if err != nil {
				t.Fatal(err)
			}
			if m.Bundle() == nil {
				t.Error("the credential is forgotten")
			}
			if h.verifier.Revoked(identity.Identifier{7}) == nil {
				t.Error("what was revoked is not any more")
			}
		})
	}
}
