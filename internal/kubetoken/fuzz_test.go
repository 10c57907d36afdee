package kubetoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
)

// Nothing that anybody sends makes Verify panic, or pass without the issuer's
// signature; every refusal can be printed.
func FuzzVerify(f *testing.F) {
	k := testKeys()
	good, second := k.p256.sign(f, goodClaims(testIssuer)), k.rsa.sign(f, goodClaims(testIssuer))
	parts := strings.Split(good, ".")
	for _, seed := range []string{
		good, second, k.other.sign(f, goodClaims(testIssuer)), "", "..", "a.b.c", good + ".",
		join([]byte(`{"alg":"none","kid":"p256"}`), []byte(`{"iss":"`+testIssuer+`"}`), []byte("x")),
		join([]byte(`{"alg":"ES256","kid":"p256","crit":["b64"],"b64":false}`), []byte(`{"iss":"`+testIssuer+`"}`), []byte("x")),
		join([]byte(`{"alg":"ES256","kid":"p256","jwk":{"kty":"EC"},"x5c":["AA"]}`), []byte(`{"iss":"`+testIssuer+`"}`), make([]byte, 64)),
		join([]byte(`{"alg":"RS256","kid":"rsa"}`), []byte(`{"iss":"`+testIssuer+`"}`), make([]byte, 256)),
		parts[0] + "." + parts[1] + ".",
	} {
		f.Add(seed)
	}
	v := start(f, withFile(f, k.rsa, k.p256), nil)
	own := strings.Join(parts[:2], ".")
	f.Fuzz(func(t *testing.T, token string) {
		subject, _, err := v.Verify(t.Context(), token)
		var e *Error
		switch {
		case err == nil && (token == second || strings.HasPrefix(token, own+".")):
			// Anybody can make another signature out of one of ECDSA: s is as good as -s.
		case err == nil:
			t.Errorf("accepted as %s", subject)
		case !errors.As(err, &e) || e.Code != code.TokenRefused:
			t.Errorf("got %v, want a refusal", err)
		case e.Reason != code.Printable(e.Reason) || len(e.Reason) > code.MaxReason:
			t.Errorf("the reason is not fit to be sent: %q", e.Reason)
		}
	})
}

// Whatever the issuer signs gets an error, or tells of a bearer that a
// credential can speak of.
func FuzzClaims(f *testing.F) {
	k := testKeys()
	for _, payload := range []any{
		goodClaims(testIssuer), goodClaims(testIssuer).with("aud", testAudience), goodClaims(testIssuer).with("kubernetes.io", nil),
		object{"iss": testIssuer},
		goodClaims(testIssuer).with("_claim_names", object{"a": "b"}).with("_claim_sources", object{"b": object{"endpoint": "https://127.0.0.1:1"}}),
	} {
		f.Add(toJSON(f, payload))
	}
	v := start(f, withFile(f, k.p256), nil)
	f.Fuzz(func(t *testing.T, payload []byte) {
		subject, attrs, err := v.Verify(t.Context(), k.p256.signAs(t, nil, payload))
		var e *Error
		switch {
		case err == nil:
			if attrs.Check() != nil || attrs[AttrPod] == "" || !strings.HasPrefix(subject, testIssuer+"#pod/") || code.Printable(subject) != subject {
				t.Errorf("%q: got %q, %v", payload, subject, attrs)
			}
		case !errors.As(err, &e) || e.Code != code.TokenRefused || e.Reason != code.Printable(e.Reason):
			t.Errorf("%q: got %v, want a refusal", payload, err)
		}
	})
}

// What is no set of keys gets an error, and what is one has keys to use.
func FuzzParseKeys(f *testing.F) {
	k := testKeys()
	for _, seed := range [][]byte{
		set(f, k.rsa, k.p256, k.p384), publicPEM(f, k.p256.private.Public()), publicPEM(f, k.rsa.private.Public()), nil, []byte(`{"keys":[{}]}`),
		[]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`), []byte(`{"keys":[{"kty":"RSA","n":"AA","e":"AQ"}]}`),
		[]byte(`{"keys":[{"kty":"RSA","x5c":["AA"],"n":"AA","e":"AQAB"}]}`),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxKeys {
			t.Fatalf("got %d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			signs := slices.ContainsFunc(Algorithms(), func(alg string) bool { return key{public: k.public}.signs(alg) })
			if checkKey(k.public) != nil || !signs {
				t.Errorf("a key that cannot be used: %T", k.public)
			}
		}
	})
}

// A claimed is claims, drawn to be right or wrong in each place.
type claimed struct {
	object
	wrong []string // what is wrong
}

// choose draws a value for a claim: a right one, or mostly so a wrong one.
func (c *claimed) choose(t *rapid.T, name string, right, wrong []any) any {
	if rapid.IntRange(0, 9).Draw(t, name+" is wrong") == 0 {
		c.wrong = append(c.wrong, name)
		return rapid.SampledFrom(wrong).Draw(t, name)
	}
	return rapid.SampledFrom(right).Draw(t, name)
}

func drawClaims(t *rapid.T) *claimed {
	now := time.Now().Unix()
	c := &claimed{object: object{}}
	c.object["iss"] = c.choose(t, "iss", []any{testIssuer}, []any{"", "https://evil", testIssuer + "/", strings.ToUpper(testIssuer), 5, nil, []string{testIssuer}})
	c.object["aud"] = c.choose(t, "aud", []any{testAudience, []string{testAudience}}, []any{"", "culver", "Culvert", []string{}, []string{"a", testAudience}, nil, 5, object{}})
	c.object["exp"] = c.choose(t, "exp", []any{now + 1, now + 3600, float64(now) + 0.5, now + 1<<30}, []any{now - 70, 0, -1, 1e300, nil, "x", "1e9"})
	c.object["iat"] = c.choose(t, "iat", []any{now, now - 1e6, now + 50}, []any{now + 70, 0, nil, "x", true})
	c.object["nbf"] = c.choose(t, "nbf", []any{now, now - 1e6, now + 50}, []any{now + 70, 0, "x", []int{}})
	namespace := rapid.SampledFrom([]any{"shop", "a", "kube-system"}).Draw(t, "namespace")
	account := rapid.SampledFrom([]any{"default", "a.b", "api"}).Draw(t, "account")
	c.object["sub"] = c.choose(t, "sub", []any{fmt.Sprintf("system:serviceaccount:%s:%s", namespace, account)}, []any{"", "system:admin", "system:serviceaccount:x:y", nil, 5})
	bad := []any{"", "A", "a/b", "a#b", "-a", "a\n", "ä", strings.Repeat("a", 300), nil, 5}
	names := []any{"api-0", "a.b-c.d", strings.Repeat("a", 253)}
	uids := []any{"5e0d3a4a-1111-2222-3333-444455556666", "1", strings.Repeat("f", 128)}
	badUIDs := []any{"", "a/b", "a#b", "a b", "ä", strings.Repeat("a", 129), nil, 5}
	c.object["kubernetes.io"] = object{
		"namespace":      namespace,
		"serviceaccount": object{"name": account, "uid": c.choose(t, "account's uid", uids, badUIDs)},
		"pod":            object{"name": c.choose(t, "pod", names, bad), "uid": c.choose(t, "pod's uid", uids, badUIDs)},
	}
	return c
}

// Of claims that the issuer has signed those are accepted that are right in
// every place, and their subject tells all of the bearer.
func TestClaimsProperty(t *testing.T) {
	k := testKeys()
	v := start(t, withFile(t, k.p256), nil)
	rapid.Check(t, func(r *rapid.T) {
		c := drawClaims(r)
		payload, err := json.Marshal(c.object)
		if err != nil {
			r.Fatal(err)
		}
		if len(payload) > 8<<10 || !bytes.HasPrefix(payload, []byte("{")) {
			r.Fatal("the test's own claims are of no use")
		}
		subject, attrs, err := v.Verify(t.Context(), k.p256.signAs(t, nil, payload))
		if (err == nil) != (len(c.wrong) == 0) {
			r.Fatalf("%s\nwrong: %q\ngot %v", payload, c.wrong, err)
		}
		if err != nil {
			return
		}
		want := fmt.Sprintf("%s#pod/%s/%s/", testIssuer, attrs[AttrNamespace], attrs[AttrPod])
		if !strings.HasPrefix(subject, want) || strings.Count(subject, "#") != 1 || attrs.Check() != nil {
			r.Fatalf("got %q and %v", subject, attrs)
		}
	})
}
