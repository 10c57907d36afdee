package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
)

// Bounds of a history.
const (
	MaxHistoryLen = 8 << 10 // bytes
	MaxChanges    = 32
	// Validity is how long a change made by [New] or [Identity.Rotate] holds:
	// ten years of 365 days. Nothing made here holds for longer, or for less
	// than MinValidity.
	Validity    = 10 * 365 * 24 * time.Hour
	MinValidity = time.Minute
)

// Reasons that callers tell apart.
var (
	ErrNotYetValid = errors.New("not valid yet")
	ErrExpired     = errors.New("expired")
	ErrDiverged    = errors.New("histories have diverged")
)

// A History is the public part of an identity: its changes, all signatures and
// hashes verified. It is immutable and safe for concurrent use; a usable one
// comes from [ParseHistory], [ReadPublicFile] or [Identity.History].
type History struct {
	raw     []byte
	hashes  [][32]byte // of each change, at least one
	changes []change   // what the hashes are of
	key     ed25519.PublicKey
	created time.Time // of the last change
	expires time.Time // of the last change
}

// ParseHistory reads a history and verifies its whole chain. It looks at no
// clock: [History.CheckTime] does, and so does [VerifyAttestation]. It keeps
// no part of b. The longest history takes 63 signature verifications.
func ParseHistory(b []byte) (*History, error) {
	if len(b) > MaxHistoryLen {
		return nil, fmt.Errorf("reading history: %d bytes, more than %d", len(b), MaxHistoryLen)
	}
	var list []signedChange
	if err := canon.UnmarshalExact(b, &list); err != nil {
		return nil, fmt.Errorf("reading history: %w", err)
	}
	if len(list) == 0 || len(list) > MaxChanges {
		return nil, fmt.Errorf("reading history: %d changes, want 1 to %d", len(list), MaxChanges)
	}
	h := &History{raw: bytes.Clone(b)}
	changes, err := h.link(list)
	if err != nil {
		return nil, fmt.Errorf("reading history: %w", err)
	}
	if err := verify(list, changes); err != nil {
		return nil, fmt.Errorf("reading history: %w", err)
	}
	h.changes = changes
	last := changes[len(changes)-1]
	h.key = last.Key
	h.created, h.expires = instant(last.Created), instant(last.Expires)
	return h, nil
}

// link decodes the changes, checks everything but their signatures and sets
// h.hashes.
func (h *History) link(list []signedChange) ([]change, error) {
	changes := make([]change, len(list))
	for i, s := range list {
		c, err := parseChange(s)
		if err != nil {
			return nil, fmt.Errorf("change %d of %d: %w", i+1, len(list), err)
		}
		if err := h.follows(c, s, changes[:i]); err != nil {
			return nil, fmt.Errorf("change %d of %d: %w", i+1, len(list), err)
		}
		hash, err := s.hash()
		if err != nil {
			return nil, fmt.Errorf("change %d of %d: %w", i+1, len(list), err)
		}
		changes[i] = c
		h.hashes = append(h.hashes, hash)
	}
	return changes, nil
}

// follows checks that c, which travels in s, may stand behind the changes
// before it, whose hashes are in h.hashes.
func (h *History) follows(c change, s signedChange, before []change) error {
	n := len(before)
	if n == 0 {
		if c.Previous != nil || s.Previous != nil {
			return errors.New("the first change names a previous one")
		}
		return nil
	}
	if !bytes.Equal(c.Previous, h.hashes[n-1][:]) {
		return errors.New("it does not name the change before it as its previous one")
	}
	if len(s.Previous) != ed25519.SignatureSize {
		return fmt.Errorf("previous key's signature has %d bytes, want %d", len(s.Previous), ed25519.SignatureSize)
	}
	if c.Created < before[n-1].Created || c.Created >= before[n-1].Expires {
		return errors.New("created while the previous change does not hold")
	}
	// A key that comes again would make one signature serve as both.
	if slices.ContainsFunc(before, func(b change) bool { return bytes.Equal(b.Key, c.Key) }) {
		return errors.New("its key occurs in an earlier change")
	}
	return nil
}

// verify checks the signatures of linked changes.
func verify(list []signedChange, changes []change) error {
	for i, s := range list {
		if !signed(changes[i].Key, changeLabel, s.Change, s.Own) {
			return fmt.Errorf("change %d of %d: signature by its own key is wrong", i+1, len(list))
		}
		if i > 0 && !signed(changes[i-1].Key, changeLabel, s.Change, s.Previous) {
			return fmt.Errorf("change %d of %d: signature by the previous key is wrong", i+1, len(list))
		}
	}
	return nil
}

// extend returns h (nil: no history yet) with one change more: key, which holds
// from now on for validity, signed by key and by previous, which is h's current
// key.
func (h *History) extend(key, previous ed25519.PrivateKey, now time.Time, validity time.Duration) (*History, error) {
	if validity < MinValidity || validity > Validity {
		return nil, fmt.Errorf("a key holds for %s to %s, not for %s", MinValidity, Validity, validity)
	}
	created, err := seconds(now)
	if err != nil {
		return nil, err
	}
	expires, err := seconds(now.Add(validity))
	if err != nil {
		return nil, err
	}
	c := change{Key: key.Public().(ed25519.PublicKey), Created: created, Expires: expires}
	var list []signedChange
	if h != nil {
		last := h.LastHash()
		c.Previous = last[:]
		if err := canon.UnmarshalExact(h.raw, &list); err != nil {
			return nil, err
		}
	}
	s, err := signChange(c, key, previous)
	if err != nil {
		return nil, err
	}
	raw, err := canon.Marshal(append(list, s))
	if err != nil {
		return nil, err
	}
	// Reading it back runs every check that others will run.
	return ParseHistory(raw)
}

// Bytes returns the history's encoding, a copy.
func (h *History) Bytes() []byte { return bytes.Clone(h.raw) }

// Identifier returns the identifier of the identity whose history h is.
func (h *History) Identifier() Identifier { return h.hashes[0] }

// Key returns the current public key, that of the last change, as a copy.
func (h *History) Key() ed25519.PublicKey { return bytes.Clone(h.key) }

// LastHash returns the hash of the last change. Histories are equal if and only
// if their last hashes are.
func (h *History) LastHash() [32]byte { return h.hashes[len(h.hashes)-1] }

// Len returns the number of changes, at least 1.
func (h *History) Len() int { return len(h.hashes) }

// Expires returns the time from which on the current key does not hold.
func (h *History) Expires() time.Time { return h.expires }

// CheckTime checks that the current key holds at now, give or take skew:
// created <= now+skew and now-skew < expires. The error wraps [ErrNotYetValid]
// or [ErrExpired].
func (h *History) CheckTime(now time.Time, skew time.Duration) error {
	if err := checkTime(h.created, h.expires, now, skew); err != nil {
		return fmt.Errorf("identity %s: %w", h.Identifier(), err)
	}
	return nil
}

func checkTime(from, until, now time.Time, skew time.Duration) error {
	if now.Add(skew).Before(from) {
		return fmt.Errorf("%w: it starts at %s and the clock says %s: check the clocks on both sides",
			ErrNotYetValid, from.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if !now.Add(-skew).Before(until) {
		return fmt.Errorf("%w: it ended at %s and the clock says %s: check the clocks on both sides, or have a new one made",
			ErrExpired, until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Created returns the time from which on the current key holds.
func (h *History) Created() time.Time { return h.created }

// Extends reports whether old is h or h's beginning, so that h may take the
// place of old.
func (h *History) Extends(old *History) bool { return continues(h.hashes, old.hashes) == nil }

// Succeed says why h cannot take the place of old, nil if it can: it belongs to
// another identity, is older ([ErrRolledBack]), or has diverged from it
// ([ErrDiverged]).
func (h *History) Succeed(old *History) error {
	if h.Identifier() != old.Identifier() {
		return fmt.Errorf("identity %s: it cannot take the place of another one, %s: check the name", h.Identifier(), old.Identifier())
	}
	return (&seen{hashes: h.hashes}).verdict(&seen{hashes: old.hashes})
}

// Newer returns the one of two histories of one identity that continues the
// other; a, if they are equal. If neither does, two different changes were
// signed with one key: that key is stolen or its file was copied, the error
// wraps [ErrDiverged], and neither history may be trusted any more.
func Newer(a, b *History) (*History, error) {
	switch {
	case a.Identifier() != b.Identifier():
		return nil, fmt.Errorf("comparing histories: they belong to different identities, %s and %s", a.Identifier(), b.Identifier())
	case a.Extends(b):
		return a, nil
	case b.Extends(a):
		return b, nil
	}
	return nil, fmt.Errorf("comparing histories of %s: %w: its key was stolen or used twice; make a new identity and stop trusting this one", a.Identifier(), ErrDiverged)
}
