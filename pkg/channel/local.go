package channel

import (
	"bytes"
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
	// Admit is asked about every peer whose identity has been accepted, in
	// handshakes that this process begins and in those that it answers. Its error
	// ends the handshake; a [PeerError] in it has the code that a caller hears.
	// Package relay asks about the relays of a route, too, before it uses the route:
	// of them only the Identifier is known then. Nil means that everybody is admitted.
	Admit func(Peer) error
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
	admit      func(Peer) error

	mu          sync.Mutex
	id          *identity.Identity
	shown       *shown   // with id's key; nil when it has to be made anew
	credentials [][]byte // shown beside it; not to be written
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
	l := &Local{identifier: id.Identifier(), name: c.Name, memory: c.Memory, known: c.Known, admit: c.Admit}
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
	if err := l.checkRoom(s, l.credentials); err != nil {
		return err
	}
	if err := l.memory.Accept(id.History()); err != nil {
		return err
	}
	l.id, l.shown = id, s
	return nil
}

// SetCredentials makes bundles what every handshake that begins from now on
// shows beside the identity, in the place of those before; none is allowed. Paths
// that are in use have shown what they have: [Channel.Renew] makes others. The
// bundles are opaque here. On an error everything stays as it was: there are more
// than 16, or more than 8,192 bytes of them, or together with the identity's
// history they do not fit into a handshake's message.
func (l *Local) SetCredentials(bundles [][]byte) error {
	own := make([][]byte, len(bundles))
	for i, b := range bundles {
		own[i] = bytes.Clone(b)
	}
	if err := checkCredentials(own); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.checkRoom(l.shown, own); err != nil {
		return err
	}
	l.credentials = own
	return nil
}

// presents returns the credentials that a handshake shows now.
func (l *Local) presents() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.credentials
}

// checkRoom checks that what is shown fits into message 2, which has the least
// room but for requests.
func (l *Local) checkRoom(s *shown, credentials [][]byte) error {
	b, err := l.payloadOf(s, credentials, nil)
	if err != nil {
		return err
	}
	if n := len(b) + message2Cost; n > maxHandshakeMsg {
		return fmt.Errorf("credentials of %d bytes beside a history of %d do not fit into a handshake, whose messages have %d at most: have fewer or shorter attributes",
			credentialBytes(credentials), len(s.history), maxHandshakeMsg)
	}
	return nil
}

// Admit says whether a peer, as a handshake has proven it, is admitted now: nil,
// or why not.
func (l *Local) Admit(p Peer) error {
	if l.admit == nil {
		return nil
	}
	return l.admit(p)
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

// called checks a peer that this process has called.
func (l *Local) called(p Peer) error {
	if err := l.memory.Accept(p.History); err != nil {
		return err
	}
	return l.Admit(p)
}

// caller checks a peer that calls.
func (l *Local) caller(p Peer) error {
	remember := l.memory.Accept
	if l.known != nil && !l.known(p) {
		remember = l.memory.Check
	}
	if err := remember(p.History); err != nil {
		return err
	}
	return l.Admit(p)
}

// identityCode returns the code that says why a peer's identity was not accepted.
func identityCode(err error) code.Code {
	var denied *PeerError
	switch {
	case errors.As(err, &denied):
		return denied.Code
	case errors.Is(err, identity.ErrRolledBack):
		return code.RolledBack
	case errors.Is(err, identity.ErrDiverged):
		return code.Diverged
	}
	return code.IdentityDenied
}
