package credential

import (
	"errors"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// ApplyList takes in a full revocation list and returns it. It is refused
// unless it is signed by the last change of the newest history known of a
// trusted authority, its number is above that of the list held, its time has
// come, and all that was revoked still is, but for credentials that have ended.
// An error is an [*Error]; the list held stays then.
func (v *Verifier) ApplyList(b []byte, now time.Time) (*List, error) {
	return v.applyFull(b, func(h head, a authority) *Error { return v.checkHead(h, a, now) })
}

// Restore takes in a full list of a trusted authority that this Verifier's owner
// has kept, as [List.Full] returned it, and returns it. It was taken once, and so
// what has become of the authority since is not asked: its key may have been
// replaced, its identifier revoked, its history have diverged. What it has revoked
// stays so. Signatures are verified all the same, and a list that is newer stays;
// then the error, an [*Error], wraps [ErrNotNewer].
func (v *Verifier) Restore(b []byte) (*List, error) {
	return v.applyFull(b, func(h head, a authority) *Error { return checkNumber(h, a.list) })
}

// applyFull takes in a full list whose head check lets pass.
func (v *Verifier) applyFull(b []byte, check func(head, authority) *Error) (*List, error) {
	var full fullList
	if err := decodeList(b, &full); err != nil {
		return nil, err
	}
	v.applying.Lock()
	defer v.applying.Unlock()
	signed := signedHead{full.History, full.Head, full.Signature}
	h, _, fail := v.openHead(signed, check)
	if fail != nil {
		return nil, fail
	}
	set, err := parseSet(full.Identifiers, full.Serials)
	if err != nil {
		return nil, fault(code.RevocationsMalformed, "reading revocation list %d: %w", h.number, err).of(h.issuer, Serial{})
	}
	if set.Hash() != h.state {
		return nil, fault(code.RevocationsForged, "revocation list %d: its entries are not those that are signed", h.number).of(h.issuer, Serial{})
	}
	l := &List{h, set, signed}
	if fail := v.install(l); fail != nil {
		return nil, fail.of(h.issuer, Serial{})
	}
	return l, nil
}

// ApplyDelta is [Verifier.ApplyList] for a delta, which has to lead from the
// list held to exactly what is signed. The error wraps [ErrNeedFull] when it
// does not.
func (v *Verifier) ApplyDelta(b []byte, now time.Time) (*List, error) {
	var d deltaList
	if err := decodeList(b, &d); err != nil {
		return nil, err
	}
	v.applying.Lock()
	defer v.applying.Unlock()
	signed := signedHead{d.History, d.Head, d.Signature}
	h, held, fail := v.openHead(signed, func(h head, a authority) *Error { return v.checkHead(h, a, now) })
	if fail != nil {
		return nil, fail
	}
	if held == nil || held.head.number != d.From {
		return nil, fault(code.RevocationsBase, "revocation list %d comes as a delta to %d, which is not the one held: %w", h.number, d.From, ErrNeedFull).of(h.issuer, Serial{})
	}
	set, err := d.apply(held.set)
	if err == nil && set.Hash() != h.state {
		err = errors.New("it leads to another state than the one that is signed")
	}
	if err != nil {
		return nil, fault(code.RevocationsBase, "revocation list %d as a delta to %d: %w: %w", h.number, d.From, err, ErrNeedFull).of(h.issuer, Serial{})
	}
	l := &List{h, set, signed}
	if fail := v.install(l); fail != nil {
		return nil, fail.of(h.issuer, Serial{})
	}
	return l, nil
}

// apply returns base with the delta's changes, each of which has to be one.
func (d *deltaList) apply(base *Set) (*Set, error) {
	added, dropped := serialRecords(d.Serials), serialKeys(d.Dropped)
	if err := identifierRecords(d.Identifiers).check(); err != nil {
		return nil, fmt.Errorf("identifiers added: %w", err)
	}
	if err := added.check(); err != nil {
		return nil, fmt.Errorf("serials added: %w", err)
	}
	if err := dropped.check(); err != nil {
		return nil, fmt.Errorf("serials dropped: %w", err)
	}
	left, err := base.sers().without(dropped)
	if err != nil {
		return nil, fmt.Errorf("dropping serials: %w", err)
	}
	if _, err := added.union(base.sers()); err != nil { // what is dropped cannot be added
		return nil, fmt.Errorf("adding serials: %w", err)
	}
	return (&Set{base.ids().records, left.records}).addRecords(d.Identifiers, d.Serials)
}

// openHead verifies all of a list but its entries, and returns the list that
// is held of the same authority, or nil. check is asked about a head whose
// signature is right.
func (v *Verifier) openHead(signed signedHead, check func(head, authority) *Error) (head, *List, *Error) {
	h, err := parseHead(signed.Head)
	if err != nil {
		return head{}, nil, fault(code.RevocationsMalformed, "reading revocation list: %w", err)
	}
	held, fail := v.admit(h, signed, check)
	if fail != nil {
		return head{}, nil, fail.of(h.issuer, Serial{})
	}
	return h, held, nil
}

func (v *Verifier) admit(h head, signed signedHead, check func(head, authority) *Error) (*List, *Error) {
	a, fail := v.authority(h.issuer)
	if fail != nil {
		return nil, fail
	}
	history, err := a.known.orParse(signed.History)
	if err != nil {
		return nil, fault(code.RevocationsMalformed, "revocation list %d: %w", h.number, err)
	}
	if fail := signed.verify(h, history); fail != nil {
		return nil, fail
	}
	_ = v.learn(history, signed.History) // check looks at what has come of it
	if a, fail = v.authority(h.issuer); fail != nil {
		return nil, fail
	}
	if fail := check(h, a); fail != nil {
		return nil, fail
	}
	return a.list, nil
}

// checkHead checks a head whose signature is right.
func (v *Verifier) checkHead(h head, a authority, now time.Time) *Error {
	if a.diverged != nil {
		return a.divergedError(h.issuer)
	}
	if fail := v.revoked(h.issuer); fail != nil {
		return fault(code.IdentityRevoked, "revocation list %d: authority %s has revoked the identifier of this one, for ever", h.number, fail.Authority)
	}
	// A key that was replaced must not say what is revoked today, however far
	// back it dates the list.
	if h.signer != a.known.LastHash() || v.isNewest(&a, h.issuer) != nil {
		return fault(code.SignerReplaced, "revocation list %d: the key that signed it has been replaced: ask for the list of now", h.number)
	}
	if err := a.known.CheckTime(h.issued, v.skew); err != nil {
		return fault(code.AuthorityExpired, "revocation list %d: the key that signed it did not hold when it was issued: %w", h.number, err)
	}
	if now.Add(v.skew).Before(h.issued) {
		return fault(code.NotYetValid, "revocation list %d: %w: it was issued at %s and the clock says %s: check the clocks on both sides",
			h.number, identity.ErrNotYetValid, h.issued.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return checkNumber(h, a.list)
}

// checkNumber checks that a list goes on from the one that is held, if there is one.
func checkNumber(h head, held *List) *Error {
	switch {
	case held == nil || h.number > held.head.number:
		return nil
	case h.number == held.head.number && h.state != held.head.state:
		return fault(code.RevocationsOld, "revocation list %d differs from the one held, which has that number: the authority's store has gone back, or its key is in two hands", h.number)
	default:
		return fault(code.RevocationsOld, "revocation list %d: %w, %d", h.number, ErrNotNewer, held.head.number)
	}
}

// install makes a verified list the one that is held. Only the holder of
// v.applying changes which that is.
func (v *Verifier) install(l *List) *Error {
	if held := v.List(l.head.issuer); held != nil {
		if err := l.set.checkFollows(held.set, l.head.issued); err != nil {
			return fault(code.RevocationsLost, "revocation list %d: %w: restore the authority's store", l.head.number, err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	a, ok := v.authorities[l.head.issuer]
	if !ok {
		return untrusted(l.head.issuer)
	}
	a.list = l
	return nil
}
