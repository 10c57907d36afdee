package kubetoken

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/code"
)

// impatient reads keys whenever somebody misses one.
func impatient(v *Verifier) { v.keys.least = 0 }

func TestDiscovery(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.rsa, k.p256)
	v := start(t, i.config(), nil)
	accepted(t, v, k.rsa.sign(t, goodClaims(i.URL)))
	accepted(t, v, k.p256.sign(t, goodClaims(i.URL)))
	refused(t, v, k.rsa.sign(t, goodClaims(testIssuer)), code.TokenRefused, "another cluster's?")
	if n := i.count(); n != 1 {
		t.Errorf("the keys were read %d times, want once", n)
	}
}

// With a URL of keys, the issuer's name need not be one that can be reached.
func TestURLOfKeys(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.p256)
	c := i.config()
	c.Issuer, c.JWKSURL = "kubernetes", i.URL+"/openid/v1/jwks"
	v := start(t, c, nil)
	accepted(t, v, k.p256.sign(t, goodClaims("kubernetes")))
	if i.asked["/.well-known/openid-configuration"] != 0 {
		t.Error("discovery was asked")
	}
}

// A new key of the issuer is found when its first token comes, and one that was
// taken back counts until the keys are read again.
func TestRotation(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.rsa)
	v := start(t, i.config(), impatient)
	accepted(t, v, k.rsa.sign(t, goodClaims(i.URL)))
	i.serve(answer(set(t, k.p256)))
	accepted(t, v, k.rsa.sign(t, goodClaims(i.URL)))
	accepted(t, v, k.p256.sign(t, goodClaims(i.URL)))
	refused(t, v, k.rsa.sign(t, goodClaims(i.URL)), code.TokenRefused, `no key "rsa"`)
}

// Tokens with names of keys that do not exist do not make the issuer busy.
func TestUnknownKeysDoNotFlood(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.p256)
	v := start(t, i.config(), nil)
	accepted(t, v, k.p256.sign(t, goodClaims(i.URL)))
	for range 50 {
		refused(t, v, k.other.sign(t, goodClaims(i.URL)), code.TokenRefused, "no key")
	}
	if n := i.count(); n != 1 {
		t.Errorf("the keys were read %d times, want once", n)
	}
}

// Keys that were read work on while the issuer is away, and what cannot be
// judged is not said to be wrong.
func TestIssuerDown(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.p256)
	reports := make(chan error, 100)
	c := i.config()
	c.Refreshed = func(keys int, err error) {
		if keys != 1 {
			t.Errorf("%d keys are held, want 1", keys)
		}
		reports <- err
	}
	v := start(t, c, impatient)
	good := k.p256.sign(t, goodClaims(i.URL))
	accepted(t, v, good)
	if err := <-reports; err != nil {
		t.Errorf("the first reading reports %v", err)
	}
	i.CloseClientConnections()
	i.Listener.Close()
	e := refused(t, v, k.other.sign(t, goodClaims(i.URL)), code.Internal, "discovery: "+i.URL)
	if strings.Contains(e.Reason, "127.0.0.1") {
		t.Errorf("the reason names the issuer's address: %s", e.Reason)
	}
	if err := <-reports; err == nil {
		t.Error("the failed reading reports no error")
	}
	accepted(t, v, good)
}

// Answers that are no keys, and servers that must not be believed. The keys
// that are held stay.
func TestBadAnswers(t *testing.T) {
	k := testKeys()
	elsewhere := newIssuer(t, k.other)
	for _, tt := range []struct {
		name  string
		keys  http.HandlerFunc
		words string
	}{
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/openid/v1/jwks", http.StatusFound)
		}, "answers 302 and redirects"},
		{"unauthorized", status(401), "answers 401 and was shown no bearer token"},
		{"forbidden", status(403), "system:service-account-issuer-discovery"},
		{"not found", status(404), "answers 404"},
		{"broken", status(500), "answers 500"},
		{"no content", status(204), "answers 204"},
		{"oversize", answer(append(bytes.Repeat([]byte(" "), maxKeysLen), set(t, k.other)...)), "more than 1048576 bytes"},
		{"oversize header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHeaderLen))
			w.Write(set(t, k.other))
		}, "/openid/v1/jwks: "},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for _, err := w.Write([]byte("{")); err == nil; _, err = w.Write(bytes.Repeat([]byte(" "), 1<<16)) {
			}
		}, "more than 1048576 bytes"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			w.Write(set(t, k.other))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "reading the answer"},
		{"HTML", answer([]byte("<html>SECRET-BODY")), "not a JSON Web Key Set"},
		{"PEM", answer(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY"})), "not a JSON Web Key Set"},
		{"no keys", answer([]byte(`{"keys": []}`)), "has 0 keys"},
		{"another object", answer([]byte(`{}`)), "has 0 keys"},
		{"too many keys", answer([]byte(`{"keys": [` + strings.Repeat(`{},`, maxKeys) + `{}]}`)), "has 101 keys"},
		{"no usable key", answer([]byte(`{"keys": [{"kty":"oct","k":"AAAA","kid":"other"},{"kty":"what"}]}`)), "none can be used: key 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newIssuer(t, k.p256)
			v := start(t, i.config(), impatient)
			accepted(t, v, k.p256.sign(t, goodClaims(i.URL)))
			i.serve(tt.keys)
			e := refused(t, v, k.other.sign(t, goodClaims(i.URL)), code.Internal, tt.words)
			if !strings.Contains(e.Error(), i.URL) || strings.Contains(e.Error(), "SECRET-BODY") {
				t.Errorf("the error has no URL, or the answer's body: %v", e)
			}
			accepted(t, v, k.p256.sign(t, goodClaims(i.URL)))
		})
	}
	if n := elsewhere.count(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// What discovery says is not believed beyond what it is for.
func TestBadDiscovery(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.p256)
	plain := httptest.NewServer(answer(set(t, k.p256)))
	defer plain.Close()
	for _, tt := range []struct{ name, about, words string }{
		{"another issuer", `{"issuer": "https://evil", "jwks_uri": "` + i.URL + `/openid/v1/jwks"}`, `the issuer there is "https://evil"`},
		{"a slash", `{"issuer": "` + i.URL + `/", "jwks_uri": "` + i.URL + `/openid/v1/jwks"}`, "to the byte"},
		{"http", `{"issuer": "` + i.URL + `", "jwks_uri": "` + plain.URL + `"}`, "https://"},
		{"a file", `{"issuer": "` + i.URL + `", "jwks_uri": "file:///etc/passwd"}`, "https://"},
		{"a user", `{"issuer": "` + i.URL + `", "jwks_uri": "https://a:b@c/"}`, "without user"},
		{"nothing", `{}`, "issuer there is"},
		{"no JSON", `<`, "not the JSON"},
		{"no URL", `{"issuer": "` + i.URL + `"}`, "jwks_uri: is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i.mu.Lock()
			i.about = answer([]byte(tt.about))
			i.mu.Unlock()
			v := start(t, i.config(), nil)
			refused(t, v, k.p256.sign(t, goodClaims(i.URL)), code.Internal, tt.words)
		})
	}
}

// A server that another authority vouches for is not asked anything.
func TestOtherAuthority(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.p256)
	c := i.config()
	c.CAFile = ""
	v := start(t, c, nil)
	refused(t, v, k.p256.sign(t, goodClaims(i.URL)), code.Internal, "certificate")
	if n := i.count(); n != 0 {
		t.Errorf("the server was asked for keys %d times", n)
	}
	for _, tt := range []struct{ data, words string }{{"no PEM", "no certificate in PEM"}, {"", "no certificate in PEM"}} {
		c.CAFile = write(t, []byte(tt.data))
		refused(t, start(t, c, nil), k.p256.sign(t, goodClaims(i.URL)), code.Internal, tt.words)
	}
	c.CAFile = "/nowhere/ca.crt"
	refused(t, start(t, c, nil), k.p256.sign(t, goodClaims(i.URL)), code.Internal, "/nowhere/ca.crt")
}

// A server that does not answer, or never ends to, is given up; whoever asks
// does not wait longer than his context.
func TestSlowServer(t *testing.T) {
	k := testKeys()
	i := newIssuer(t, k.p256)
	release := make(chan struct{})
	i.serve(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"keys": [`))
		w.(http.Flusher).Flush()
		<-release // and not when the client gives up: its last look might see an end
	})
	t.Cleanup(func() { close(release) })
	v := start(t, i.config(), nil)
	token := k.p256.sign(t, goodClaims(i.URL))

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := v.Verify(ctx, token); err != context.DeadlineExceeded {
		t.Errorf("got %v, want the context's error", err)
	}
	watch := testenv.Start(t)
	_, _, err := v.Verify(t.Context(), token)
	took, lost := watch.Took(), watch.Lost()
	var e *Error
	if !errors.As(err, &e) || e.Code != code.Internal || took > findTimeout {
		t.Fatalf("got %v after %s", err, took)
	}
	// Whoever asks is told by himself where the news of the reading's end is late.
	late := lost > (findTimeout-loadTimeout)/2 && strings.Contains(e.Error(), "not read within "+findTimeout.String())
	if !late && !strings.Contains(e.Error(), "no whole answer within 5s") {
		t.Errorf("got %v, on a machine that has lost %s", e, lost)
	}
}

// A bearer token is shown to the issuer and to a URL that is set, and not to
// whom the issuer names.
func TestBearerToken(t *testing.T) {
	k := testKeys()
	i, other := newIssuer(t, k.p256), newIssuer(t, k.p256)
	secret := write(t, []byte("eyJ.the.secret\n"))
	c := i.config()
	c.BearerTokenFile = secret
	accepted(t, start(t, c, nil), k.p256.sign(t, goodClaims(i.URL)))
	for path, got := range i.auth {
		if want := "Bearer eyJ.the.secret"; got != want {
			t.Errorf("%s was shown %q, want %q", path, got, want)
		}
	}

	i.about = answer(toJSON(t, object{"issuer": i.URL, "jwks_uri": other.URL + "/openid/v1/jwks"}))
	accepted(t, start(t, c, nil), k.p256.sign(t, goodClaims(i.URL)))
	if got := other.auth["/openid/v1/jwks"]; other.count() != 1 || got != "" {
		t.Errorf("another server was asked %d times and shown %q", other.count(), got)
	}

	c.JWKSURL = other.URL + "/openid/v1/jwks"
	accepted(t, start(t, c, nil), k.p256.sign(t, goodClaims(i.URL)))
	if got, want := other.auth["/openid/v1/jwks"], "Bearer eyJ.the.secret"; got != want {
		t.Errorf("the URL that is set was shown %q, want %q", got, want)
	}

	other.serve(status(403))
	e := refused(t, start(t, c, nil), k.p256.sign(t, goodClaims(i.URL)), code.Internal, "bearer token's account")
	if strings.Contains(e.Error(), "secret") {
		t.Errorf("the error shows the bearer token: %v", e)
	}
	for _, bad := range []string{"", " \n", "a b", "a\r\nHost: b", "a\x00", strings.Repeat("a", maxBearerLen+1)} {
		if err := os.WriteFile(secret, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		e := refused(t, start(t, c, nil), k.p256.sign(t, goodClaims(i.URL)), code.Internal, secret)
		if strings.Contains(e.Error(), "Host: b") {
			t.Errorf("the error shows the bearer token: %v", e)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"https://a/x", "https://a/y", true},
		{"https://a", "https://a:443/y", true},
		{"https://A", "https://a", true},
		{"https://a", "https://a:444", false},
		{"https://a", "https://a.b", false},
		{"https://a", "http://a", false},
		{"https://[::1]:1/", "https://[::1]:1", true},
		{"", "", false},
		{"https://a@b", "https://b", false},
	} {
		if got := sameOrigin(tt.a, tt.b); got != tt.want {
			t.Errorf("%q, %q: got %t, want %t", tt.a, tt.b, got, tt.want)
		}
	}
}
