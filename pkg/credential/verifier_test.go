package credential

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestVerifyTimes(t *testing.T) {
	a := newAuthority(t)
	_, b := mustIssue(t, a, now, nil)
	end := now.Add(DefaultLifetime)
	for _, s := range []time.Duration{time.Nanosecond, DefaultSkew, MaxSkew} {
		v, err := NewVerifier(Config{Authorities: []identity.Identifier{a.Identifier()}, Skew: s})
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name string
			at   time.Time
			want error
			code code.Code
		}{
			{"first instant", now.Add(-s), nil, 0},
			{"before", now.Add(-s - 1), identity.ErrNotYetValid, code.NotYetValid},
			{"last instant", end.Add(s - 1), nil, 0},
			{"end", end.Add(s), identity.ErrExpired, code.CredentialExpired},
			{"a year later", end.AddDate(1, 0, 0), identity.ErrExpired, code.CredentialExpired},
		} {
			c, err := v.Verify(subject, b, tt.at)
			if !errors.Is(err, tt.want) {
				t.Errorf("skew %s, %s: %v, want %v", s, tt.name, err, tt.want)
			}
			if tt.want != nil {
				wantCode(t, err, tt.code, "check the clocks", a.Identifier().String())
			} else if c == nil {
				t.Errorf("skew %s, %s: no credential", s, tt.name)
			}
		}
	}
}

// The authority's key has expired, or is not there yet, while the credential
// would hold.
func TestVerifyChecksTheAuthoritysKey(t *testing.T) {
	a := newAuthority(t)
	end := a.History().Expires()
	_, b := mustIssue(t, a, end.Add(-time.Minute), nil)
	v := newVerifier(t, a)
	if _, err := v.Verify(subject, b, end.Add(skew-1)); err != nil {
		t.Errorf("within the skew: %v", err)
	}
	_, err := v.Verify(subject, b, end.Add(skew))
	wantCode(t, err, code.AuthorityExpired, "authority's own key")
	// Nor does the key sign for after its end.
	late := resign(t, a, b, credentialLabel, func(c *claims) {
		c.NotBefore = uint64(end.Add(skew).Unix())
		c.NotAfter = c.NotBefore + 60
	})
	_, err = v.Verify(subject, late, end)
	wantCode(t, err, code.SignerReplaced, "had expired")
}

func TestVerifySubjectAndTrust(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	_, bundle := mustIssue(t, a, now, nil)
	v := newVerifier(t, a)
	_, err := v.Verify(identifier(2), bundle, now)
	wantCode(t, err, code.CredentialSubject, identifier(2).String(), subject.String())
	_, err = newVerifier(t, b).Verify(subject, bundle, now)
	wantCode(t, err, code.UntrustedAuthority, a.Identifier().String())
	_, err = newVerifier(t).Verify(subject, bundle, now)
	wantCode(t, err, code.UntrustedAuthority)

	// What is not trusted any more does not count any more, and is forgotten.
	c, err := v.Verify(subject, bundle, now)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, v, mustList(t, a, 7, nil))
	if err := v.Trust([]identity.Identifier{a.Identifier(), b.Identifier()}); err != nil {
		t.Fatal(err)
	}
	if err := v.Check(c, now); err != nil || v.List(a.Identifier()).Number() != 7 {
		t.Errorf("beside another authority: %v, list %v", err, v.List(a.Identifier()))
	}
	if err := v.Trust([]identity.Identifier{b.Identifier()}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, v.Check(c, now), code.UntrustedAuthority)
	if v.List(a.Identifier()) != nil || v.History(a.Identifier()) != nil {
		t.Error("an authority that is not trusted is still known")
	}
}

// A key that was replaced can sign only what begins before that, give or take
// the skew, and that ends with its lifetime: 24 hours at most.
func TestVerifyReplacedKey(t *testing.T) {
	old := newAuthority(t)
	replaced := epoch.Add(48 * time.Hour)
	a := rotate(t, old, replaced)
	v := newVerifier(t, a)
	if err := v.Learn(a.History()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from time.Time
		ok   bool
	}{
		{replaced.Add(-time.Hour), true},
		{replaced.Add(skew - time.Second), true},
		{replaced.Add(skew), false},
		{replaced.Add(time.Hour), false},
	} {
		_, b, err := Issue(old, Template{Subject: subject, NotBefore: tt.from, Lifetime: MaxLifetime})
		if err != nil {
			t.Fatal(err)
		}
		at := replaced.Add(time.Hour) // when the new key holds, and all of these do
		_, err = v.Verify(subject, b, at)
		if tt.ok {
			if err != nil {
				t.Errorf("begins %s after the replacement: %v", tt.from.Sub(replaced), err)
			}
		} else {
			wantCode(t, err, code.SignerReplaced, "had been replaced", replaced.Format(time.RFC3339))
		}
		// Whoever does not know of the replacement cannot see it.
		if _, err := newVerifier(t, a).Verify(subject, b, at); err != nil {
			t.Errorf("begins %s after the replacement, which is not known: %v", tt.from.Sub(replaced), err)
		}
	}
	_, latest, err := Issue(old, Template{Subject: subject, NotBefore: replaced.Add(skew - time.Second), Lifetime: MaxLifetime})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(subject, latest, replaced.Add(MaxLifetime+2*skew))
	wantCode(t, err, code.CredentialExpired)
	// Nor does the new key reach back behind its own beginning.
	_, b := mustIssue(t, a, replaced, nil)
	early := resign(t, a, b, credentialLabel, func(c *claims) { c.NotBefore -= uint64(skew/time.Second) + 1 })
	_, err = v.Verify(subject, early, replaced)
	wantCode(t, err, code.SignerReplaced, "before the key that signed it")
}

// A verifier knows the newest history that it has seen, from whatever it came
// with, and stays there.
func TestVerifierKeepsTheNewestHistory(t *testing.T) {
	first := newAuthority(t)
	second := rotate(t, first, epoch.Add(10*time.Minute))
	third := rotate(t, second, epoch.Add(20*time.Minute))
	_, b1 := mustIssue(t, first, epoch.Add(5*time.Minute), nil)
	_, b2 := mustIssue(t, second, epoch.Add(15*time.Minute), nil)
	_, b3 := mustIssue(t, third, epoch.Add(25*time.Minute), nil)
	at := epoch.Add(30 * time.Minute)
	v := newVerifier(t, first)
	for i, step := range []struct {
		bundle []byte
		want   *identity.Identity
	}{{b2, second}, {b1, second}, {b3, third}, {b1, third}, {b2, third}} {
		if _, err := v.Verify(subject, step.bundle, at); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
		if got := v.History(first.Identifier()); got.LastHash() != step.want.History().LastHash() {
			t.Errorf("step %d: knows %d changes, want %d", i, got.Len(), step.want.History().Len())
		}
	}
	// A credential that does not count shows its issuer's history all the same.
	v = newVerifier(t, first)
	_, err := v.Verify(identifier(9), b3, at)
	wantCode(t, err, code.CredentialSubject)
	if v.History(first.Identifier()).Len() != 3 {
		t.Error("the history of a credential for somebody else was not learned")
	}
}

// Two changes signed by one key: neither side counts, nor what went before.
func TestVerifierRefusesDivergedHistories(t *testing.T) {
	root := newAuthority(t)
	mine, thiefs := rotate(t, root, epoch.Add(time.Minute)), rotate(t, root, epoch.Add(2*time.Minute))
	_, b := mustIssue(t, mine, now, nil)
	_, forged := mustIssue(t, thiefs, now, nil)
	for _, order := range [][][]byte{{b, forged}, {forged, b}} {
		v := newVerifier(t, root)
		c, err := v.Verify(subject, order[0], now)
		if err != nil {
			t.Fatal(err)
		}
		for _, again := range [][]byte{order[1], order[0], order[1]} {
			_, err := v.Verify(subject, again, now)
			wantCode(t, err, code.AuthorityDiverged, "nothing of it counts any more")
			if !errors.Is(err, identity.ErrDiverged) {
				t.Errorf("%v does not wrap ErrDiverged", err)
			}
		}
		wantCode(t, v.Check(c, now), code.AuthorityDiverged)
		wantCode(t, v.Learn(mine.History()), code.AuthorityDiverged)
		_, err = v.ApplyList(mustFull(t, mustList(t, mine, 1, nil)), now)
		wantCode(t, err, code.AuthorityDiverged)
	}
}

func TestVerifyRevoked(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	c1, b1 := mustIssue(t, a, now, nil)
	c2, b2 := mustIssue(t, a, now, nil)
	_, foreign := mustIssue(t, other, now, nil)
	v := newVerifier(t, a, other)
	mustApply(t, v, mustList(t, a, 1, mustAdd(t, nil, nil, RevokedSerial{c1.Serial, c1.NotAfter})))
	_, err := v.Verify(subject, b1, now)
	wantCode(t, err, code.CredentialRevoked, c1.Serial.String())
	if _, err := v.Verify(subject, b2, now); err != nil {
		t.Errorf("the other credential: %v", err)
	}
	if err := v.Check(c2, now); err != nil {
		t.Error(err)
	}
	// Another authority's list says nothing of a's serials.
	mustApply(t, v, mustList(t, other, 1, mustAdd(t, nil, nil, RevokedSerial{c2.Serial, c2.NotAfter})))
	if err := v.Check(c2, now); err != nil {
		t.Errorf("revoked by an authority that has not issued it: %v", err)
	}
	// But an identifier is revoked for all.
	mustApply(t, v, mustList(t, a, 2, mustAdd(t, v.List(a.Identifier()).Set(), []identity.Identifier{subject})))
	for name, b := range map[string][]byte{"of a": b2, "of the other": foreign} {
		_, err := v.Verify(subject, b, now)
		wantCode(t, err, code.IdentityRevoked, subject.String(), a.Identifier().String())
		if t.Failed() {
			t.Log(name)
		}
	}
	wantCode(t, v.Check(c2, now), code.IdentityRevoked)
	wantCode(t, v.Revoked(subject), code.IdentityRevoked)
	if err := v.Revoked(identifier(2)); err != nil {
		t.Error(err)
	}
	_, err = v.VerifyAll(subject, nil, now)
	wantCode(t, err, code.IdentityRevoked)
}

// An authority whose identifier is revoked, by itself or by another, has had
// its last word.
func TestRevokedAuthority(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	_, b := mustIssue(t, a, now, nil)
	for _, by := range []*identity.Identity{a, other} {
		v := newVerifier(t, a, other)
		mustApply(t, v, mustList(t, by, 1, mustAdd(t, nil, []identity.Identifier{a.Identifier()})))
		_, err := v.Verify(subject, b, now)
		wantCode(t, err, code.IdentityRevoked, a.Identifier().String())
		_, err = v.ApplyList(mustFull(t, mustList(t, a, 2, nil)), now)
		wantCode(t, err, code.IdentityRevoked)
	}
}

// A promise of another list that is not kept ends all of the authority's
// credentials.
func TestVerifyOverdueRevocations(t *testing.T) {
	a := newAuthority(t)
	c, b := mustIssue(t, a, now, nil)
	next := now.Add(10 * time.Minute)
	l, err := SignList(a, 1, now, next, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, a)
	if _, err := v.ApplyList(mustFull(t, l), now); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(subject, b, next.Add(skew-1)); err != nil {
		t.Errorf("within the skew: %v", err)
	}
	_, err = v.Verify(subject, b, next.Add(skew))
	wantCode(t, err, code.RevocationsOverdue, "list 1", next.Format(time.RFC3339))
	wantCode(t, v.Check(c, next.Add(skew)), code.RevocationsOverdue)
	mustApply(t, v, mustList(t, a, 2, nil))
	if err := v.Check(c, next.Add(skew)); err != nil {
		t.Errorf("after the next list: %v", err)
	}
}

func TestVerifyAllJoinsAttributes(t *testing.T) {
	a, b, stranger := newAuthority(t), newAuthority(t), newAuthority(t)
	v := newVerifier(t, a, b)
	_, fromA := mustIssue(t, a, now, Attributes{"role": "client", "zone": "eu"})
	_, fromB := mustIssue(t, b, now.Add(-time.Minute), Attributes{"team": "x", "zone": "eu"})
	_, fromStranger := mustIssue(t, stranger, now, Attributes{"role": "admin"})
	_, old := mustIssue(t, a, epoch, Attributes{"role": "admin"})
	at := epoch.Add(DefaultLifetime + skew)
	got, err := v.VerifyAll(subject, [][]byte{fromStranger, fromA, {0xff}, old, fromB}, at)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Attributes{"role": "client", "zone": "eu", "team": "x"}); !maps.Equal(got.Attributes, want) {
		t.Errorf("attributes %v, want %v", got.Attributes, want)
	}
	if len(got.Credentials) != 2 || got.Credentials[0].Issuer != a.Identifier() || got.Credentials[1].Issuer != b.Identifier() {
		t.Errorf("credentials %+v", got.Credentials)
	}
	if want := now.Add(-time.Minute + DefaultLifetime); !got.NotAfter.Equal(want) {
		t.Errorf("holds until %s, want %s", got.NotAfter, want)
	}
	var codes []code.Code
	for _, e := range got.Refused {
		codes = append(codes, e.Code)
	}
	if fmt.Sprint(codes) != "[untrusted_authority credential_malformed]" {
		t.Errorf("refused %v", codes)
	}
	if none, err := v.VerifyAll(subject, nil, now); err != nil || len(none.Attributes) != 0 || !none.NotAfter.IsZero() {
		t.Errorf("no credentials: %+v, %v", none, err)
	}
	_, err = v.VerifyAll(subject, make([][]byte, MaxBundles+1), now)
	wantCode(t, err, code.CredentialMalformed, "17 of them, at most 16")
}

// Two values of one attribute, in either order, of two authorities: nothing counts.
func TestVerifyAllRefusesConflicts(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	v := newVerifier(t, a, b)
	_, one := mustIssue(t, a, now, Attributes{"role": "client", "x": "1"})
	_, two := mustIssue(t, b, now, Attributes{"role": "admin", "y": "1"})
	_, three := mustIssue(t, b, now.Add(time.Second), Attributes{"role": ""})
	for _, bundles := range [][][]byte{{one, two}, {two, one}, {one, three}, {three, one}, {two, one, three}} {
		got, err := v.VerifyAll(subject, bundles, now)
		wantCode(t, err, code.AttributeConflict, "attribute role")
		if got.Attributes != nil || got.Credentials != nil {
			t.Errorf("beside the error: %+v", got)
		}
	}
	if _, err := v.VerifyAll(subject, [][]byte{one, one}, now); err != nil {
		t.Errorf("one credential twice: %v", err)
	}
	// What is joined is the caller's: the credentials keep their own.
	got, err := v.VerifyAll(subject, [][]byte{one}, now)
	if err != nil {
		t.Fatal(err)
	}
	got.Attributes["role"] = "changed"
	if got.Credentials[0].Attributes["role"] != "client" {
		t.Error("writing to the joined attributes changed a credential")
	}
}

// What was never verified here does not count, whatever it says.
func TestCheckOfAnUnknownCredential(t *testing.T) {
	a := newAuthority(t)
	c, b := mustIssue(t, a, now, nil)
	v := newVerifier(t, a)
	wantCode(t, v.Check(c, now), code.SignerReplaced, "no history of the authority is known")
	if _, err := v.Verify(subject, b, now); err != nil {
		t.Fatal(err)
	}
	wantCode(t, v.Check(&Credential{Serial: c.Serial, Issuer: c.Issuer, Subject: subject, NotBefore: now, NotAfter: now.Add(time.Hour)}, now),
		code.SignerReplaced, "no change of the authority's history")
	wantCode(t, v.Learn(newAuthority(t).History()), code.UntrustedAuthority)
}

func TestNewVerifierRefuses(t *testing.T) {
	for _, c := range []Config{
		{Skew: -1},
		{Skew: MaxSkew + 1},
		{Authorities: []identity.Identifier{{}}},
		{Authorities: make([]identity.Identifier, MaxAuthorities+1)},
	} {
		if _, err := NewVerifier(c); err == nil {
			t.Errorf("%+v: accepted", c)
		}
	}
}

// Everything at once, under the race detector.
func TestVerifierConcurrently(t *testing.T) {
	a := newAuthority(t)
	next := rotate(t, a, epoch.Add(time.Minute))
	_, before := mustIssue(t, a, epoch, nil)
	c, after := mustIssue(t, next, now, nil)
	v := newVerifier(t, a)
	var lists [][]byte
	var set *Set
	for n := range uint32(20) {
		set = mustAdd(t, set, []identity.Identifier{identifier(100 + n)})
		lists = append(lists, mustFull(t, mustList(t, next, uint64(n+1), set)))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if _, err := v.Verify(subject, before, epoch.Add(2*time.Minute)); err != nil {
					t.Error(err)
				}
				if _, err := v.Verify(subject, after, now); err != nil {
					t.Error(err)
				}
				if err := v.Check(c, now); err != nil {
					t.Error(err)
				}
				_ = v.Learn(a.History())
				_ = v.Revoked(subject)
				_ = v.Trust([]identity.Identifier{a.Identifier(), subject})
			}
		})
		wg.Go(func() {
			for _, l := range lists {
				_, _ = v.ApplyList(l, now) // refused when another has been faster
			}
		})
	}
	wg.Wait()
	if got := v.List(a.Identifier()); got.Number() != 20 || got.Set().Len() != 20 {
		t.Errorf("list %d of %d entries, want 20 of 20", got.Number(), got.Set().Len())
	}
	if v.History(a.Identifier()).Len() != 2 {
		t.Error("not the newest history")
	}
}

// Ten thousand credentials, and a hundred thousand revocations of others.
func TestManyCredentials(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier(t, a)
	serials := make([]RevokedSerial, 100_000)
	for i := range serials {
		serials[i] = RevokedSerial{serial(uint32(i)), now.Add(time.Hour)}
	}
	n := 10_000
	if testing.Short() {
		n = 500
	}
	bundles := make([][]byte, n)
	for i := range bundles {
		c, b, err := Issue(a, Template{Subject: identifier(uint32(i)), NotBefore: now, Attributes: Attributes{"n": fmt.Sprint(i)}})
		if err != nil {
			t.Fatal(err)
		}
		bundles[i] = b
		if i%2 == 0 {
			serials = append(serials, RevokedSerial{c.Serial, c.NotAfter})
		}
	}
	mustApply(t, v, mustList(t, a, 1, mustAdd(t, nil, nil, serials...)))
	for i, b := range bundles {
		c, err := v.Verify(identifier(uint32(i)), b, now)
		if i%2 == 0 {
			wantCode(t, err, code.CredentialRevoked)
		} else if err != nil || c.Attributes["n"] != fmt.Sprint(i) {
			t.Fatalf("credential %d: %+v, %v", i, c, err)
		}
	}
}

// An authority that is taken out and put back has revoked what it had revoked, for as
// many of them as there may be, those that were trusted last.
func TestVerifierRemembersFormerAuthorities(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	v := newVerifier(t, a)
	l := mustList(t, a, 7, mustAdd(t, nil, []identity.Identifier{subject}))
	mustApply(t, v, l)
	trust := func(all ...identity.Identifier) {
		t.Helper()
		if err := v.Trust(all); err != nil {
			t.Fatal(err)
		}
	}
	trust(other.Identifier())
	if err := v.Revoked(subject); err != nil {
		t.Errorf("an authority that is not trusted revokes: %v", err)
	}
	if v.List(a.Identifier()) != nil || v.Trusts(a.Identifier()) || len(v.Authorities()) != 1 {
		t.Error("the former authority is still trusted")
	}
	trust(a.Identifier())
	wantCode(t, v.Revoked(subject), code.IdentityRevoked, a.Identifier().String())
	if got := v.List(a.Identifier()); got == nil || got.Number() != 7 {
		t.Errorf("the list is %v, want the one that it had", got)
	}
	_, err := v.ApplyList(mustFull(t, mustList(t, a, 6, nil)), now)
	wantCode(t, err, code.RevocationsOld)

	if err := v.Trust([]identity.Identifier{other.Identifier(), {}}); err == nil {
		t.Error("the zero identifier is trusted")
	}
	wantCode(t, v.Revoked(subject), code.IdentityRevoked) // nothing has changed

	for n := range uint32(3 * MaxAuthorities) {
		trust(identifier(1000 + n))
	}
	if len(v.former) != MaxAuthorities {
		t.Errorf("%d former authorities are remembered, want %d", len(v.former), MaxAuthorities)
	}
	trust(a.Identifier())
	if v.List(a.Identifier()) != nil {
		t.Error("the bound does not hold: the one left longest ago is remembered")
	}
}
