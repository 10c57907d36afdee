package credential

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// epoch is when the tests' identities are made; now is when most is asked.
var (
	epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now   = epoch.Add(time.Hour)
)

const skew = DefaultSkew

// subject is whom the tests' credentials are for.
var subject = identifier(1)

// identifier returns the n-th made-up identifier; they ascend.
func identifier(n uint32) (id identity.Identifier) {
	binary.BigEndian.PutUint32(id[:], n)
	id[31] = 1
	return id
}

// serial returns the n-th made-up serial; they ascend.
func serial(n uint32) (s Serial) {
	binary.BigEndian.PutUint32(s[:], n)
	s[15] = 1
	return s
}

func newAuthority(t testing.TB) *identity.Identity {
	t.Helper()
	id, err := identity.New(epoch)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fixedAuthority returns an identity that is the same in every process: n
// changes with the keys 1 to n, made one minute apart from epoch on. It is built
// as package identity documents its formats.
func fixedAuthority(t testing.TB, n int) *identity.Identity {
	t.Helper()
	type change map[int]any
	var list []change
	var key ed25519.PrivateKey
	for i := range n {
		previous := key
		key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize))
		created := uint64(epoch.Unix()) + uint64(60*i)
		c := change{2: []byte(key.Public().(ed25519.PublicKey)), 3: created, 4: created + uint64(identity.Validity/time.Second)}
		if i > 0 {
			hash := sha256.Sum256(encode(t, list[i-1]))
			c[1] = hash[:]
		}
		body := encode(t, c)
		message := append([]byte("culvert identity change v1\x00"), body...)
		signed := change{1: body, 2: ed25519.Sign(key, message)}
		if i > 0 {
			signed[3] = ed25519.Sign(previous, message)
		}
		list = append(list, signed)
	}
	file := filepath.Join(t.TempDir(), "authority.key")
	content := append(pem.EncodeToMemory(&pem.Block{Type: "CULVERT PRIVATE KEY", Bytes: key.Seed()}),
		pem.EncodeToMemory(&pem.Block{Type: "CULVERT IDENTITY", Bytes: encode(t, list)})...)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := identity.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func rotate(t testing.TB, id *identity.Identity, at time.Time) *identity.Identity {
	t.Helper()
	next, err := id.Rotate(at)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// newVerifier returns one that trusts the authorities.
func newVerifier(t testing.TB, authorities ...*identity.Identity) *Verifier {
	t.Helper()
	var c Config
	for _, a := range authorities {
		c.Authorities = append(c.Authorities, a.Identifier())
	}
	v, err := NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// mustIssue issues a credential for subject that begins at from.
func mustIssue(t testing.TB, authority *identity.Identity, from time.Time, attributes Attributes) (*Credential, []byte) {
	t.Helper()
	c, b, err := Issue(authority, Template{Subject: subject, Attributes: attributes, NotBefore: from})
	if err != nil {
		t.Fatal(err)
	}
	return c, b
}

// mustList signs a list without a promise of the next.
func mustList(t testing.TB, authority *identity.Identity, number uint64, set *Set) *List {
	t.Helper()
	l, err := SignList(authority, number, now, time.Time{}, set)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustAdd(t testing.TB, s *Set, identifiers []identity.Identifier, serials ...RevokedSerial) *Set {
	t.Helper()
	s, err := s.Add(identifiers, serials)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustFull(t testing.TB, l *List) []byte {
	t.Helper()
	b, err := l.Full()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustDelta(t testing.TB, l, from *List) []byte {
	t.Helper()
	b, err := l.Delta(from)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustApply(t testing.TB, v *Verifier, l *List) {
	t.Helper()
	if _, err := v.ApplyList(mustFull(t, l), now); err != nil {
		t.Fatal(err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := canon.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := canon.UnmarshalExact(b, v); err != nil {
		t.Fatal(err)
	}
}

// wantCode fails unless err is an *Error of that code whose text has every part.
func wantCode(t testing.TB, err error, want code.Code, parts ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("error %v, want an *Error of code %s", err, want)
		return
	}
	wantText(t, err, parts...)
}

func wantText(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want %q in it", err, part)
		}
	}
}
