package kubetoken

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/pkg/code"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testIssuer   = "https://kubernetes.default.svc.cluster.local"
	testAudience = "culvert"
)

// A signingKey is an issuer's private key with what goes with it.
type signingKey struct {
	id      string
	alg     jose.SignatureAlgorithm
	private crypto.Signer
}

// testKeys are made once: RSA takes its time.
var testKeys = sync.OnceValue(func() (keys struct{ rsa, p256, p384, p521, other signingKey }) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	ec := func(id string, alg jose.SignatureAlgorithm, c elliptic.Curve) signingKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		return signingKey{id, alg, k}
	}
	keys.rsa = signingKey{"rsa", jose.RS256, r}
	keys.p256 = ec("p256", jose.ES256, elliptic.P256())
	keys.p384 = ec("p384", jose.ES384, elliptic.P384())
	keys.p521 = ec("p521", jose.ES512, elliptic.P521())
	keys.other = ec("other", jose.ES256, elliptic.P256())
	return keys
})

func (k signingKey) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(k.alg), Use: "sig"}
}

// set is the JSON Web Key Set of keys.
func set(t testing.TB, keys ...signingKey) []byte {
	t.Helper()
	var s jose.JSONWebKeySet
	for _, k := range keys {
		s.Keys = append(s.Keys, k.jwk())
	}
	return toJSON(t, s)
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// object is JSON that a test changes.
type object map[string]any

// with returns a copy with one entry changed; nil takes it out.
func (o object) with(name string, value any) object {
	c := maps.Clone(o)
	if c[name] = value; value == nil {
		delete(c, name)
	}
	return c
}

// goodClaims are those of a projected token, as an API server makes them.
func goodClaims(issuer string) object {
	now := time.Now().Unix()
	return object{
		"iss": issuer, "aud": []string{testAudience}, "sub": "system:serviceaccount:shop:api",
		"iat": now, "nbf": now, "exp": now + 3600, "jti": "4f0c2b0c-0d1b-4b55-9b7f-8f3c3b1d2a10",
		"kubernetes.io": goodBearer(),
	}
}

func goodBearer() object {
	return object{
		"namespace":      "shop",
		"node":           object{"name": "node-1", "uid": "b1b9"},
		"pod":            object{"name": "api-7d9c5-x2x8v", "uid": "5e0d3a4a"},
		"serviceaccount": object{"name": "api", "uid": "77aa"},
		"warnafter":      time.Now().Unix() + 3000,
	}
}

const goodSubject = "#pod/shop/api-7d9c5-x2x8v/5e0d3a4a" // behind the issuer

// sign makes a token of claims, with the key's own header.
func (k signingKey) sign(t testing.TB, claims any) string {
	t.Helper()
	return k.signAs(t, nil, toJSON(t, claims))
}

// signAs makes a token of a payload, with more in its header.
func (k signingKey) signAs(t testing.TB, header map[jose.HeaderKey]any, payload []byte) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithHeader("kid", k.id)
	for name, value := range header {
		o = o.WithHeader(name, value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.alg, Key: k.private}, o)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// join makes a token of parts, signed or not.
func join(header, payload, signature []byte) string {
	b := base64.RawURLEncoding
	return b.EncodeToString(header) + "." + b.EncodeToString(payload) + "." + b.EncodeToString(signature)
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start makes a Verifier that runs until the test ends. change, if not nil, may
// change it before.
func start(t testing.TB, c Config, change func(*Verifier)) *Verifier {
	t.Helper()
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(v)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v, want that its context was canceled", err)
		}
	})
	return v
}

// withFile is a Config of the test's issuer, with a file of keys.
func withFile(t testing.TB, keys ...signingKey) Config {
	t.Helper()
	return Config{Issuer: testIssuer, Audience: testAudience, KeysFile: write(t, set(t, keys...))}
}

// refused fails the test unless the token is refused, with a code and words,
// and without a part of it in the error.
func refused(t *testing.T, v *Verifier, token string, want code.Code, words string) *Error {
	t.Helper()
	subject, attrs, err := v.Verify(t.Context(), token)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %q, %v, %v, want an *Error", subject, attrs, err)
	}
	if subject != "" || attrs != nil {
		t.Errorf("got %q, %v beside the error", subject, attrs)
	}
	if e.Code != want || !strings.Contains(e.Error(), words) {
		t.Errorf("got %s: %v\nwant %s: … %s …", e.Code, e, want, words)
	}
	if len(e.Reason) > code.MaxReason || e.Reason != code.Printable(e.Reason) {
		t.Errorf("the reason is too long or cannot be printed: %q", e.Reason)
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 && strings.Contains(e.Error(), part) {
			t.Errorf("the error shows a part of the token: %v", e)
		}
	}
	return e
}

func accepted(t *testing.T, v *Verifier, token string) {
	t.Helper()
	if _, _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("got %v, want that the token is accepted", err)
	}
}

// An issuer is a real https server with discovery and keys, whose answers a
// test changes.
type issuer struct {
	*httptest.Server
	caFile string

	mu    sync.Mutex
	keys  http.HandlerFunc // nil: none
	about http.HandlerFunc // discovery; nil: as it should be
	asked map[string]int   // by path
	auth  map[string]string
}

func newIssuer(t testing.TB, keys ...signingKey) *issuer {
	t.Helper()
	i := &issuer{asked: map[string]int{}, auth: map[string]string{}}
	i.Server = httptest.NewUnstartedServer(i)
	i.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that give up
	i.StartTLS()
	t.Cleanup(i.Close)
	i.caFile = write(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}))
	i.serve(answer(set(t, keys...)))
	return i
}

func answer(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }
}

func status(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "SECRET-BODY", n) }
}

func (i *issuer) serve(keys http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.asked[r.URL.Path]++
	i.auth[r.URL.Path] = r.Header.Get("Authorization")
	keys, about := i.keys, i.about
	i.mu.Unlock()
	switch {
	case r.URL.Path == "/openid/v1/jwks":
		keys(w, r)
	case r.URL.Path != "/.well-known/openid-configuration":
		http.NotFound(w, r)
	case about != nil:
		about(w, r)
	default:
		b, _ := json.Marshal(object{"issuer": i.URL, "jwks_uri": i.URL + "/openid/v1/jwks"})
		w.Write(b)
	}
}

// count returns how often the keys were asked for.
func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked["/openid/v1/jwks"]
}

// config is a Config that finds the issuer's keys by discovery.
func (i *issuer) config() Config {
	return Config{Issuer: i.URL, Audience: testAudience, CAFile: i.caFile}
}
