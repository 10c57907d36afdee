package credential

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestIssueAndVerify(t *testing.T) {
	a := newAuthority(t)
	want := Attributes{"role": "db-client", "team": "größe", "empty": ""}
	issued, b := mustIssue(t, a, now.Add(time.Millisecond), want)
	got, err := newVerifier(t, a).Verify(subject, b, now)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got.Attributes, want) || got.Serial != issued.Serial || got.Serial.IsZero() || got.Issuer != a.Identifier() || got.Subject != subject ||
		!got.NotBefore.Equal(now) || !got.NotAfter.Equal(now.Add(DefaultLifetime)) {
		t.Errorf("got %+v, want %+v", got, issued)
	}
	if _, other := mustIssue(t, a, now, want); bytes.Contains(other, issued.Serial[:]) {
		t.Error("two credentials with one serial")
	}
}

// The bytes, to the letter: a change of them is a change of the label's version.
func TestKnownBundle(t *testing.T) {
	a := fixedAuthority(t, 2)
	_, b, err := issue(a, serial(1), Template{Subject: subject, NotBefore: now, Attributes: Attributes{"role": "client", "a": ""}})
	if err != nil {
		t.Fatal(err)
	}
	const (
		wantClaims = "a70150000000010000000000000000000000010258207da60e4998b8b0c6e7b67ebed37804010d617effb4af560f5024b3984701727a" +
			"035820c856d2afd421e095a07e3ff7760d0c11ade1a319777fabb2c5112b740d0a549e" +
			"045820000000010000000000000000000000000000000000000000000000000000000105a261616064726f6c6566636c69656e74061a695743b5071a695751c5"
		wantHash = "29a6cd55208aa1d5d6932fa9363d8820cbb199d3c6c295ce0ea8c096c772491d" // SHA-256 of the bundle
	)
	var outer bundle
	decode(t, b, &outer)
	if got := hex.EncodeToString(outer.Credential); got != wantClaims {
		t.Errorf("credential = %s, want %s", got, wantClaims)
	}
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != wantHash {
		t.Errorf("SHA-256(bundle) = %x, want %s", got, wantHash)
	}
	if _, err := newVerifier(t, a).Verify(subject, b, now); err != nil {
		t.Error(err)
	}
}

// The signature is over what the documentation says, by the key that it says.
func TestBundleIsWhatTheDocumentationSays(t *testing.T) {
	a := rotate(t, newAuthority(t), epoch.Add(time.Minute))
	_, b := mustIssue(t, a, now, Attributes{"a": "b"})
	var outer bundle
	decode(t, b, &outer)
	if !ed25519.Verify(a.History().Key(), append([]byte("culvert credential v1\x00"), outer.Credential...), outer.Signature) {
		t.Error("the signature is not over the label and the credential")
	}
	last := a.History().LastHash()
	if !bytes.Contains(outer.Credential, last[:]) {
		t.Error("the credential does not name the change that signs")
	}
	if !bytes.Equal(outer.History, a.History().Bytes()) {
		t.Error("the history is not beside it")
	}
}

// Every bit of a bundle counts, and every byte.
func TestVerifyRefusesEveryFlippedBit(t *testing.T) {
	a := rotate(t, newAuthority(t), epoch.Add(time.Minute))
	_, b := mustIssue(t, a, now, Attributes{"role": "client", "team": "x"})
	fresh := newVerifier(t, a)
	knowing := newVerifier(t, a)
	if _, err := knowing.Verify(subject, b, now); err != nil {
		t.Fatal(err)
	}
	for _, v := range []*Verifier{fresh, knowing} {
		for i := range len(b) * 8 {
			bad := bytes.Clone(b)
			bad[i/8] ^= 1 << (i % 8)
			if c, err := v.Verify(subject, bad, now); err == nil {
				t.Fatalf("bit %d flipped: accepted as %+v", i, c)
			}
		}
		for i := range b {
			if _, err := v.Verify(subject, b[:i], now); err == nil {
				t.Fatalf("cut to %d bytes: accepted", i)
			}
		}
		_, err := v.Verify(subject, append(bytes.Clone(b), 0), now)
		wantCode(t, err, code.CredentialMalformed)
	}
	if v := knowing; v.History(a.Identifier()).LastHash() != a.History().LastHash() {
		t.Error("a damaged bundle has changed the history known")
	}
}

// resign signs changed claims as the authority could.
func resign(t testing.TB, a *identity.Identity, b []byte, label string, f func(c *claims)) []byte {
	t.Helper()
	var outer bundle
	decode(t, b, &outer)
	var c claims
	decode(t, outer.Credential, &c)
	f(&c)
	outer.Credential = encode(t, c)
	signature, err := a.Sign(label, outer.Credential)
	if err != nil {
		t.Fatal(err)
	}
	outer.Signature = signature
	return encode(t, outer)
}

func TestVerifyRefusesWhatIsSignedBadly(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	_, b := mustIssue(t, a, now, Attributes{"role": "client"})
	same := func(*claims) {}
	tests := []struct {
		name string
		in   []byte
		want code.Code
		text string
	}{
		{"empty", nil, code.CredentialMalformed, "decoding CBOR"},
		{"too long", make([]byte, MaxBundleLen+1), code.CredentialMalformed, "8193 bytes, more than 8192"},
		{"by a stranger's key", resign(t, stranger, b, credentialLabel, same), code.CredentialForged, "signature is wrong"},
		{"as a list", resign(t, a, b, revocationsLabel, same), code.CredentialForged, "signature is wrong"},
		{"as the next version", resign(t, a, b, "culvert credential v2", same), code.CredentialForged, "signature is wrong"},
		{"serial short", resign(t, a, b, credentialLabel, func(c *claims) { c.Serial = c.Serial[1:] }), code.CredentialMalformed, "serial has 15 bytes"},
		{"serial zero", resign(t, a, b, credentialLabel, func(c *claims) { clear(c.Serial) }), code.CredentialMalformed, "serial is all zero"},
		{"issuer long", resign(t, a, b, credentialLabel, func(c *claims) { c.Issuer = append(c.Issuer, 0) }), code.CredentialMalformed, "issuer has 33 bytes"},
		{"subject missing", resign(t, a, b, credentialLabel, func(c *claims) { c.Subject = nil }), code.CredentialMalformed, "subject has 0 bytes"},
		{"signer missing", resign(t, a, b, credentialLabel, func(c *claims) { c.Signer = []byte{} }), code.CredentialMalformed, "signer has 0 bytes"},
		{"signer unknown", resign(t, a, b, credentialLabel, func(c *claims) { c.Signer[0] ^= 1 }), code.CredentialForged, "no change of the authority's history"},
		{"a second too long", resign(t, a, b, credentialLabel, func(c *claims) { c.NotAfter = c.NotBefore + 86401 }), code.CredentialMalformed, "more than 24h"},
		{"no time at all", resign(t, a, b, credentialLabel, func(c *claims) { c.NotAfter = c.NotBefore }), code.CredentialMalformed, "ends before it starts"},
		{"times overflow", resign(t, a, b, credentialLabel, func(c *claims) { c.NotBefore, c.NotAfter = math.MaxUint64-1, math.MaxUint64 }), code.CredentialMalformed, "year 9999"},
		{"attribute's name", resign(t, a, b, credentialLabel, func(c *claims) { c.Attributes["Role"] = "" }), code.CredentialMalformed, "a name has only"},
		{"attribute's value", resign(t, a, b, credentialLabel, func(c *claims) { c.Attributes["a"] = "x\n" }), code.CredentialMalformed, "control character U+000A"},
		{"attributes empty, not absent", func() []byte {
			none := resign(t, a, b, credentialLabel, func(c *claims) { c.Attributes = nil })
			var outer bundle
			decode(t, none, &outer)
			outer.Credential[0]++
			i := bytes.Index(outer.Credential, append([]byte{4, 0x58, 32}, subject[:]...)) + 35
			outer.Credential = append(outer.Credential[:i:i], append([]byte{5, 0xa0}, outer.Credential[i:]...)...)
			var err error
			if outer.Signature, err = a.Sign(credentialLabel, outer.Credential); err != nil {
				t.Fatal(err)
			}
			return encode(t, outer)
		}(), code.CredentialMalformed, "unknown or empty"},
		{"history of a stranger", func() []byte {
			var outer bundle
			decode(t, b, &outer)
			outer.History = stranger.History().Bytes()
			return encode(t, outer)
		}(), code.CredentialForged, "history beside it is that of " + stranger.Identifier().String()},
		{"another issuer's name on it", resign(t, stranger, b, credentialLabel, func(c *claims) {
			last, id := stranger.History().LastHash(), stranger.Identifier()
			c.Signer, c.Issuer = last[:], id[:]
		}), code.UntrustedAuthority, "not trusted"},
		{"signature short", func() []byte {
			var outer bundle
			decode(t, b, &outer)
			outer.Signature = outer.Signature[:63]
			return encode(t, outer)
		}(), code.CredentialForged, "signature is wrong"},
	}
	v := newVerifier(t, a)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := v.Verify(subject, tt.in, now)
			wantCode(t, err, tt.want, tt.text)
		})
	}
	if _, err := v.Verify(subject, resign(t, a, b, credentialLabel, same), now); err != nil {
		t.Errorf("signed again: %v", err)
	}
}

// No order of the issuer's changes verifies but the right one.
func TestVerifyRefusesChangesOutOfOrder(t *testing.T) {
	a := newAuthority(t)
	for i := range 3 {
		a = rotate(t, a, epoch.Add(time.Duration(i+1)*time.Minute))
	}
	_, b := mustIssue(t, a, now, nil)
	var outer bundle
	decode(t, b, &outer)
	var changes []map[int][]byte
	decode(t, outer.History, &changes)
	v := newVerifier(t, a)
	tried, taken := 0, 0
	permute(4, func(order []int) {
		for n := 1; n <= len(order); n++ { // beginnings, too
			list := make([]map[int][]byte, 0, n)
			for _, i := range order[:n] {
				list = append(list, changes[i])
			}
			outer.History = encode(t, list)
			_, err := v.Verify(subject, encode(t, outer), now)
			right := n == 4 && order[0] == 0 && order[1] == 1 && order[2] == 2
			if (err == nil) != right {
				t.Errorf("order %v: %v", order[:n], err)
			}
			if tried++; err == nil {
				taken++
			}
		}
	})
	if tried != 96 || taken != 1 {
		t.Errorf("%d of %d orders verify, want 1 of 96", taken, tried)
	}
}

// permute calls f with every order of 0 to n-1.
func permute(n int, f func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var from func(k int)
	from = func(k int) {
		if k == n {
			f(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			from(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	from(0)
}

func TestIssueRefuses(t *testing.T) {
	a := newAuthority(t)
	full := Attributes{}
	for i := range MaxAttributes {
		full[fmt.Sprintf("%064d", i)] = strings.Repeat("v", MaxAttribute)
	}
	for _, tt := range []struct {
		name     string
		template Template
		want     string
	}{
		{"nobody", Template{NotBefore: now}, "subject is all zero"},
		{"too long a time", Template{Subject: subject, NotBefore: now, Lifetime: MaxLifetime + time.Second}, "more than 24h"},
		{"negative time", Template{Subject: subject, NotBefore: now, Lifetime: -1}, "whole seconds above 0"},
		{"parts of a second", Template{Subject: subject, NotBefore: now, Lifetime: time.Second + 1}, "whole seconds above 0"},
		{"before the key", Template{Subject: subject, NotBefore: epoch.Add(-time.Second)}, "not valid yet"},
		{"after the key", Template{Subject: subject, NotBefore: epoch.Add(identity.Validity)}, "expired"},
		{"before 1970", Template{Subject: subject, NotBefore: time.Unix(-1, 0)}, "set this machine's clock"},
		{"hostile attribute", Template{Subject: subject, NotBefore: now, Attributes: Attributes{"a": "\x1b[2J"}}, `"\x1b[2J" holds the control character U+001B`},
		{"more than a handshake carries", Template{Subject: subject, NotBefore: now, Attributes: full}, "more than the 8192 that a handshake carries"},
	} {
		_, _, err := Issue(a, tt.template)
		wantText(t, err, "issuing a credential for "+tt.template.Subject.String(), tt.want)
	}
	if _, _, err := Issue(a, Template{Subject: subject, NotBefore: now, Lifetime: MaxLifetime}); err != nil {
		t.Errorf("24 hours: %v", err)
	}
}

// Whatever attributes are taken come out as they went in, and what is not
// taken is what the rules forbid.
func TestAttributes(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier(t, a)
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Custom(func(rt *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "bytes")) }))
		name := rapid.OneOf(rapid.StringMatching(`[a-z0-9._-]{1,64}`), text)
		want := Attributes(rapid.MapOfN(name, text, 0, 4).Draw(rt, "attributes"))
		_, b, err := Issue(a, Template{Subject: subject, NotBefore: now, Attributes: want})
		if (err == nil) != (want.Check() == nil) {
			rt.Fatalf("Issue says %v, Check %v", err, want.Check())
		}
		if err != nil {
			return
		}
		got, err := v.Verify(subject, b, now)
		if err != nil || !maps.Equal(got.Attributes, want) {
			rt.Fatalf("got %v, %v; want %v", got, err, want)
		}
	})
}

func TestAttributesCheck(t *testing.T) {
	many := Attributes{}
	for i := range MaxAttributes {
		many[fmt.Sprint("a", i)] = ""
	}
	if err := many.Check(); err != nil {
		t.Errorf("%d attributes: %v", len(many), err)
	}
	many["one-more"] = ""
	wantText(t, many.Check(), "33 attributes, at most 32")

	for _, name := range []string{"a", "a.b_c-0", strings.Repeat("z", 64)} {
		if err := (Attributes{name: strings.Repeat("é", 128)}).Check(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "A", "a b", "ä", "a\x00", "a=b", "a\n", strings.Repeat("z", 65)} {
		if (Attributes{name: ""}).Check() == nil {
			t.Errorf("name %q: accepted", name)
		}
	}
	for _, value := range []string{
		"\x00", "a\nERROR forged", "\r", "\t", "\x7f", "\u0085", "\u009b31m", "\u202etxt.exe", "a\u200bb", "\u2028", "\u2066", "\ufeff", "\U000e0041",
		"\xff", "cut \xe2\x82", "\xed\xa0\x80", "\xc0\x80", strings.Repeat("v", 257), strings.Repeat("é", 129),
	} {
		err := (Attributes{"role": value}).Check()
		wantText(t, err, "attribute role")
		if err != nil && strings.ContainsAny(err.Error(), "\n\r\x1b\u009b\u202e") {
			t.Errorf("the error for %q could harm a terminal: %q", value, err)
		}
	}
}

func TestInspect(t *testing.T) {
	a := newAuthority(t)
	issued, b := mustIssue(t, a, now, Attributes{"role": "x"})
	c, h, err := Inspect(b)
	if err != nil || c.Serial != issued.Serial || h.Identifier() != a.Identifier() {
		t.Errorf("%+v, %v, %v", c, h, err)
	}
	b[len(b)-1] ^= 1
	_, _, err = Inspect(b)
	wantCode(t, err, code.CredentialForged, issued.Serial.String(), a.Identifier().String())
}

func TestSerialText(t *testing.T) {
	s := serial(7)
	if got, err := ParseSerial(s.String()); err != nil || got != s {
		t.Errorf("%s reads back as %s, %v", s, got, err)
	}
	for _, text := range []string{"", "00", strings.Repeat("0", 32), strings.Repeat("A", 32), strings.Repeat("g", 32), s.String() + "00", " " + s.String()[1:]} {
		if _, err := ParseSerial(text); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
}
