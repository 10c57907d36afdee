package credential

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// How far two clocks may be apart.
const (
	DefaultSkew = 5 * time.Minute
	MaxSkew     = 30 * time.Minute
)

// MaxAuthorities bounds how many authorities a [Verifier] trusts.
const MaxAuthorities = 64

// A Config says what a [Verifier] trusts.
type Config struct {
	Authorities []identity.Identifier // at most MaxAuthorities; none: no credential counts
	Skew        time.Duration         // between any two clocks; 0: DefaultSkew; at most MaxSkew
	// Memory has the newest histories that were seen, those of authorities among
	// them; nil: one of this Verifier's own, which ends with it.
	Memory *identity.Memory
}

// A Verifier says which credentials count. Of each authority that it trusts it
// holds the newest history and the newest revocation list that it was shown,
// and goes back behind neither. It is safe for concurrent use.
//
// It keeps nothing across restarts: that is its owner's, who keeps the Memory and
// gives the lists that [Verifier.List] last returned to [Verifier.Restore].
type Verifier struct {
	skew   time.Duration
	memory *identity.Memory // of authorities, among others; it has the hashes of what known has
	newest *newest

	learned atomic.Uint64 // see Learned

	applying sync.Mutex // held while a list is applied; before mu

	mu          sync.RWMutex
	authorities map[identity.Identifier]*authority // the trusted ones; guarded by mu, what it points to too
	// former are those that were trusted and are not now, the one that was left longest
	// ago first: what they have revoked stays so when they are trusted again.
	former []formerAuthority
}

// A formerAuthority is one that is not trusted any more, with what was known of it.
type formerAuthority struct {
	id identity.Identifier
	*authority
}

// An authority is what a Verifier knows of one. Copies may be read without
// the lock.
type authority struct {
	known    *knownHistory // the newest that was shown; nil before the first
	diverged error         // once set, nothing of this authority counts any more
	list     *List         // the newest; nil before the first
}

// A knownHistory is a verified history beside its encoding.
type knownHistory struct {
	*identity.History
	raw []byte
}

// orParse returns the history that raw encodes: k's, when it is the same, or
// a new one, which it verifies. k may be nil.
func (k *knownHistory) orParse(raw []byte) (*identity.History, error) {
	if k != nil && bytes.Equal(k.raw, raw) {
		return k.History, nil
	}
	return identity.ParseHistory(raw)
}

// NewVerifier returns a Verifier that knows of no histories and no lists yet.
func NewVerifier(c Config) (*Verifier, error) {
	switch {
	case c.Skew == 0:
		c.Skew = DefaultSkew
	case c.Skew < 0 || c.Skew > MaxSkew:
		return nil, fmt.Errorf("making a verifier: clock skew of %s, want up to %s", c.Skew, MaxSkew)
	}
	if c.Memory == nil {
		c.Memory = identity.NewMemory(0)
	}
	v := &Verifier{skew: c.Skew, memory: c.Memory, newest: newNewest(maxNewest)}
	if err := v.Trust(c.Authorities); err != nil {
		return nil, err
	}
	return v, nil
}

// Trust makes authorities the ones that are trusted from now on. What is known
// of those that were trusted before, and are now, stays, whether or not they were
// meanwhile: it is kept of as many that are not trusted now as there may be
// authorities, those that were last. Of the rest, what the Memory has. On an error
// nothing has changed.
func (v *Verifier) Trust(authorities []identity.Identifier) error {
	if len(authorities) > MaxAuthorities {
		return fmt.Errorf("trusting authorities: %d of them, at most %d", len(authorities), MaxAuthorities)
	}
	if slices.ContainsFunc(authorities, identity.Identifier.IsZero) {
		return errors.New("trusting authorities: one of them is the zero identifier, which is nobody's")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	known := maps.Clone(v.authorities)
	if known == nil {
		known = map[identity.Identifier]*authority{}
	}
	for _, f := range v.former {
		known[f.id] = f.authority
	}
	trusted := make(map[identity.Identifier]*authority, len(authorities))
	for _, id := range authorities {
		if trusted[id] = known[id]; trusted[id] == nil {
			trusted[id] = &authority{}
			known[id] = trusted[id]
		}
	}
	v.leaveLocked(trusted)
	v.authorities = trusted
	maps.DeleteFunc(known, func(id identity.Identifier, _ *authority) bool {
		return trusted[id] == nil && !slices.ContainsFunc(v.former, func(f formerAuthority) bool { return f.id == id })
	})
	v.newest.keep(known)
	return nil
}

// leaveLocked keeps what is known of authorities that are not among the trusted ones
// any more.
func (v *Verifier) leaveLocked(trusted map[identity.Identifier]*authority) {
	v.former = slices.DeleteFunc(v.former, func(f formerAuthority) bool { return trusted[f.id] != nil })
	for _, id := range slices.SortedFunc(maps.Keys(v.authorities), compare) {
		if trusted[id] == nil {
			v.former = append(v.former, formerAuthority{id, v.authorities[id]})
		}
	}
	v.former = slices.Delete(v.former, 0, max(0, len(v.former)-MaxAuthorities))
}

func compare(a, b identity.Identifier) int { return bytes.Compare(a[:], b[:]) }

// Authorities returns the trusted authorities, ascending.
func (v *Verifier) Authorities() []identity.Identifier {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(v.authorities), compare)
}

// Trusts reports whether an identifier is that of a trusted authority.
func (v *Verifier) Trusts(id identity.Identifier) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.authorities[id] != nil
}

// Learned counts what this Verifier has learned of authorities' histories: a newer one,
// or that one has diverged. When it has risen, what counted may count no more.
func (v *Verifier) Learned() uint64 { return v.learned.Load() }

// History returns the newest history of a trusted authority, nil if none was
// shown yet.
func (v *Verifier) History(authority identity.Identifier) *identity.History {
	a, err := v.authority(authority)
	if err != nil || a.known == nil {
		return nil
	}
	return a.known.History
}

// List returns the newest revocation list of a trusted authority, nil if none
// was shown yet.
func (v *Verifier) List(authority identity.Identifier) *List {
	a, err := v.authority(authority)
	if err != nil {
		return nil
	}
	return a.list
}

// Learn takes in a history of a trusted authority, from wherever it comes: it
// proves itself. One that the known history continues changes nothing. One that
// contradicts the known one, or what the Memory has, is the trace of a theft: from
// then on nothing of that authority counts any more, and the error, an [*Error],
// wraps [identity.ErrDiverged].
func (v *Verifier) Learn(h *identity.History) error {
	if err := v.learn(h, nil); err != nil {
		return err
	}
	return nil
}

// learn is Learn, for a history whose encoding is at hand: nil if not.
func (v *Verifier) learn(h *identity.History, raw []byte) *Error {
	a, err := v.authority(h.Identifier())
	switch {
	case err != nil:
		return err
	case a.diverged != nil:
		return a.divergedError(h.Identifier())
	}
	// A history that is older than the one remembered is the newest that is at
	// hand all the same: isNewest keeps it from counting.
	accepted := v.memory.Accept(h)
	diverged := errors.Is(accepted, identity.ErrDiverged)
	if !diverged && a.known != nil && a.known.LastHash() == h.LastHash() {
		return nil
	}
	if raw == nil {
		raw = h.Bytes()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	trusted, ok := v.authorities[h.Identifier()]
	if !ok {
		return untrusted(h.Identifier())
	}
	if trusted.diverged != nil {
		return trusted.divergedError(h.Identifier())
	}
	if diverged {
		trusted.diverged = accepted
		v.learned.Add(1)
		return trusted.divergedError(h.Identifier())
	}
	if trusted.known != nil {
		newer, err := identity.Newer(trusted.known.History, h)
		if err != nil {
			trusted.diverged = err
			v.learned.Add(1)
			return trusted.divergedError(h.Identifier())
		}
		if newer != h {
			return nil
		}
	}
	trusted.known = &knownHistory{h, bytes.Clone(raw)}
	v.learned.Add(1)
	return nil
}

// isNewest checks that the history at hand is the newest that the Memory has: when
// its last key was replaced, only the history after it says.
func (v *Verifier) isNewest(a *authority, id identity.Identifier) *Error {
	switch err := v.memory.Check(a.known.History); {
	case errors.Is(err, identity.ErrDiverged):
		return fault(code.AuthorityDiverged, "nothing of it counts any more: %w", err).of(id, Serial{})
	case err != nil:
		return fault(code.SignerReplaced, "the authority's key has been replaced, and its history since then is not at hand: have the credential renewed: %w", err).of(id, Serial{})
	}
	return nil
}

// authority returns what is known of a trusted authority.
func (v *Verifier) authority(id identity.Identifier) (authority, *Error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	a, ok := v.authorities[id]
	if !ok {
		return authority{}, untrusted(id)
	}
	return *a, nil
}

func untrusted(id identity.Identifier) *Error {
	return fault(code.UntrustedAuthority, "it is not trusted here: add it to the trusted authorities, if it should be").of(id, Serial{})
}

func (a *authority) divergedError(id identity.Identifier) *Error {
	return fault(code.AuthorityDiverged, "nothing of it counts any more: %w", a.diverged).of(id, Serial{})
}

// Revoked says which trusted authority has revoked an identifier, as an
// [*Error], or nil. Whoever revokes an identifier says that its key is in the
// wrong hands; so that counts for all that the identifier does, credentials of
// other authorities included, and whether it presents any credential or none.
// It takes a binary search in each list.
func (v *Verifier) Revoked(id identity.Identifier) error {
	if err := v.revoked(id); err != nil {
		return err
	}
	return nil
}

func (v *Verifier) revoked(id identity.Identifier) *Error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.revokedLocked(id)
}

func (v *Verifier) revokedLocked(id identity.Identifier) *Error {
	var first identity.Identifier // of several, always the same one is named
	for by, a := range v.authorities {
		if a.list.has(id) && (first.IsZero() || bytes.Compare(by[:], first[:]) < 0) {
			first = by
		}
	}
	if first.IsZero() {
		return nil
	}
	return fault(code.IdentityRevoked, "it has revoked the identifier %s, for ever: make a new identity", id).of(first, Serial{})
}
