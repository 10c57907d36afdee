package kubetoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
)

// Nobody who has no key of the issuer makes a token, or changes one.
func TestForged(t *testing.T) {
	k := testKeys()
	v := start(t, withFile(t, k.rsa, k.p256), nil)
	payload := toJSON(t, goodClaims(testIssuer))
	good := k.p256.sign(t, goodClaims(testIssuer))
	parts := strings.Split(good, ".")
	as := func(by signingKey, id string) signingKey { by.id = id; return by }

	der, err := x509.MarshalPKIXPublicKey(k.rsa.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(secret []byte) string {
		token := join([]byte(`{"alg":"HS256","kid":"rsa"}`), payload, []byte("-"))
		signed := token[:strings.LastIndex(token, ".")]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + strictBase64.EncodeToString(mac.Sum(nil))
	}
	mine := k.other.jwk()
	for _, tt := range []struct{ name, token, words string }{
		{"empty", "", "0 bytes"},
		{"too long", strings.Repeat("a", credential.MaxToken+1), "16385 bytes"},
		{"no token", "hello", "1 parts"},
		{"none", join([]byte(`{"alg":"none","kid":"p256"}`), payload, []byte("-")), `algorithm "none"`},
		{"none, unsigned", join([]byte(`{"alg":"none","kid":"p256"}`), payload, nil), "signature is not base64url"},
		{"None", join([]byte(`{"alg":"nOnE","kid":"p256"}`), payload, []byte("-")), `algorithm "nOnE"`},
		{"no algorithm", join([]byte(`{"kid":"p256"}`), payload, []byte("-")), `algorithm ""`},
		{"algorithm of a wrong type", join([]byte(`{"alg":["ES256"],"kid":"p256"}`), payload, []byte("-")), "header"},
		{"HMAC by the public key, PEM", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), `algorithm "HS256"`},
		{"HMAC by the public key, DER", hs256(der), `algorithm "HS256"`},
		{"the name of the issuer's key", as(k.other, "p256").sign(t, goodClaims(testIssuer)), "signature is not that"},
		{"the name of the issuer's other key", as(k.p256, "rsa").sign(t, goodClaims(testIssuer)), "signature is not that"},
		{"a key that is not there", k.other.sign(t, goodClaims(testIssuer)), `no key "other"`},
		{"no name of a key", as(k.p256, "").sign(t, goodClaims(testIssuer)), "names its key"},
		{"a long name of a key", as(k.p256, strings.Repeat("x", 600)).sign(t, goodClaims(testIssuer)), "names its key"},
		{"a key in the header", as(k.other, "p256").signAs(t, map[jose.HeaderKey]any{"jwk": &mine}, payload), "signature is not that"},
		{"half a key in the header", join([]byte(`{"alg":"ES256","kid":"p256","jwk":{"kty":"EC"}}`), payload, make([]byte, 64)), "parameter of a wrong type"},
		{"critical header", k.p256.signAs(t, map[jose.HeaderKey]any{"crit": []string{"b64"}, "b64": false}, payload), "crit"},
		{"another payload", parts[0] + "." + strictBase64.EncodeToString(toJSON(t, goodClaims(testIssuer).with("exp", time.Now().Add(9*time.Hour).Unix()))) + "." + parts[2], "signature is not that"},
		{"JSON serialization", fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]), "1 parts"},
		{"four parts", good + ".aaaa", "4 parts"},
		{"space before", " " + good, "base64url"},
		{"a line behind", good + "\n", "base64url"},
		{"a line within", good[:20] + "\n" + good[20:], "base64url"},
		{"padding", good + "==", "base64url"},
		{"no JSON", join([]byte("x"), payload, []byte("-")), "header"},
		{"a payload that is no object", join([]byte(`{"alg":"ES256","kid":"p256"}`), []byte(`[]`), []byte("-")), "payload"},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, v, tt.token, code.TokenRefused, tt.words) })
	}
	accepted(t, v, good)
}

// A key signs with its own algorithm only, and a curve is not another one.
func TestKeyOfAnotherAlgorithm(t *testing.T) {
	k := testKeys()
	p384 := k.p384
	p384.id = "p256" // where a key of P-256 is expected
	lying := k.p384.jwk()
	lying.Algorithm = "ES256"
	v := start(t, Config{
		Issuer: testIssuer, Audience: testAudience, Algorithms: []string{"RS256", "ES384"},
		KeysFile: write(t, toJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k.p256.jwk(), lying}})),
	}, nil)
	refused(t, v, p384.sign(t, goodClaims(testIssuer)), code.TokenRefused, "signature is not that")
	refused(t, v, k.p384.sign(t, goodClaims(testIssuer)), code.TokenRefused, "signature is not that") // its alg says ES256
}

// No bit of a token can be changed, its last ones included.
func TestBitFlips(t *testing.T) {
	k := testKeys()
	v := start(t, withFile(t, k.rsa, k.p256), nil)
	for _, key := range []signingKey{k.rsa, k.p256} {
		good := key.sign(t, goodClaims(testIssuer))
		accepted(t, v, good)
		for i := range good {
			for bit := range 7 {
				b := []byte(good)
				b[i] ^= 1 << bit
				if _, _, err := v.Verify(t.Context(), string(b)); err == nil {
					t.Fatalf("%s: accepted with bit %d of byte %d of %d changed", key.id, bit, i, len(good))
				}
			}
		}
	}
}

// A token that was cut off anywhere is refused.
func TestCut(t *testing.T) {
	k := testKeys()
	v := start(t, withFile(t, k.p256), nil)
	good := k.p256.sign(t, goodClaims(testIssuer))
	for i := range good {
		if _, _, err := v.Verify(t.Context(), good[:i]); err == nil {
			t.Fatalf("accepted %d of %d bytes", i, len(good))
		}
		if _, _, err := v.Verify(t.Context(), good[i+1:]); err == nil {
			t.Fatalf("accepted from byte %d of %d on", i+1, len(good))
		}
	}
}
