package kubetoken

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/culvert-net/culvert/pkg/code"
)

func publicPEM(t testing.TB, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Keys in PEM have no names: a token may be of any.
func TestPEM(t *testing.T) {
	k := testKeys()
	rsaKey := k.rsa.private.(*rsa.PrivateKey)
	file := append(publicPEM(t, k.p256.private.Public()), '\n')
	file = append(file, pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)})...)
	v := start(t, Config{Issuer: testIssuer, Audience: testAudience, KeysFile: write(t, file)}, nil)
	accepted(t, v, k.p256.sign(t, goodClaims(testIssuer)))
	accepted(t, v, k.rsa.sign(t, goodClaims(testIssuer)))
	refused(t, v, k.other.sign(t, goodClaims(testIssuer)), code.TokenRefused, "signature is not that")
	refused(t, v, k.p384.sign(t, goodClaims(testIssuer)), code.TokenRefused, "signature is not that")
}

// A file that changes is read again.
func TestFileChanges(t *testing.T) {
	k := testKeys()
	c := withFile(t, k.p256)
	v := start(t, c, impatient)
	accepted(t, v, k.p256.sign(t, goodClaims(testIssuer)))
	if err := os.WriteFile(c.KeysFile, set(t, k.rsa), 0o600); err != nil {
		t.Fatal(err)
	}
	accepted(t, v, k.rsa.sign(t, goodClaims(testIssuer)))
	if err := os.Remove(c.KeysFile); err != nil {
		t.Fatal(err)
	}
	refused(t, v, k.p256.sign(t, goodClaims(testIssuer)), code.Internal, c.KeysFile)
	accepted(t, v, k.rsa.sign(t, goodClaims(testIssuer)))
}

func TestBadKeys(t *testing.T) {
	k := testKeys()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k.p256.private)
	if err != nil {
		t.Fatal(err)
	}
	jwks := func(j jose.JSONWebKey) string {
		return string(toJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{j}}))
	}
	for _, tt := range []struct{ name, data, words string }{
		{"empty", "", "no keys"},
		{"blank", " \n", "no keys"},
		{"text", "hello", "neither a JSON Web Key Set nor PEM"},
		{"a list", "[]", "neither"},
		{"half an object", "{", "not a JSON Web Key Set"},
		{"small RSA in PEM", string(publicPEM(t, small.Public())), "1024 bits"},
		{"small RSA", jwks(jose.JSONWebKey{Key: small.Public()}), "1024 bits"},
		{"P-224", string(publicPEM(t, p224.Public())), "P-224"},
		{"Ed25519 in PEM", string(publicPEM(t, ed)), "RSA or ECDSA"},
		{"Ed25519", jwks(jose.JSONWebKey{Key: ed}), "RSA or ECDSA"},
		{"a secret", jwks(jose.JSONWebKey{Key: []byte("secret-secret-secret")}), "RSA or ECDSA"},
		{"a private JWK", jwks(jose.JSONWebKey{Key: k.p256.private}), "RSA or ECDSA"},
		{"for encryption", jwks(jose.JSONWebKey{Key: k.p256.private.Public(), Use: "enc"}), `use is "enc"`},
		{"a long name", jwks(jose.JSONWebKey{Key: k.p256.private.Public(), KeyID: strings.Repeat("a", 600)}), "kid has 600 bytes"},
		{"a private key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), "a private key"},
		{"a certificate", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pkcs8})), `"CERTIFICATE", want PUBLIC KEY`},
		{"no DER", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})), "not a public key in DER"},
		{"something behind", string(publicPEM(t, k.p256.private.Public())) + "hello", "neither"},
		{"many in PEM", strings.Repeat(string(publicPEM(t, k.p256.private.Public())), maxKeys+1), "at most 100 keys"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := parseKeys([]byte(tt.data))
			if err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, %v, want … %s …", keys, err, tt.words)
			}
		})
	}
}

// Keys that cannot be used do not keep others from it.
func TestUnusableKeysBesideGood(t *testing.T) {
	k := testKeys()
	good := strings.TrimSuffix(strings.TrimPrefix(string(set(t, k.p256)), `{"keys":[`), "]}")
	keys, err := parseKeys([]byte(`{"keys": [{"kty": "OKP", "crv": "X448", "x": "AAAA"}, 5, null, ` + good + `, {"kty":"oct","k":"AAAA","kid":"p256"}]}`))
	if err != nil || len(keys) != 1 || keys[0].id != "p256" {
		t.Errorf("got %v, %v", keys, err)
	}
}

// Files that would never end, or be waited for, are not read.
func TestOddFiles(t *testing.T) {
	for path, words := range map[string]string{
		t.TempDir():                   "not a regular file",
		"/dev/zero":                   "not a regular file",
		"/nowhere/keys":               "/nowhere/keys",
		write(t, make([]byte, 2<<20)): "more than 1048576 bytes",
	} {
		if _, err := loadFile(path); err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want … %s …", path, err, words)
		}
	}
}
