package channel

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	// An attestation is made for attestFor and replaced, with a new static key,
	// after renewAfter, give or take a tenth so that processes that were started
	// together do not stay together: nobody ever sees one that is about to end.
	attestFor  = 24 * time.Hour
	renewAfter = 12 * time.Hour
	// attestBack is how far before now an attestation starts, so that a peer
	// whose clock is a little behind accepts it.
	attestBack = time.Minute
)

// A LocalConfig is what a [Local] is made of beside its identity. The zero value
// is the default.
type LocalConfig struct {
	// Name is what the process is called ([identity.CheckName]): a later process
	// of the same identity and name takes its place. "" is nothing.
	Name string
	// Memory has the newest history seen of each peer: a handshake with one that
	// shows an older one, or one that has diverged, fails with
	// [identity.ErrRolledBack] or [identity.ErrDiverged]. Nil means one of this
	// Local's own.
	Memory *identity.Memory
	// Known reports whether somebody who calls is served here at all: of callers
	// only the histories of these are remembered, so that strangers cannot push
	// them out of the Memory. Whom this process calls is remembered in any case.
	// Nil means that everybody is known.
	Known func(Peer) bool
}

// Local is one process's part in every handshake: what it shows, which is its
// identity, its instance and an X25519 static key that lives in memory only, and
// what it remembers of those it has met. It is safe for concurrent use.
type Local struct {
	identifier identity.Identifier
	instance   Instance
	name       string
	memory     *identity.Memory
	known      func(Peer) bool

	mu    sync.Mutex
	id    *identity.Identity
	shown *shown // with id's key; nil when it has to be made anew
}

// A shown is what a handshake shows that belongs together. It does not change.
type shown struct {
	static      *ecdh.PrivateKey
	attestation []byte
	history     []byte

	from, renewAt time.Time // wall clock
}

// NewLocal draws an instance and a static key for id.
func NewLocal(id *identity.Identity) (*Local, error) { return NewLocalWith(id, LocalConfig{}) }

// NewLocalWith is NewLocal with more to say.
func NewLocalWith(id *identity.Identity, c LocalConfig) (*Local, error) {
	if c.Name != "" {
		if err := identity.CheckName(c.Name); err != nil {
			return nil, err
		}
	}
	l := &Local{identifier: id.Identifier(), name: c.Name, memory: c.Memory, known: c.Known}
	if l.memory == nil {
		l.memory = identity.NewMemory(0)
	}
	if _, err := rand.Read(l.instance[:]); err != nil {
		return nil, fmt.Errorf("drawing an instance: %w", err)
	}
	if err := l.SetIdentity(id); err != nil {
		return nil, err
	}
	return l, nil
}

// Identifier returns the identifier of the process's identity.
func (l *Local) Identifier() identity.Identifier { return l.identifier }

// Instance returns the name of this running process.
func (l *Local) Instance() Instance { return l.instance }

// History returns the public part of the process's identity, as it is now.
func (l *Local) History() *identity.History {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id.History()
}

// SetIdentity puts id, which is the process's identity with a later key, in the
// place of the present one: every handshake that begins from now on shows it,
// with a new static key. Paths that are in use go on with the keys they have. On
// an error everything stays as it was: id is another identity, or its key does
// not hold now, or its history does not continue the present one
// ([identity.ErrRolledBack], [identity.ErrDiverged]) or the newest that peers
// have shown of it.
func (l *Local) SetIdentity(id *identity.Identity) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id != nil {
		if err := id.History().Succeed(l.id.History()); err != nil {
			return err
		}
	}
	now := time.Now()
	if err := id.History().CheckTime(now, 0); err != nil {
		return err
	}
	s, err := show(id, now)
	if err != nil {
		return err
	}
	if err := l.memory.Accept(id.History()); err != nil {
		return err
	}
	l.id, l.shown = id, s
	return nil
}

// shows returns what a handshake shows that begins now.
func (l *Local) shows(now time.Time) (*shown, error) {
	// Without its monotonic part, which stands still while a machine sleeps:
	// peers look at the wall clock.
	now = now.Round(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.shown; !now.Before(s.from) && now.Before(s.renewAt) {
		return s, nil
	}
	s, err := show(l.id, now)
	if err != nil {
		return nil, err
	}
	l.shown = s
	return s, nil
}

// show draws a static key and attests it.
func show(id *identity.Identity, now time.Time) (*shown, error) {
	static, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("drawing a static key: %w", err)
	}
	s := &shown{static: static, history: id.History().Bytes(), from: now.Round(0).Add(-attestBack)}
	jitter := mathrand.N(renewAfter/5+1) - renewAfter/10 //nolint:gosec // no secret
	s.renewAt = now.Round(0).Add(renewAfter + jitter)
	if s.attestation, err = id.Attest([32]byte(static.PublicKey().Bytes()), s.from, s.from.Add(attestFor)); err != nil {
		return nil, fmt.Errorf("attesting the static key: %w", err)
	}
	return s, nil
}

// called checks the history of a peer that this process has called.
func (l *Local) called(p Peer) error { return l.memory.Accept(p.History) }

// caller checks the history of a peer that calls.
func (l *Local) caller(p Peer) error {
	if l.known != nil && !l.known(p) {
		return l.memory.Check(p.History)
	}
	return l.memory.Accept(p.History)
}

// identityCode returns the code that says why a peer's identity was not accepted.
func identityCode(err error) code.Code {
	switch {
	case errors.Is(err, identity.ErrRolledBack):
		return code.RolledBack
	case errors.Is(err, identity.ErrDiverged):
		return code.Diverged
	}
	return code.IdentityDenied
}
