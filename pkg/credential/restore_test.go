package credential

import (
	"errors"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A list that was kept is restored whatever has become of its authority, but nothing
// that is forged, of nobody who is trusted, or older than what is held.
func TestRestore(t *testing.T) {
	a := newAuthority(t)
	one := mustList(t, a, 1, mustAdd(t, nil, []identity.Identifier{identifier(7)}))
	two := mustList(t, a, 2, one.Set())
	next, other := rotate(t, a, epoch.Add(time.Minute)), rotate(t, a, epoch.Add(2*time.Minute))
	for name, happen := range map[string]func(*Verifier){
		"nothing":  func(*Verifier) {},
		"replaced": func(v *Verifier) { _ = v.Learn(next.History()) },
		"diverged": func(v *Verifier) { _, _ = v.Learn(next.History()), v.Learn(other.History()) },
	} {
		v := newVerifier(t, a)
		happen(v)
		l, err := v.Restore(mustFull(t, one))
		if err != nil || l.Number() != 1 {
			t.Fatalf("%s: %v", name, err)
		}
		wantCode(t, v.Revoked(identifier(7)), code.IdentityRevoked)
		if _, err := v.Restore(mustFull(t, one)); !errors.Is(err, ErrNotNewer) {
			t.Errorf("%s: again: %v, want %v", name, err, ErrNotNewer)
		}
		if _, err := v.Restore(mustFull(t, two)); err != nil {
			t.Errorf("%s: a newer one: %v", name, err)
		}
		if _, err := v.Restore(mustFull(t, one)); !errors.Is(err, ErrNotNewer) {
			t.Errorf("%s: an older one: %v, want %v", name, err, ErrNotNewer)
		}
		_, err = v.Restore(mustFull(t, mustList(t, a, 3, nil)))
		wantCode(t, err, code.RevocationsLost)
	}
	_, err := newVerifier(t, newAuthority(t)).Restore(mustFull(t, one))
	wantCode(t, err, code.UntrustedAuthority)

	// Restored by the key before, it is no reason to take another list of that key.
	v := newVerifier(t, a)
	if err := v.Learn(next.History()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Restore(mustFull(t, one)); err != nil {
		t.Fatal(err)
	}
	_, err = v.ApplyList(mustFull(t, two), now)
	wantCode(t, err, code.SignerReplaced)
	_, err = v.ApplyDelta(mustDelta(t, two, one), now)
	wantCode(t, err, code.SignerReplaced)
}

// What another verifier's memory knows of an authority counts here: a list or a
// credential of a key that it knows to be replaced does not.
func TestMemoryOfAuthorities(t *testing.T) {
	a := newAuthority(t)
	next := rotate(t, a, epoch.Add(time.Minute))
	memory := identity.NewMemory(0)
	if err := memory.Accept(next.History()); err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(Config{Authorities: []identity.Identifier{a.Identifier()}, Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	c, old := mustIssue(t, a, epoch, nil)
	_, err = v.Verify(subject, old, epoch)
	wantCode(t, err, code.SignerReplaced, "not at hand")
	_, err = v.ApplyList(mustFull(t, mustList(t, a, 1, nil)), now)
	wantCode(t, err, code.SignerReplaced)
	if _, err := v.ApplyList(mustFull(t, mustList(t, next, 1, nil)), now); err != nil {
		t.Fatal(err)
	}
	if err := v.Check(c, epoch); err != nil {
		t.Errorf("once the newest history was shown: %v", err)
	}
	// Another process has seen that it diverges, and both share the memory.
	_ = memory.Accept(rotate(t, a, epoch.Add(2*time.Minute)).History())
	wantCode(t, v.Check(c, epoch), code.AuthorityDiverged)
	wantCode(t, v.Learn(next.History()), code.AuthorityDiverged)
}
