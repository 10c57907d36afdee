package admin

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/culvert-net/culvert/pkg/credential"
)

const (
	tokenLen = 2 * 32 // hexadecimal digits
	// maxAccess bounds the file, in bytes.
	maxAccess = 4 << 10
	// pemType is that of the server's certificate in the file.
	pemType = "CERTIFICATE"
	// serverName is what the certificate is for, and the Host of requests: one that
	// the admin server answers to.
	serverName = "localhost"
	// handshakeTime bounds how long a server may take to prove who it is.
	handshakeTime = 10 * time.Second
)

// An Access is what an authority and its commands know each other by: a token,
// which the client shows, and a certificate, whose key the server proves to have
// before it is shown anything (TLS 1.3, RFC 8446). Both are made at each start of
// the authority, and stand in one file that only its user can read: whoever else
// listens at the admin address, or carries what is said to it, has neither.
type Access struct {
	token credential.Secret
	leaf  *x509.Certificate
	key   ed25519.PrivateKey // the server's; nil at a client
}

// AccessFile returns where the access to the authority with that store is.
func AccessFile(store string) string { return store + ".admin" }

// NewAccess makes a new access, and puts what clients need of it in the place of
// what a file has.
func NewAccess(path string) (*Access, error) {
	a, err := newAccess()
	if err == nil {
		err = a.write(path)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the access to the admin server: %w", err)
	}
	return a, nil
}

func newAccess() (*Access, error) {
	var b [tokenLen / 2]byte
	_, _ = rand.Read(b[:]) // never fails
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{serverName},
		// The key's time is that of the process, whatever the clock says meanwhile.
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Access{credential.NewSecret(hex.AppendEncode(nil, b[:])), leaf, private}, nil
}

func (a *Access) write(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(append(a.token.Reveal(), '\n'), pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: a.leaf.Raw})...))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// ReadAccess reads what NewAccess has written. The error wraps [ErrNotRunning] if
// there is no file: the authority has never run with an admin address.
func ReadAccess(path string) (*Access, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the access to the admin server: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAccess+1))
	if err != nil {
		return nil, fmt.Errorf("reading the access to the admin server: %w", err)
	}
	a, err := parseAccess(b)
	if err != nil {
		return nil, fmt.Errorf("reading the access to the admin server: %s: %w: start the authority again, which makes a new one", path, err)
	}
	return a, nil
}

// parseAccess reads a file's content, all of it. Its errors have nothing of it.
func parseAccess(b []byte) (*Access, error) {
	if len(b) > maxAccess {
		return nil, fmt.Errorf("more than %d bytes", maxAccess)
	}
	token, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || len(token) != tokenLen {
		return nil, fmt.Errorf("a first line of %d bytes, want %d and a line's end", len(token), tokenLen)
	}
	block, rest := pem.Decode(rest)
	if block == nil || block.Type != pemType || len(block.Headers) > 0 || len(rest) > 0 {
		return nil, errors.New("no certificate after the first line, or more than that")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New("its certificate is none")
	}
	return &Access{token: credential.NewSecret(token), leaf: leaf}, nil
}

// ServerTLS returns how the server of an access that was made here speaks TLS.
func (a *Access) ServerTLS() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{a.leaf.Raw}, PrivateKey: a.key, Leaf: a.leaf}},
		MinVersion:   tls.VersionTLS13, NextProtos: []string{"http/1.1"},
	}
}

// dial connects to the server at an address, and returns when it has proven that
// it is the one. The error wraps [ErrNotRunning] if nobody listens there, and
// [ErrImpostor] if somebody does who is not.
func (a *Access) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	switch {
	case err != nil && nobodyListens(err):
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	case err != nil:
		return nil, err
	}
	c, err := a.secure(ctx, nc)
	if err != nil {
		_ = nc.Close() // nothing was said
		return nil, err
	}
	return c, nil
}

// secure is dial with a conn that there is, which stays the caller's on an error.
func (a *Access) secure(ctx context.Context, nc net.Conn) (net.Conn, error) {
	roots := x509.NewCertPool()
	roots.AddCert(a.leaf)
	c := tls.Client(nc, &tls.Config{RootCAs: roots, ServerName: serverName, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}})
	within, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := c.HandshakeContext(within); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", ErrImpostor, err)
	}
	return c, nil
}

// nobodyListens reports whether a dial failed since there is no such server.
func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}
