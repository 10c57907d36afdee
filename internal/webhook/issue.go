package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// How long certificates that [Issue] makes hold.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 365 * 24 * time.Hour
	// early is how far before now they begin to hold, for clocks that are behind.
	early = 5 * time.Minute
)

// The files that [Issue] makes.
const (
	AuthorityFile    = "ca.crt" // of the authority, and of those before it that still hold: the webhook configuration's caBundle
	AuthorityKeyFile = "ca.key" // of the authority; it stays where it was made
	ServerFile       = "tls.crt"
	ServerKeyFile    = "tls.key"
)

// An Order says which certificate is wanted.
type Order struct {
	Names        []string // DNS names of the server, at least one
	NewAuthority bool     // make another authority, even if there is one that holds
	Renew        bool     // make another certificate, even if most of its time is left
}

// An Issued is what Issue has made.
type Issued struct {
	Authority bool // is a new one
	Server    bool // the server's certificate is a new one
	NotAfter  time.Time
}

// Issue makes, in a folder, what a webhook serves with and API servers trust: an
// authority for these names alone, unless there is one, and the server's
// certificate of it, unless there is one of which more than a third of its time is
// left. Keys are ECDSA on P-256, their files have mode 0600. When an authority is
// replaced, the one before stays trusted, so that the server's certificate and what
// API servers trust can be replaced in any order.
func Issue(dir string, order Order, now time.Time) (*Issued, error) {
	if len(order.Names) == 0 {
		return nil, errors.New("a certificate needs a name")
	}
	authority, key, trusted, err := readAuthority(dir, order.Names, now)
	if err != nil {
		return nil, err
	}
	issued := &Issued{}
	if authority == nil || order.NewAuthority {
		if authority, key, err = makeAuthority(dir, order.Names, trusted, now); err != nil {
			return nil, err
		}
		issued.Authority = true
	}
	leaf := readServer(dir)
	if leaf == nil || order.Renew || !lasts(leaf, authority, order.Names, now) {
		if leaf, err = makeServer(dir, order.Names, authority, key, now); err != nil {
			return nil, err
		}
		issued.Server = true
	}
	issued.NotAfter = leaf.NotAfter
	return issued, nil
}

// readAuthority returns the authority in a folder and its key, and all that are
// trusted and still hold; nil if there is none, or none for these names.
func readAuthority(dir string, names []string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, []*x509.Certificate, error) {
	keyText, err := readPEM(filepath.Join(dir, AuthorityKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	key, err := parseKey(keyText)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, AuthorityKeyFile), err)
	}
	text, err := readPEM(filepath.Join(dir, AuthorityFile))
	if err != nil {
		return nil, nil, nil, err
	}
	all, err := parseCertificates(text)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, AuthorityFile), err)
	}
	trusted := slices.DeleteFunc(all, func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
	for _, c := range trusted {
		if key.PublicKey.Equal(c.PublicKey) && slices.Equal(c.PermittedDNSDomains, names) && now.Add(serverLife).Before(c.NotAfter) {
			return c, key, trusted, nil
		}
	}
	return nil, nil, trusted, nil
}

// makeAuthority makes another authority, which stands before those that are trusted.
func makeAuthority(dir string, names []string, trusted []*x509.Certificate, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "culvert webhook " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-early), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: names,
	}
	certificate, err := sign(template, template, key, key)
	if err != nil {
		return nil, nil, err
	}
	const most = 8 // trusted at once
	bundle := slices.Concat([]*x509.Certificate{certificate}, trusted[:min(len(trusted), most-1)])
	return certificate, key, errors.Join(
		writeKey(filepath.Join(dir, AuthorityKeyFile), key),
		writeFile(filepath.Join(dir, AuthorityFile), encode(bundle), 0o644),
	)
}

// readServer returns the server's certificate in a folder, nil if there is none that
// can be used with its key.
func readServer(dir string) *x509.Certificate {
	text, err := readPEM(filepath.Join(dir, ServerFile))
	if err != nil {
		return nil
	}
	all, err := parseCertificates(text)
	if err != nil || len(all) == 0 {
		return nil
	}
	keyText, err := readPEM(filepath.Join(dir, ServerKeyFile))
	if err != nil {
		return nil
	}
	key, err := parseKey(keyText)
	if err != nil || !key.PublicKey.Equal(all[0].PublicKey) {
		return nil
	}
	return all[0]
}

// lasts reports whether a certificate is of that authority and for those names, and
// has more than a third of its time left.
func lasts(leaf, authority *x509.Certificate, names []string, now time.Time) bool {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.CheckSignatureFrom(authority) == nil && slices.Equal(leaf.DNSNames, names) && leaf.NotAfter.Sub(now) > life/3
}

func makeServer(dir string, names []string, authority *x509.Certificate, by *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := sign(&x509.Certificate{
		Subject:   pkix.Name{CommonName: names[0][:min(len(names[0]), 64)]}, // RFC 5280: at most 64
		NotBefore: now.Add(-early), NotAfter: now.Add(serverLife), DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, key, by)
	if err != nil {
		return nil, err
	}
	return leaf, errors.Join(
		writeKey(filepath.Join(dir, ServerKeyFile), key),
		writeFile(filepath.Join(dir, ServerFile), encode([]*x509.Certificate{leaf}), 0o644),
	)
}

// sign makes the certificate of a key.
func sign(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// parseCertificates reads the certificates in a file.
func parseCertificates(text []byte) (all []*x509.Certificate, err error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return all, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s, want certificates alone", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all, text = append(all, c), rest
	}
}

var errKey = errors.New("holds no key that was made here: remove the folder's files, and make them again")

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errKey
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errKey // which says nothing of the key
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errKey
	}
	return ec, nil
}

func encode(all []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range all {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a buffer takes everything
	}
	return b.Bytes()
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// writeFile puts a file in the place of another, whole or not at all.
func writeFile(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is there only after a failure
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
