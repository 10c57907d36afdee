package channel

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	// An attestation is made for attestFor and replaced, with a new static key,
	// after renewAfter: nobody ever sees one that is about to end.
	attestFor  = 24 * time.Hour
	renewAfter = 12 * time.Hour
	// attestBack is how far before now an attestation starts, so that a peer
	// whose clock is a little behind accepts it.
	attestBack = time.Minute
)

// Local is what one process shows of itself in every handshake: its identity,
// its instance, and an X25519 static key that lives in memory only. It is safe
// for concurrent use.
type Local struct {
	id       *identity.Identity
	instance Instance
	name     string

	mu          sync.Mutex
	static      *ecdh.PrivateKey
	attestation []byte
	notBefore   time.Time // of the attestation
	renewAt     time.Time
}

// NewLocal draws an instance and a static key for id. The identity stays the
// caller's and must not change.
func NewLocal(id *identity.Identity) (*Local, error) { return NewNamedLocal(id, "") }

// NewNamedLocal is NewLocal for a process that has a name ([identity.CheckName]): a
// later process of the same identity and name takes its place.
func NewNamedLocal(id *identity.Identity, name string) (*Local, error) {
	if name != "" {
		if err := identity.CheckName(name); err != nil {
			return nil, err
		}
	}
	l := &Local{id: id, name: name}
	if _, err := rand.Read(l.instance[:]); err != nil {
		return nil, fmt.Errorf("drawing an instance: %w", err)
	}
	if _, _, err := l.keys(time.Now()); err != nil {
		return nil, err
	}
	return l, nil
}

// Identifier returns the identifier of the process's identity.
func (l *Local) Identifier() identity.Identifier { return l.id.Identifier() }

// Instance returns the name of this running process.
func (l *Local) Instance() Instance { return l.instance }

// keys returns the static key and its attestation, renewed when they are old.
func (l *Local) keys(now time.Time) (*ecdh.PrivateKey, []byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// By the wall clock, which the peer looks at: the monotonic one stands still
	// while the machine sleeps, and does not notice that the other is put right.
	now = now.Round(0)
	if l.static != nil && !now.Before(l.notBefore) && now.Before(l.renewAt) {
		return l.static, l.attestation, nil
	}
	static, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("drawing a static key: %w", err)
	}
	notBefore := now.Add(-attestBack)
	attestation, err := l.id.Attest([32]byte(static.PublicKey().Bytes()), notBefore, notBefore.Add(attestFor))
	if err != nil {
		return nil, nil, fmt.Errorf("attesting the static key: %w", err)
	}
	l.static, l.attestation, l.notBefore, l.renewAt = static, attestation, notBefore, now.Add(renewAfter)
	return static, attestation, nil
}
