package kubetoken

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
)

// What a token of each algorithm proves.
func TestVerify(t *testing.T) {
	k := testKeys()
	v := start(t, withFile(t, k.rsa, k.p256, k.p384, k.p521), nil)
	want := credential.Attributes{AttrNamespace: "shop", AttrServiceAccount: "api", AttrPod: "api-7d9c5-x2x8v"}
	for _, key := range []signingKey{k.rsa, k.p256, k.p384, k.p521} {
		subject, attrs, err := v.Verify(t.Context(), key.sign(t, goodClaims(testIssuer)))
		if err != nil {
			t.Fatalf("%s: %v", key.id, err)
		}
		if want := testIssuer + goodSubject; subject != want {
			t.Errorf("%s: got the subject %q, want %q", key.id, subject, want)
		}
		if !maps.Equal(attrs, want) {
			t.Errorf("%s: got %v, want %v", key.id, attrs, want)
		}
		if err := attrs.Check(); err != nil {
			t.Error(err)
		}
	}
}

// Tokens that the issuer has signed and that are not for us, not for now, or
// not of a pod.
func TestClaimsRefused(t *testing.T) {
	k := testKeys()
	v := start(t, withFile(t, k.p256), nil)
	good := goodClaims(testIssuer)
	bearer := func(name string, value any) object { return good.with("kubernetes.io", goodBearer().with(name, value)) }
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for _, tt := range []struct {
		name   string
		claims object
		words  string
	}{
		{"other audience", good.with("aud", []string{"https://kubernetes.default.svc"}), `for the audience "https://kubernetes.default.svc", want culvert: set audience: culvert`},
		{"part of the audience", good.with("aud", "culver"), "for the audience"},
		{"no audience", good.with("aud", nil), "for the audience"},
		{"null audience", good.with("aud", []any{nil}), "for the audience"},
		{"audience of a wrong type", good.with("aud", 5), ""},
		{"one of two audiences", good.with("aud", []string{testAudience, "vault"}), "for 2 audiences"},
		{"twice the audience", good.with("aud", []string{testAudience, testAudience}), "for 2 audiences"},
		{"other issuer", good.with("iss", "https://kubernetes.default.svc"), `of the issuer "https://kubernetes.default.svc"`},
		{"issuer with a slash", good.with("iss", testIssuer+"/"), "of the issuer"},
		{"no issuer", good.with("iss", nil), "of the issuer"},
		{"issuer of a wrong type", good.with("iss", []string{testIssuer}), "payload"},
		{"expired", good.with("exp", in(-2*time.Minute)), "expired at"},
		{"no end", good.with("exp", nil), "no end"},
		{"an end of null", object{"iss": testIssuer, "aud": testAudience, "exp": nil}, ""},
		{"an end of 0", good.with("exp", 0), "other types"},
		{"an end in text", good.with("exp", "tomorrow"), ""},
		{"an end beyond all", good.with("exp", 1e300), "other types"},
		{"an end that overflows", good.with("exp", int64(1)<<62), "other types"},
		{"negative", good.with("nbf", -5), "other types"},
		{"not yet", good.with("nbf", in(2*time.Minute)), "holds from"},
		{"issued later", good.with("nbf", nil).with("iat", in(2*time.Minute)), "issued at"},
		{"never issued", good.with("iat", nil), "no beginning"},
		{"without a pod", bearer("pod", nil), "not bound to a pod"},
		{"a pod of null", good.with("kubernetes.io", object{"namespace": "shop", "serviceaccount": object{"name": "api", "uid": "1"}, "pod": nil}), "not bound to a pod"},
		{"a pod without a name", bearer("pod", object{"uid": "1"}), "names a pod without"},
		{"a pod without a UID", bearer("pod", object{"name": "api-0"}), "names a pod without"},
		{"a pod's name with a slash", bearer("pod", object{"name": "a/b", "uid": "1"}), "names a pod without"},
		{"a pod's UID with a slash", bearer("pod", object{"name": "a", "uid": "b/1"}), "names a pod without"},
		{"a pod of a wrong type", bearer("pod", "api-0"), "other types"},
		{"no claims of Kubernetes", good.with("kubernetes.io", nil), "no ServiceAccount token"},
		{"no namespace", bearer("namespace", nil), "no ServiceAccount token"},
		{"a namespace with a dot", bearer("namespace", "a.b"), "no ServiceAccount token"},
		{"a namespace with a line", bearer("namespace", "a\nb"), "no ServiceAccount token"},
		{"a long namespace", bearer("namespace", strings.Repeat("a", 64)), "no ServiceAccount token"},
		{"no service account", bearer("serviceaccount", nil), "no ServiceAccount token"},
		{"another's namespace", bearer("namespace", "bank"), "subject"},
		{"another's account", bearer("serviceaccount", object{"name": "admin", "uid": "1"}), "subject"},
		{"another subject", good.with("sub", "system:serviceaccount:shop:admin"), "subject"},
		{"a user", good.with("sub", "system:admin"), "subject"},
		{"no subject", good.with("sub", nil), "subject"},
		{"a subject that goes on", good.with("sub", "system:serviceaccount:shop:api:x"), "subject"},
		{"claims elsewhere", good.with("_claim_names", object{"sub": "x"}), "not those of an ID token"},
		{"long texts", good.with("sub", strings.Repeat("\x1b[2J", 1000)), "subject"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, v, k.p256.sign(t, tt.claims), code.TokenRefused, tt.words)
		})
	}
	accepted(t, v, k.p256.sign(t, good)) // so that it was the change
	accepted(t, v, k.p256.sign(t, good.with("aud", testAudience)))
	accepted(t, v, k.p256.sign(t, good.with("nbf", nil)))
}

// Clocks may be apart by the skew, and no further.
func TestSkew(t *testing.T) {
	k := testKeys()
	for _, skew := range []time.Duration{0, 5 * time.Minute} {
		c := withFile(t, k.p256)
		c.Skew = skew
		v := start(t, c, nil)
		if skew == 0 {
			skew = DefaultSkew
		}
		const margin = 20 * time.Second
		at := func(name string, d time.Duration) string {
			return k.p256.sign(t, goodClaims(testIssuer).with(name, time.Now().Add(d).Unix()))
		}
		accepted(t, v, at("exp", margin-skew))
		refused(t, v, at("exp", -skew-margin), code.TokenRefused, "expired")
		accepted(t, v, at("nbf", skew-margin))
		refused(t, v, at("nbf", skew+margin), code.TokenRefused, "holds from")
		accepted(t, v, at("iat", skew-margin))
		refused(t, v, at("iat", skew+margin), code.TokenRefused, "issued at")
	}
}

// A token without a pod passes where that is allowed, and is another bearer
// than any pod.
func TestAllowWithoutPod(t *testing.T) {
	k := testKeys()
	c := withFile(t, k.p256)
	c.AllowWithoutPod = true
	v := start(t, c, nil)
	subject, attrs, err := v.Verify(t.Context(), k.p256.sign(t, goodClaims(testIssuer).with("kubernetes.io", goodBearer().with("pod", nil))))
	if err != nil {
		t.Fatal(err)
	}
	if want := testIssuer + "#serviceaccount/shop/api/77aa"; subject != want {
		t.Errorf("got the subject %q, want %q", subject, want)
	}
	if want := (credential.Attributes{AttrNamespace: "shop", AttrServiceAccount: "api"}); !maps.Equal(attrs, want) {
		t.Errorf("got %v, want %v", attrs, want)
	}
	refused(t, v, k.p256.sign(t, goodClaims(testIssuer).with("kubernetes.io", goodBearer().with("pod", object{"name": "x"}))), code.TokenRefused, "names a pod")
}

func TestNamespaces(t *testing.T) {
	k := testKeys()
	c := withFile(t, k.p256)
	c.Namespaces = []string{"bank", "shop"}
	v := start(t, c, nil)
	c.Namespaces[1] = "mine" // it is the Verifier's own by now
	accepted(t, v, k.p256.sign(t, goodClaims(testIssuer)))
	other := goodClaims(testIssuer).with("sub", "system:serviceaccount:mine:api").with("kubernetes.io", goodBearer().with("namespace", "mine"))
	refused(t, v, k.p256.sign(t, other), code.TokenRefused, "pods of namespace mine may not enrol")
}

// Names as long as Kubernetes lets them be fit what credentials can hold.
func TestLongestNames(t *testing.T) {
	k := testKeys()
	v := start(t, withFile(t, k.p256), nil)
	label := strings.Repeat("a", 63)
	name := label + "." + label + "." + label + "." + strings.Repeat("b", 61)
	claims := goodClaims(testIssuer).with("sub", "system:serviceaccount:"+label+":"+name).with("kubernetes.io", object{
		"namespace": label, "serviceaccount": object{"name": name, "uid": "1"}, "pod": object{"name": name, "uid": "2"},
	})
	_, attrs, err := v.Verify(t.Context(), k.p256.sign(t, claims))
	if err != nil {
		t.Fatal(err)
	}
	if err := attrs.Check(); err != nil {
		t.Error(err)
	}
}

// Only the algorithms that are allowed are accepted, whatever the keys are for.
func TestAlgorithms(t *testing.T) {
	k := testKeys()
	rs384 := k.rsa
	rs384.alg = jose.RS384
	unnamed := k.rsa.jwk()
	unnamed.Algorithm = ""
	c := Config{Issuer: testIssuer, Audience: testAudience, KeysFile: write(t, toJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{unnamed, k.p256.jwk()}}))}
	v := start(t, c, nil)
	refused(t, v, rs384.sign(t, goodClaims(testIssuer)), code.TokenRefused, `algorithm "RS384", and accepted are RS256, ES256, ES384, ES512`)
	c.Algorithms = []string{"RS384"}
	v = start(t, c, nil)
	accepted(t, v, rs384.sign(t, goodClaims(testIssuer)))
	refused(t, v, k.rsa.sign(t, goodClaims(testIssuer)), code.TokenRefused, `accepted are RS384`)
	refused(t, v, k.p256.sign(t, goodClaims(testIssuer)), code.TokenRefused, `accepted are RS384`)
}

// What only the operator should know is not in the reason that is sent.
func TestErrorsForTwo(t *testing.T) {
	e := unavailable(fmt.Errorf("https://10.0.0.1/openid/v1/jwks: connection refused"))
	if strings.Contains(e.Reason, "10.0.0.1") {
		t.Errorf("the reason %q tells the bearer where the keys are", e.Reason)
	}
	if !strings.Contains(e.Error(), "10.0.0.1") || e.Unwrap() == nil {
		t.Errorf("the error %q does not tell the operator", e)
	}

	v := start(t, withFile(t, testKeys().p256), nil)
	e = refused(t, v, testKeys().other.sign(t, goodClaims("https://k")), code.TokenRefused, "want "+testIssuer)
	if strings.Contains(e.Reason, testIssuer) {
		t.Errorf("the reason %q tells anybody the issuer's name", e.Reason)
	}
}
