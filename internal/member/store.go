package member

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Store keeps what one identity has of its authority in a folder, which others
// may share. Both files are written whole or not at all, with mode 0600. They are
// not secret, but trusted: whoever can write them can make the process forget what
// was revoked.
type Store struct {
	folder string
	own    identity.Identifier
}

// A Membership is what a process has to know to go on as the member that it was.
type Membership struct {
	Authority identity.Identifier
	Routes    []string            // to it, as texts; at most credential.MaxTicketRoutes
	Bundle    []byte              // the last credential, which may have ended
	Ticket    credential.TicketID // by which it was enrolled; zero: by none
}

// The file of a membership is canonical CBOR:
//
//	membership = {
//	  1: bytes .size 32,       authority's identifier
//	  ? 2: [1*8 text],         routes
//	  3: bytes,                bundle
//	  ? 4: bytes .size 16,     id of the ticket
//	}
type wireMembership struct {
	Authority []byte   `cbor:"1,keyasint"`
	Routes    []string `cbor:"2,keyasint,omitempty"`
	Bundle    []byte   `cbor:"3,keyasint"`
	Ticket    []byte   `cbor:"4,keyasint,omitempty"`
}

// maxMembership is longer than any membership's file, in bytes.
const maxMembership = 64 << 10

// NewStore returns the store of the identity own in a folder, which has to be
// there before something is to be kept.
func NewStore(folder string, own identity.Identifier) *Store { return &Store{folder, own} }

func (s *Store) membershipPath() string {
	return filepath.Join(s.folder, "credential-"+s.own.String())
}

// listPath names the authority, too: with another one, the list of the former is
// not in the way.
func (s *Store) listPath(authority identity.Identifier) string {
	return filepath.Join(s.folder, "revocations-"+s.own.String()+"-"+authority.String())
}

// Load returns the membership that was saved last, nil if none was. An error
// names the file and says what to do.
func (s *Store) Load() (*Membership, error) {
	b, err := readFile(s.membershipPath(), maxMembership)
	if err != nil || b == nil {
		return nil, err
	}
	m, err := parseMembership(b, s.own)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: restore it, or remove it and enrol anew", s.membershipPath(), err)
	}
	return m, nil
}

// parseMembership reads what Save has written, and nothing else.
func parseMembership(b []byte, own identity.Identifier) (*Membership, error) {
	var w wireMembership
	if err := canon.UnmarshalExact(b, &w); err != nil {
		return nil, err
	}
	m := &Membership{Routes: w.Routes, Bundle: w.Bundle}
	if len(w.Authority) != len(m.Authority) {
		return nil, fmt.Errorf("an authority's identifier of %d bytes", len(w.Authority))
	}
	copy(m.Authority[:], w.Authority)
	if len(w.Routes) > credential.MaxTicketRoutes {
		return nil, fmt.Errorf("%d routes, at most %d", len(w.Routes), credential.MaxTicketRoutes)
	}
	for _, r := range w.Routes {
		if len(r) > credential.MaxRouteLen {
			return nil, fmt.Errorf("a route of %d bytes, at most %d", len(r), credential.MaxRouteLen)
		}
	}
	if n := len(w.Ticket); n != 0 && n != len(m.Ticket) {
		return nil, fmt.Errorf("a ticket's id of %d bytes", n)
	}
	copy(m.Ticket[:], w.Ticket)
	c, _, err := credential.Inspect(m.Bundle)
	switch {
	case err != nil:
		return nil, err
	case c.Issuer != m.Authority:
		return nil, fmt.Errorf("its credential is of %s, and its authority is %s", c.Issuer, m.Authority)
	case c.Subject != own:
		return nil, fmt.Errorf("its credential is for %s, and this process is %s", c.Subject, own)
	}
	return m, nil
}

// Save puts m in the place of what was saved before.
func (s *Store) Save(m *Membership) error {
	w := wireMembership{Authority: m.Authority[:], Routes: m.Routes, Bundle: m.Bundle}
	if m.Ticket != (credential.TicketID{}) {
		w.Ticket = m.Ticket[:]
	}
	b, err := canon.Marshal(w)
	if err != nil {
		return fmt.Errorf("%s: %w", s.membershipPath(), err)
	}
	return replaceFile(s.membershipPath(), b)
}

// SaveList puts l in the place of the authority's list that was saved before.
func (s *Store) SaveList(l *credential.List) error {
	b, err := l.Full()
	if err != nil {
		return fmt.Errorf("%s: %w", s.listPath(l.Authority()), err)
	}
	return replaceFile(s.listPath(l.Authority()), b)
}

// LoadLists makes v know, of each authority that it trusts, the list that was saved
// last, if there is one: [credential.Verifier.List] tells. An error names the file
// and says what to do.
func (s *Store) LoadLists(v *credential.Verifier) error {
	for _, authority := range v.Authorities() {
		path := s.listPath(authority)
		b, err := readFile(path, credential.MaxListLen)
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		l, err := v.Restore(b)
		if err == nil && l.Authority() != authority {
			err = fmt.Errorf("it is the list of another authority, %s", l.Authority())
		}
		if err != nil && !errors.Is(err, credential.ErrNotNewer) {
			return fmt.Errorf("%s: %w: restore it, or remove it, and what was revoked is unknown until the authority is reached", path, err)
		}
	}
	return nil
}

// readFile returns a file's content of at most so many bytes, nil if the file is
// not there.
func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: it is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > most:
		return nil, fmt.Errorf("%s: it is longer than %d bytes", path, most)
	}
	return b, nil
}

// replaceFile puts a file in the place of the one at path, once all of it is on
// disk. What is there stays as it is if it says the same.
func replaceFile(path string, content []byte) (err error) {
	if was, err := readFile(path, int64(len(content))); err == nil && was != nil && bytes.Equal(was, content) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("%w: make the folder, writable for this process", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // what cannot be removed is never read
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}
