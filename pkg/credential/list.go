package credential

import (
	"errors"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// MaxListLen bounds a revocation list, full or delta, in bytes.
const MaxListLen = 8 << 20

const revocationsLabel = "culvert revocations v1"

// A List is an authority's signed statement of all that it has revoked. It is
// immutable and safe for concurrent use.
type List struct {
	head   head
	set    *Set
	signed signedHead
}

// A signedHead is the part of a list that is signed, which is the same in the
// full list and in all deltas that lead to it, as it travels.
type signedHead struct {
	History   []byte
	Head      []byte
	Signature []byte
}

// A fullList is a list as it travels whole.
type fullList struct {
	History     []byte `cbor:"1,keyasint"`
	Head        []byte `cbor:"2,keyasint"`
	Signature   []byte `cbor:"3,keyasint"`
	Identifiers []byte `cbor:"4,keyasint,omitempty"`
	Serials     []byte `cbor:"5,keyasint,omitempty"`
}

// A deltaList is a list as it travels to somebody who holds an earlier one.
// Nothing in it takes an identifier out: that is revoked for ever.
type deltaList struct {
	History     []byte `cbor:"1,keyasint"`
	Head        []byte `cbor:"2,keyasint"`
	Signature   []byte `cbor:"3,keyasint"`
	From        uint64 `cbor:"4,keyasint"`
	Identifiers []byte `cbor:"5,keyasint,omitempty"` // added
	Serials     []byte `cbor:"6,keyasint,omitempty"` // added
	Dropped     []byte `cbor:"7,keyasint,omitempty"` // serials, without their ends
}

// A headClaims is what the signature of a list is over.
type headClaims struct {
	Issuer []byte `cbor:"1,keyasint"`
	Signer []byte `cbor:"2,keyasint"`
	Number uint64 `cbor:"3,keyasint"`
	Issued uint64 `cbor:"4,keyasint"`
	Next   uint64 `cbor:"5,keyasint,omitempty"`
	State  []byte `cbor:"6,keyasint"`
}

// A head is a checked headClaims.
type head struct {
	issuer identity.Identifier
	signer [32]byte
	number uint64
	issued time.Time
	next   time.Time // zero: not said
	state  [32]byte
}

// SignList signs, with authority's current key, that set is all that it has
// revoked at issued. number is above that of every list before, and at least 1.
// next, unless it is zero, promises another list by then: without it verifiers
// refuse all of the authority's credentials from next on. Both times are rounded
// down to seconds. The list keeps set.
func SignList(authority *identity.Identity, number uint64, issued, next time.Time, set *Set) (*List, error) {
	l, err := signList(authority, number, issued, next, set)
	if err != nil {
		return nil, fmt.Errorf("signing revocation list %d: %w", number, err)
	}
	return l, nil
}

func signList(authority *identity.Identity, number uint64, issued, next time.Time, set *Set) (*List, error) {
	h := authority.History()
	if err := h.CheckTime(issued, 0); err != nil {
		return nil, err
	}
	issuer, signer, state := h.Identifier(), h.LastHash(), set.Hash()
	c := headClaims{Issuer: issuer[:], Signer: signer[:], Number: number, State: state[:]}
	var err error
	if c.Issued, err = seconds(issued); err != nil {
		return nil, err
	}
	if !next.IsZero() {
		if c.Next, err = seconds(next); err != nil {
			return nil, err
		}
	}
	body, err := canon.Marshal(c)
	if err != nil {
		return nil, err
	}
	checked, err := parseHead(body)
	if err != nil {
		return nil, err
	}
	signature, err := authority.Sign(revocationsLabel, body)
	if err != nil {
		return nil, err
	}
	return &List{head: checked, set: set, signed: signedHead{h.Bytes(), body, signature}}, nil
}

// Authority returns whose list l is.
func (l *List) Authority() identity.Identifier { return l.head.issuer }

// Number returns the list's number, at least 1.
func (l *List) Number() uint64 { return l.head.number }

// Issued returns when the list was made.
func (l *List) Issued() time.Time { return l.head.issued }

// Next returns by when the authority promises another list; zero if it does
// not.
func (l *List) Next() time.Time { return l.head.next }

// Set returns what is revoked.
func (l *List) Set() *Set { return l.set }

// has reports whether an identifier is revoked. l may be nil.
func (l *List) has(id identity.Identifier) bool { return l != nil && l.set.HasIdentifier(id) }

// Full returns the whole list's encoding, as [Verifier.ApplyList] takes it.
func (l *List) Full() ([]byte, error) {
	return encodeList(fullList{
		History:     l.signed.History,
		Head:        l.signed.Head,
		Signature:   l.signed.Signature,
		Identifiers: l.set.ids().records,
		Serials:     l.set.sers().records,
	})
}

// Delta returns what leads somebody who holds from to l, as
// [Verifier.ApplyDelta] takes it. It fails when l cannot follow from.
func (l *List) Delta(from *List) ([]byte, error) {
	if l.head.issuer != from.head.issuer {
		return nil, fmt.Errorf("making a delta from revocation list %d of %s to %d of %s: want one of the same authority",
			from.head.number, from.head.issuer, l.head.number, l.head.issuer)
	}
	return l.DeltaFrom(from.head.number, from.set)
}

// DeltaFrom is [List.Delta] for an authority that knows what its list of that
// number had, and has the list no more.
func (l *List) DeltaFrom(number uint64, had *Set) ([]byte, error) {
	if number == 0 || l.head.number <= number {
		return nil, fmt.Errorf("making a delta from revocation list %d to %d: want one with a higher number", number, l.head.number)
	}
	if err := l.set.checkFollows(had, l.head.issued); err != nil {
		return nil, fmt.Errorf("making a delta from revocation list %d to %d: %w", number, l.head.number, err)
	}
	d := deltaList{History: l.signed.History, Head: l.signed.Head, Signature: l.signed.Signature, From: number}
	_ = had.ids().walk(l.set.ids(), func(was, is []byte) error { // visits without failing
		if was == nil {
			d.Identifiers = append(d.Identifiers, is...)
		}
		return nil
	})
	_ = had.sers().walk(l.set.sers(), func(was, is []byte) error {
		switch {
		case was == nil:
			d.Serials = append(d.Serials, is...)
		case is == nil:
			d.Dropped = append(d.Dropped, was[:serialKey]...)
		}
		return nil
	})
	return encodeList(d)
}

func encodeList(v any) ([]byte, error) {
	b, err := canon.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding revocation list: %w", err)
	}
	if len(b) > MaxListLen {
		return nil, fmt.Errorf("encoding revocation list: %d bytes, more than %d", len(b), MaxListLen)
	}
	return b, nil
}

// decodeList reads a full list or a delta into v.
func decodeList(b []byte, v any) *Error {
	if len(b) > MaxListLen {
		return fault(code.RevocationsMalformed, "reading revocation list: %d bytes, more than %d", len(b), MaxListLen)
	}
	if err := canon.UnmarshalExact(b, v); err != nil {
		return fault(code.RevocationsMalformed, "reading revocation list: %w", err)
	}
	return nil
}

// parseHead reads what is signed and checks all of it that needs no history
// and no clock.
func parseHead(b []byte) (head, error) {
	var raw headClaims
	if err := canon.UnmarshalExact(b, &raw); err != nil {
		return head{}, err
	}
	var h head
	if err := fill(h.issuer[:], raw.Issuer); err != nil {
		return head{}, fmt.Errorf("issuer %w", err)
	}
	if err := fill(h.signer[:], raw.Signer); err != nil {
		return head{}, fmt.Errorf("signer %w", err)
	}
	if err := fill(h.state[:], raw.State); err != nil {
		return head{}, fmt.Errorf("hash of the state %w", err)
	}
	switch {
	case raw.Number == 0:
		return head{}, errors.New("its number is 0: they count from 1")
	case raw.Issued > maxUnix || raw.Next > maxUnix:
		return head{}, errors.New("time is after the year 9999")
	case raw.Next != 0 && raw.Next <= raw.Issued:
		return head{}, errors.New("the next one is promised before this one is issued")
	}
	h.number, h.issued = raw.Number, instant(raw.Issued)
	if raw.Next != 0 {
		h.next = instant(raw.Next)
	}
	return h, nil
}

// verify checks the signature of a head whose history has been verified.
func (s signedHead) verify(h head, history *identity.History) *Error {
	if history.Identifier() != h.issuer {
		return fault(code.RevocationsForged, "revocation list %d: the history beside it is that of %s", h.number, history.Identifier())
	}
	change, ok := history.Change(h.signer)
	if !ok {
		return fault(code.RevocationsForged, "revocation list %d: what signed it is no change of the authority's history beside it", h.number)
	}
	if !change.Verify(revocationsLabel, s.Head, s.Signature) {
		return fault(code.RevocationsForged, "revocation list %d: its signature is wrong", h.number)
	}
	return nil
}
