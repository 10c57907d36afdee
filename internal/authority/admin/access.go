package admin

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/culvert-net/culvert/pkg/credential"
)

const tokenLen = 2 * 32 // hexadecimal digits

// TokenFile returns where the token of the authority with that store is.
func TokenFile(store string) string { return store + ".admin" }

// NewToken draws a token and puts it in the place of what a file has, which only
// this user can read.
func NewToken(path string) (credential.Secret, error) {
	var b [tokenLen / 2]byte
	_, _ = rand.Read(b[:]) // never fails
	text := hex.AppendEncode(nil, b[:])
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return credential.Secret{}, fmt.Errorf("writing the admin server's token: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return credential.Secret{}, errors.Join(fmt.Errorf("writing the admin server's token: %w", err), os.Remove(f.Name()))
	}
	return credential.NewSecret(text), nil
}

// ReadToken reads what NewToken has written. The error wraps [ErrNotRunning] if
// there is no file: the authority has never run with an admin address.
func ReadToken(path string) (credential.Secret, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return credential.Secret{}, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return credential.Secret{}, fmt.Errorf("reading the admin server's token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, tokenLen+2))
	if err != nil {
		return credential.Secret{}, fmt.Errorf("reading the admin server's token: %w", err)
	}
	if len(b) != tokenLen+1 || b[tokenLen] != '\n' {
		return credential.Secret{}, fmt.Errorf("reading the admin server's token: %s has %d bytes, want %d: start the authority again", path, len(b), tokenLen+1)
	}
	return credential.NewSecret(b[:tokenLen]), nil
}

// nobodyListens reports whether a dial failed since there is no such server.
func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}
