package kubetoken

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// Bounds of a set of keys. An issuer has one or two, a few while they change.
const (
	maxKeysLen = 1 << 20 // bytes of a set
	maxKeys    = 100
	minRSA     = 2048 // bits: RFC 7518, section 3.3
	maxRSA     = 8192 // bits: verifying takes time quadratic in them
)

// A key is a public key of the issuer.
type key struct {
	id        string // kid; "" for a key of any
	algorithm string // alg, the only one that it is for; "" for any of its kind
	public    crypto.PublicKey
}

// parseKeys reads a JSON Web Key Set (RFC 7517, section 5), or public keys in
// PEM. There is at least one.
func parseKeys(data []byte) ([]key, error) {
	if trimmed := bytes.TrimSpace(data); bytes.HasPrefix(trimmed, []byte("{")) {
		return parseSet(trimmed)
	}
	return parsePEM(data)
}

// parseSet reads a JSON Web Key Set. Keys that cannot be used are passed over,
// as its section 5 asks for, unless there is no other.
func parseSet(data []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("not a JSON Web Key Set: want an object with a list of keys")
	}
	if n := len(set.Keys); n == 0 || n > maxKeys {
		return nil, fmt.Errorf("the set has %d keys, want 1 to %d", n, maxKeys)
	}
	var keys []key
	var first error
	for i, raw := range set.Keys {
		k, err := parseJWK(raw)
		if err == nil {
			keys = append(keys, k)
		} else if first == nil {
			first = fmt.Errorf("of the set's %d keys none can be used: key %d: %w", len(set.Keys), i+1, err)
		}
	}
	if len(keys) == 0 {
		return nil, first
	}
	return keys, nil
}

// parseJWK reads a JSON Web Key that signs.
func parseJWK(raw []byte) (key, error) {
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return key{}, errors.New("not a JSON Web Key of a known type (RFC 7517)")
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return key{}, fmt.Errorf("its use is %s, want sig", shown(jwk.Use))
	}
	if len(jwk.KeyID) > maxText {
		return key{}, fmt.Errorf("its kid has %d bytes, at most %d", len(jwk.KeyID), maxText)
	}
	k := key{jwk.KeyID, jwk.Algorithm, jwk.Key}
	return k, checkKey(k.public)
}

// parsePEM reads public keys, as kube-apiserver takes them for
// --service-account-key-file. They have no names, so that each may be any.
func parsePEM(data []byte) ([]key, error) {
	var keys []key
	for rest := data; len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("neither a JSON Web Key Set nor PEM")
		}
		k, err := parseBlock(block)
		if err == nil && len(keys) == maxKeys {
			err = fmt.Errorf("at most %d keys fit", maxKeys)
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, k)
	}
	if keys == nil {
		return nil, errors.New("there are no keys")
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (k key, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		k.public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		k.public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		return k, errors.New("a private key, which nobody but the issuer should have: write the public one (openssl pkey -pubout)")
	default:
		return k, fmt.Errorf("%s, want PUBLIC KEY", shown(block.Type))
	}
	if err != nil {
		return k, errors.New("not a public key in DER")
	}
	return k, checkKey(k.public)
}

// checkKey refuses what is no public key, weak, or slow to verify with.
func checkKey(public crypto.PublicKey) error {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("an RSA key of %d bits, want %d to %d", n, minRSA, maxRSA)
		}
		return nil
	case *ecdsa.PublicKey:
		if ecdsaAlgorithm(p) == "" {
			return fmt.Errorf("an ECDSA key on %s, want P-256, P-384 or P-521", p.Params().Name)
		}
		return nil
	}
	return errors.New("not a public key of RSA or ECDSA")
}

// ecdsaAlgorithm returns the algorithm that a curve is for (RFC 7518, section
// 3.4).
func ecdsaAlgorithm(p *ecdsa.PublicKey) string {
	switch p.Curve {
	case elliptic.P256():
		return oidc.ES256
	case elliptic.P384():
		return oidc.ES384
	case elliptic.P521():
		return oidc.ES512
	}
	return ""
}

// signs reports whether the key may have made a signature of an algorithm.
func (k key) signs(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return algorithm == oidc.RS256 || algorithm == oidc.RS384 || algorithm == oidc.RS512
	case *ecdsa.PublicKey:
		return algorithm == ecdsaAlgorithm(p)
	}
	return false
}

// named returns those of keys that have a name, or none at all.
func named(keys []key, id string) (list []key) {
	for _, k := range keys {
		if k.id == id || k.id == "" {
			list = append(list, k)
		}
	}
	return list
}

// candidates returns those of keys that a token with that header may be signed
// by.
func candidates(keys []key, h header) (list []key) {
	for _, k := range keys {
		if k.signs(h.Algorithm) {
			list = append(list, k)
		}
	}
	return list
}
