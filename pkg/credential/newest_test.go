package credential

import (
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Of two credentials of one authority the newer counts alone, in whatever order they
// are shown: what the authority has taken away does not come back beside it.
func TestOnlyTheNewestCounts(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	v := newVerifier(t, a, b)
	_, was := mustIssue(t, a, now.Add(-time.Minute), Attributes{"role": "admin", "zone": "eu"})
	_, is := mustIssue(t, a, now, Attributes{"role": "api"})
	_, others := mustIssue(t, b, now.Add(-time.Hour/2), Attributes{"team": "x"})
	for _, bundles := range [][][]byte{{was, is, others}, {is, others, was}, {was, is, was, others}} {
		got, err := v.VerifyAll(subject, bundles, now)
		if want := (Attributes{"role": "api", "team": "x"}); err != nil || !maps.Equal(got.Attributes, want) || len(got.Credentials) != 2 || len(got.Refused) != 0 {
			t.Errorf("%+v, %v, want the attributes %v of two credentials", got, err, want)
		}
	}
}

// What was replaced does not come back when it is shown alone, in another conn of the
// peer say: what counts of the authority is the newest that the peer has shown.
func TestReplacedCredentialDoesNotComeBack(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier(t, a)
	_, was := mustIssue(t, a, now.Add(-time.Minute), Attributes{"role": "admin"})
	c, is := mustIssue(t, a, now, Attributes{"role": "api"})
	old := v.Prove(subject, [][]byte{was}) // a channel whose path has shown no other yet
	if got, err := v.Judge(old, now); err != nil || got.Attributes["role"] != "admin" {
		t.Fatalf("before: %+v, %v", got, err)
	}
	if _, err := v.VerifyAll(subject, [][]byte{is}, now); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*Proven{"proven before": old, "shown again": v.Prove(subject, [][]byte{was})} {
		got, err := v.Judge(p, now)
		if err != nil || got.Attributes["role"] != "api" || len(got.Credentials) != 1 || got.Credentials[0].Serial != c.Serial {
			t.Errorf("%s: %+v, %v, want the newest credential", name, got, err)
		}
	}
	// Who shows none has none, and nobody has another's.
	if got, err := v.VerifyAll(subject, nil, now); err != nil || len(got.Attributes) != 0 {
		t.Errorf("without a credential: %+v, %v", got, err)
	}
	_, hers, err := Issue(a, Template{Subject: identifier(5), Attributes: Attributes{"role": "admin"}, NotBefore: now.Add(-time.Hour / 2)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.VerifyAll(identifier(5), [][]byte{hers}, now); err != nil || got.Attributes["role"] != "admin" {
		t.Errorf("another subject: %+v, %v", got, err)
	}
	// Nor does it when the authority was not trusted meanwhile.
	if err := v.Trust(nil); err != nil {
		t.Fatal(err)
	}
	if err := v.Trust([]identity.Identifier{a.Identifier()}); err != nil {
		t.Fatal(err)
	}
	if got, err := v.VerifyAll(subject, [][]byte{was}, now); err != nil || got.Attributes["role"] != "api" {
		t.Errorf("trusted anew: %+v, %v", got, err)
	}
}

// A credential that was revoked or has ended leaves its place to none that is older.
func TestNewestThatDoesNotCount(t *testing.T) {
	a := newAuthority(t)
	_, long, err := Issue(a, Template{Subject: subject, NotBefore: now.Add(-time.Minute), Lifetime: 4 * time.Hour, Attributes: Attributes{"role": "admin"}})
	if err != nil {
		t.Fatal(err)
	}
	c, short, err := Issue(a, Template{Subject: subject, NotBefore: now, Lifetime: time.Minute, Attributes: Attributes{"role": "api"}})
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, a)
	if _, err := v.VerifyAll(subject, [][]byte{short}, now); err != nil {
		t.Fatal(err)
	}
	for _, bundles := range [][][]byte{{long}, {short, long}} {
		got, err := v.VerifyAll(subject, bundles, c.NotAfter.Add(skew))
		if err != nil || len(got.Attributes) != 0 || len(got.Refused) != 1 || got.Refused[0].Code != code.CredentialExpired {
			t.Errorf("after its end: %+v, %v, want nothing but %s", got, err, code.CredentialExpired)
		}
	}
	mustApply(t, v, mustList(t, a, 1, mustAdd(t, nil, nil, RevokedSerial{c.Serial, c.NotAfter})))
	for _, bundles := range [][][]byte{{long}, {long, short}} {
		got, err := v.VerifyAll(subject, bundles, now)
		if err != nil || len(got.Attributes) != 0 || len(got.Refused) != 1 || got.Refused[0].Code != code.CredentialRevoked {
			t.Errorf("revoked: %+v, %v, want nothing but %s", got, err, code.CredentialRevoked)
		}
	}
}

// A credential that does not count yet, or that a replaced key has signed, puts no
// other out of its place.
func TestWhatDoesNotReplace(t *testing.T) {
	a := newAuthority(t)
	next := rotate(t, a, now.Add(-time.Hour/2))
	v := newVerifier(t, a)
	_, good := mustIssue(t, next, now.Add(-time.Minute), Attributes{"role": "api"})
	_, later := mustIssue(t, next, now.Add(skew+time.Second), Attributes{"role": "later"})
	_, stolen := mustIssue(t, a, now, Attributes{"role": "admin"})
	// Before the verifier has seen the new key, the old one's is as good as any.
	if got, err := v.VerifyAll(subject, [][]byte{stolen}, now); err != nil || got.Attributes["role"] != "admin" {
		t.Fatalf("%+v, %v", got, err)
	}
	got, err := v.VerifyAll(subject, [][]byte{stolen, later, good}, now)
	if err != nil || got.Attributes["role"] != "api" || len(got.Refused) != 2 {
		t.Errorf("%+v, %v, want the good one, and two refused", got, err)
	}
	if want := now.Add(time.Second); !got.Until.Equal(want) {
		t.Errorf("until %s, want %s, when the later one begins", got.Until, want)
	}
	if got, err = v.VerifyAll(subject, [][]byte{later, good}, now.Add(time.Second)); err != nil || got.Attributes["role"] != "later" {
		t.Errorf("when the later one has begun: %+v, %v", got, err)
	}
}

// Whatever is shown, in whatever order and however often, the attributes are those
// of the newest that has begun, of each authority.
func TestNewestIsWhatCounts(t *testing.T) {
	authorities := []*identity.Identity{newAuthority(t), newAuthority(t)}
	names := []string{"x", "y"}
	rapid.Check(t, func(rt *rapid.T) {
		v := newVerifier(t, authorities...)
		type shown struct {
			c      *Credential
			bundle []byte
			by     int
		}
		var all []shown
		for range rapid.IntRange(1, 6).Draw(rt, "credentials") {
			by := rapid.IntRange(0, 1).Draw(rt, "authority")
			from := now.Add(-time.Duration(rapid.IntRange(0, 3).Draw(rt, "age")) * time.Minute)
			c, b := mustIssue(t, authorities[by], from, Attributes{names[by]: from.String()})
			all = append(all, shown{c, b, by})
		}
		newest := map[int]time.Time{}
		for range rapid.IntRange(1, 5).Draw(rt, "handshakes") {
			var bundles [][]byte
			want := Attributes{}
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(all)-1), 0, 4).Draw(rt, "shows") {
				s := all[i]
				bundles = append(bundles, s.bundle)
				if s.c.NotBefore.After(newest[s.by]) {
					newest[s.by] = s.c.NotBefore
				}
				want[names[s.by]] = newest[s.by].String()
			}
			for _, name := range names {
				if _, ok := want[name]; ok {
					want[name] = newest[map[string]int{"x": 0, "y": 1}[name]].String()
				}
			}
			got, err := v.VerifyAll(subject, bundles, now)
			if err != nil || !maps.EqualFunc(got.Attributes, want, func(a, b string) bool { return mustTime(rt, a).Equal(mustTime(rt, b)) }) {
				rt.Fatalf("attributes %v, %v, want %v", got.Attributes, err, want)
			}
		}
	})
}

func mustTime(rt *rapid.T, text string) time.Time {
	at, err := time.Parse("2006-01-02 15:04:05 -0700 MST", text)
	if err != nil {
		rt.Fatal(err)
	}
	return at
}

// What is remembered is bounded, and those looked at of late stay.
func TestNewestIsBounded(t *testing.T) {
	n := newNewest(3)
	of := func(i uint32, from time.Time) *Credential {
		return &Credential{Serial: serial(i), Issuer: identifier(100), Subject: identifier(i), NotBefore: from, NotAfter: from.Add(time.Hour)}
	}
	kept := of(1, now)
	n.look(kept)
	for i := range uint32(100) {
		n.look(of(10+i, now))
		if got := n.look(of(1, now.Add(-time.Second))); got != kept {
			t.Fatalf("after %d others: %+v, want the newest, which is looked at again and again", i+1, got)
		}
	}
	if len(n.of) != 3 || n.order.Len() != 3 {
		t.Errorf("%d and %d are remembered, want 3", len(n.of), n.order.Len())
	}
	n.forget(of(1, now)) // another one than what is known
	n.forget(kept)
	if old := of(1, now.Add(-time.Second)); n.look(old) != old {
		t.Error("it is not forgotten")
	}
	n.keep(nil)
	if len(n.of) != 0 || n.order.Len() != 0 {
		t.Errorf("%d and %d are remembered of authorities that are not trusted", len(n.of), n.order.Len())
	}
}

// Of two credentials one replaces the other, in one direction, and chains go round
// nowhere.
func TestReplacesIsAnOrder(t *testing.T) {
	credentials := rapid.Custom(func(rt *rapid.T) *Credential {
		from := now.Add(time.Duration(rapid.IntRange(0, 2).Draw(rt, "from")) * time.Second)
		return &Credential{
			Serial: serial(rapid.Uint32Range(0, 2).Draw(rt, "serial")), NotBefore: from,
			NotAfter: now.Add(time.Duration(rapid.IntRange(10, 12).Draw(rt, "to")) * time.Second),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		a, b, c := credentials.Draw(rt, "a"), credentials.Draw(rt, "b"), credentials.Draw(rt, "c")
		same := a.Serial == b.Serial && a.NotBefore.Equal(b.NotBefore) && a.NotAfter.Equal(b.NotAfter)
		if a.replaces(b) && b.replaces(a) || a.replaces(b) == b.replaces(a) != same {
			rt.Fatalf("%+v and %+v", a, b)
		}
		if a.replaces(b) && b.replaces(c) && !a.replaces(c) {
			rt.Fatalf("%+v, %+v and %+v", a, b, c)
		}
	})
}
