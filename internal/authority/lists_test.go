package authority

import (
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// apply brings a verifier to the newest list, and returns the kind of answer.
func (f *fixture) apply(t testing.TB, v *credential.Verifier) string {
	t.Helper()
	held := uint64(0)
	if l := v.List(f.Identifier()); l != nil {
		held = l.Number()
	}
	return f.applySince(t, v, held)
}

func (f *fixture) applySince(t testing.TB, v *credential.Verifier, held uint64) string {
	t.Helper()
	answer, err := f.since(f.list(), held)
	if err != nil {
		t.Fatal(err)
	}
	kind := ""
	switch m := answer.(type) {
	case credential.Unchanged:
		return "unchanged"
	case credential.FullRevocations:
		kind = "full"
		_, err = v.ApplyList(m.List, time.Now())
	case credential.DeltaRevocations:
		kind = "delta"
		_, err = v.ApplyDelta(m.Delta, time.Now())
	}
	if err != nil {
		t.Fatalf("from list %d by %s: %v", held, kind, err)
	}
	return kind
}

func TestRevoke(t *testing.T) {
	f := start(t, Config{})
	c := f.enrol(identifier(1), nil)
	v := f.verifier()
	if kind := f.apply(t, v); kind != "full" {
		t.Errorf("to one who has nothing: %s", kind)
	}
	if kind := f.apply(t, v); kind != "unchanged" {
		t.Errorf("to one who has it: %s", kind)
	}
	r, err := f.Revoke(t.Context(), Revocation{Identifiers: []identity.Identifier{identifier(2), identifier(2)}, Serials: []credential.Serial{c.Serial}, Reason: "lost"})
	if err != nil || r.Added != 2 || r.Already != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, entries := f.Number(); got != r.Number || entries != 2 {
		t.Errorf("list %d with %d entries, want %d with 2", got, entries, r.Number)
	}
	f.apply(t, v)
	if err := v.Revoked(identifier(2)); err == nil {
		t.Error("the identifier is not revoked for the verifier")
	}
	var e *credential.Error
	b, err := f.renew(identifier(1))
	if err != nil {
		t.Fatalf("whose credential alone is revoked: %v", err)
	}
	if _, err := v.Verify(identifier(1), b, time.Now()); err != nil {
		t.Errorf("the credential after it: %v", err)
	}
	if err := v.Check(c, time.Now()); !errors.As(err, &e) || e.Code != code.CredentialRevoked && e.Code != code.SignerReplaced {
		t.Errorf("the revoked credential: %v", err)
	}
	again, err := f.Revoke(t.Context(), Revocation{Identifiers: []identity.Identifier{identifier(2)}, Serials: []credential.Serial{c.Serial}})
	if err != nil || again != (Revoked{r.Number, 0, 2}) {
		t.Errorf("revoking again: %+v, %v: want the same list", again, err)
	}
}

func TestRevokeRefusals(t *testing.T) {
	f := start(t, Config{})
	number, _ := f.Number()
	for _, tt := range []struct {
		r    Revocation
		want string
	}{
		{Revocation{}, "nothing to revoke"},
		{Revocation{Identifiers: []identity.Identifier{{}}}, "all zero"},
		{Revocation{Identifiers: []identity.Identifier{f.Identifier()}}, "is the authority itself"},
		{Revocation{Identifiers: []identity.Identifier{identifier(1)}, Reason: "a\nb"}, "control characters"},
		{Revocation{Identifiers: []identity.Identifier{identifier(1)}, Serials: []credential.Serial{{1}}}, "no credential 01000000000000000000000000000000"},
	} {
		_, err := f.Revoke(t.Context(), tt.r)
		wantText(t, err, "revoking: ", tt.want)
	}
	if n, entries := f.Number(); n != number || entries != 0 {
		t.Errorf("list %d with %d entries: a refused revocation has changed something", n, entries)
	}
	// The end of the authority itself, where it is meant.
	f.enrol(identifier(1), nil)
	if _, err := f.Revoke(t.Context(), Revocation{Identifiers: []identity.Identifier{f.Identifier()}, Own: true}); err != nil {
		t.Fatal(err)
	}
	_, err := f.renew(identifier(1))
	wantRefusal(t, err, code.IdentityRevoked)
}

// Whoever holds any list, however old, comes to the newest one, whatever was
// revoked, has ended and was restarted since, and by deltas where they are
// shorter.
func TestListsModel(t *testing.T) {
	deltas := 0
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, Config{Lifetime: time.Minute})
			var credentials []*credential.Credential
			verifiers := []*credential.Verifier{f.verifier()}
			next, revoked := 1, map[identity.Identifier]bool{}
			for range rapid.IntRange(1, 25).Draw(rt, "steps") {
				switch rapid.IntRange(0, 6).Draw(rt, "step") {
				case 0:
					credentials = append(credentials, f.enrol(identifier(next), nil))
					next++
				case 1:
					revoked[identifier(next)] = true
					f.revokeID(identifier(next))
					next++
				case 2:
					if len(credentials) > 0 {
						c := credentials[rapid.IntRange(0, len(credentials)-1).Draw(rt, "which")]
						_, _ = f.Revoke(t.Context(), Revocation{Serials: []credential.Serial{c.Serial}}) // it may be too old
					}
				case 3:
					time.Sleep(time.Duration(rapid.IntRange(1, 4000).Draw(rt, "seconds")) * time.Second)
				case 4:
					if err := f.relist(time.Now()); err != nil {
						t.Fatal(err)
					}
				case 5:
					f.restart(Config{Lifetime: time.Minute})
				case 6:
					v := f.verifier()
					f.apply(t, v)
					verifiers = append(verifiers, v)
				}
			}
			want := f.list().list.Set().Hash()
			for _, v := range verifiers {
				if f.apply(t, v) == "delta" {
					deltas++
				}
				if l := v.List(f.Identifier()); l.Set().Hash() != want {
					t.Errorf("a verifier has other entries")
				}
				for id := range revoked {
					if v.Revoked(id) == nil {
						t.Errorf("%s is not revoked for a verifier", id)
					}
				}
			}
			if err := f.store.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	if deltas == 0 {
		t.Error("no delta was ever made")
	}
}

// A credential that was revoked, and has ended, does not come back: a delta from
// the lists that had it would lead astray.
func TestRevokeWhatWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{Lifetime: time.Minute})
		c := f.enrol(identifier(1), nil)
		revoke := Revocation{Serials: []credential.Serial{c.Serial}}
		if _, err := f.Revoke(t.Context(), revoke); err != nil {
			t.Fatal(err)
		}
		v := f.verifier()
		f.apply(t, v)
		time.Sleep(time.Minute + credential.DropAfter)
		if err := f.relist(time.Now()); err != nil {
			t.Fatal(err)
		}
		_, err := f.Revoke(t.Context(), revoke)
		wantText(t, err, "could still hold")
		if err := f.relist(time.Now()); err != nil {
			t.Fatal(err)
		}
		f.apply(t, v)
		if n := v.List(f.Identifier()).Set().Len(); n != 0 {
			t.Errorf("the verifier has %d entries", n)
		}
	})
}

// A replaced key makes a list at once, which those take that know of the new key.
func TestSetIdentity(t *testing.T) {
	f := start(t, Config{})
	v := f.verifier()
	f.apply(t, v)
	old := f.id
	rotated, err := old.Rotate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetIdentity(rotated); err != nil {
		t.Fatal(err)
	}
	if kind := f.apply(t, v); kind == "unchanged" {
		t.Error("there is no list of the new key")
	}
	if h := v.History(f.Identifier()); h.Len() != 2 {
		t.Errorf("the verifier knows of %d keys, want 2", h.Len())
	}
	if err := f.SetIdentity(old); err == nil {
		t.Error("the older key was taken again")
	}
	if err := f.SetIdentity(newIdentity(t)); err == nil {
		t.Error("another identity was taken")
	}
}

// A promise of the next list is kept, in good time.
func TestListLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{ListLifetime: time.Minute})
		ctx, done := t.Context(), make(chan struct{})
		go func() {
			defer close(done)
			f.Run(ctx)
		}()
		v := f.verifier()
		c := f.enrol(identifier(1), nil)
		_ = c
		last := uint64(0)
		for range 20 {
			f.apply(t, v)
			l := v.List(f.Identifier())
			if l.Number() == last || !time.Now().Before(l.Next()) {
				t.Errorf("list %d after %d, promised by %s, at %s", l.Number(), last, l.Next(), time.Now())
			}
			last = l.Number()
			time.Sleep(time.Minute)
		}
		t.Cleanup(func() { <-done })
	})
}

// The oldest lists are forgotten, and their holders get the whole list.
func TestKeepNumbers(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand lists")
	}
	f := start(t, Config{})
	f.store.db.NoSync = true // what is asked here is not what is durable
	for i := range 40 {      // so that a delta is shorter
		f.revokeID(identifier(100_000 + i))
	}
	first, _ := f.Number()
	for range keepNumbers - 1 {
		set := f.list().list.Set()
		f.listing.Lock()
		_, err := f.makeListLocked(time.Now(), set, set, revoking{})
		f.listing.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := f.list()
	if d, err := f.delta(p, first); err != nil || d == nil {
		t.Errorf("no delta from %d lists back: %v", keepNumbers-1, err)
	}
	f.revokeID(identifier(1))
	if d, err := f.delta(f.list(), first); err != nil || d != nil {
		t.Errorf("a delta from %d lists back: %v", keepNumbers, err)
	}
	if d, err := f.delta(f.list(), first+1); err != nil || d == nil {
		t.Errorf("no delta from %d lists back: %v", keepNumbers-1, err)
	}
}

// A store that has gone back, by whatever way, goes on above the numbers that
// have been in use.
func TestRestoredStoreGoesOnAbove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{})
		backup := filepath.Join(t.TempDir(), "backup.db")
		if err := WriteBackup(backup, f.Identifier(), func(w io.Writer) error { return f.Backup(t.Context(), w) }); err != nil {
			t.Fatal(err)
		}
		v := f.verifier()
		for i := range 5 {
			time.Sleep(time.Second)
			f.revokeID(identifier(i + 1))
		}
		f.apply(t, v)
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(f.path, backup, f.Identifier(), time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		f.open(Config{})
		held := v.List(f.Identifier()).Number()
		if n, _ := f.Number(); n <= held {
			t.Errorf("list %d after %d", n, held)
		}
		// What was lost has to be revoked again, and then all is well.
		answer, err := f.since(f.list(), held)
		full, ok := answer.(credential.FullRevocations)
		if err != nil || !ok {
			t.Fatalf("%T, %v: want the whole list, since that one is not known", answer, err)
		}
		var e *credential.Error
		if _, err := v.ApplyList(full.List, time.Now()); !errors.As(err, &e) || e.Code != code.RevocationsLost {
			t.Errorf("a list without what was revoked: %v", err)
		}
		for i := range 5 {
			f.revokeID(identifier(i + 1))
		}
		f.applySince(t, v, held)
	})
}
