package credential

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
)

// MaxToken bounds a Kubernetes token, in bytes.
const MaxToken = 16 << 10

// A kind is the first byte of a message.
type kind uint8

const (
	kindTicket     kind = 1
	kindKubernetes kind = 2
	kindRenew      kind = 3
	kindFetch      kind = 4

	kindIssued    kind = 16
	kindFullList  kind = 17
	kindDelta     kind = 18
	kindUnchanged kind = 19
	kindRefused   kind = 20
)

// A Request is what a member asks of the authority: [EnrollTicket],
// [EnrollKubernetes], [Renew] or [FetchRevocations]. Who asks is what the
// handshake under it has proven.
type Request interface {
	kind() kind
	check() error
	encode() ([]byte, error)
	isRequest()
}

// An Answer is what the authority says: [Issued], [FullRevocations],
// [DeltaRevocations], [Unchanged] or [Refused].
type Answer interface {
	kind() kind
	check() error
	encode() ([]byte, error)
	isAnswer()
}

// EnrollTicket asks to become a member by a ticket. The answer is [Issued].
type EnrollTicket struct {
	ID     TicketID
	Secret Secret
}

// EnrollKubernetes asks to become a member by the token of a service account,
// which is opaque here. The answer is [Issued].
type EnrollKubernetes struct {
	Token Secret // UTF-8, 1 to MaxToken bytes
}

// Renew asks for a new credential in the place of one that the authority has
// issued to this member. The answer is [Issued].
type Renew struct{}

// FetchRevocations asks for what is newer than list Since, 0 for none. The
// answer is [FullRevocations], [DeltaRevocations] or [Unchanged].
type FetchRevocations struct {
	Since uint64
}

// Issued brings a credential.
type Issued struct {
	Bundle []byte // as [Verifier.Verify] takes it
}

// FullRevocations brings a revocation list, asked for or not.
type FullRevocations struct {
	List []byte // as [Verifier.ApplyList] takes it
}

// DeltaRevocations brings what leads from an earlier list to the newest, asked
// for or not.
type DeltaRevocations struct {
	Delta []byte // as [Verifier.ApplyDelta] takes it
}

// Unchanged says that the list asked about is the newest.
type Unchanged struct {
	Number uint64 // its number; 0 if the authority has made none
}

// Refused says why there is no other answer.
type Refused struct {
	Code   code.Code // never code.OK
	Reason string    // for people; at most code.MaxReason bytes of UTF-8
}

func (EnrollTicket) kind() kind     { return kindTicket }
func (EnrollKubernetes) kind() kind { return kindKubernetes }
func (Renew) kind() kind            { return kindRenew }
func (FetchRevocations) kind() kind { return kindFetch }
func (Issued) kind() kind           { return kindIssued }
func (FullRevocations) kind() kind  { return kindFullList }
func (DeltaRevocations) kind() kind { return kindDelta }
func (Unchanged) kind() kind        { return kindUnchanged }
func (Refused) kind() kind          { return kindRefused }

func (EnrollTicket) isRequest()     {}
func (EnrollKubernetes) isRequest() {}
func (Renew) isRequest()            {}
func (FetchRevocations) isRequest() {}
func (Issued) isAnswer()            {}
func (FullRevocations) isAnswer()   {}
func (DeltaRevocations) isAnswer()  {}
func (Unchanged) isAnswer()         {}
func (Refused) isAnswer()           {}

// The bodies as they travel. Unknown keys are passed over, so that later
// versions can add some.
type (
	wireEnroll struct {
		ID     []byte `cbor:"1,keyasint"`
		Secret []byte `cbor:"2,keyasint"`
	}
	wireToken struct {
		Token string `cbor:"1,keyasint"`
	}
	wireRenew  struct{}
	wireNumber struct {
		Number *uint64 `cbor:"1,keyasint"`
	}
	wireIssued struct {
		Bundle []byte `cbor:"1,keyasint"`
	}
	wireRefused struct {
		Code   uint16 `cbor:"1,keyasint"`
		Reason string `cbor:"2,keyasint,omitempty"`
	}
)

func (m EnrollTicket) encode() ([]byte, error) {
	return canon.Marshal(wireEnroll{m.ID[:], m.Secret.bytes()})
}

func (m EnrollKubernetes) encode() ([]byte, error) {
	return canon.Marshal(wireToken{string(m.Token.bytes())})
}

func (Renew) encode() ([]byte, error) { return canon.Marshal(wireRenew{}) }

func (m FetchRevocations) encode() ([]byte, error) { return canon.Marshal(wireNumber{&m.Since}) }

func (m Issued) encode() ([]byte, error) { return canon.Marshal(wireIssued(m)) }

// A list's encoding is the body: it is not wrapped, and so not copied, again.
func (m FullRevocations) encode() ([]byte, error)  { return m.List, nil }
func (m DeltaRevocations) encode() ([]byte, error) { return m.Delta, nil }

func (m Unchanged) encode() ([]byte, error) { return canon.Marshal(wireNumber{&m.Number}) }

func (m Refused) encode() ([]byte, error) {
	return canon.Marshal(wireRefused{uint16(m.Code), m.Reason})
}

func (m EnrollTicket) check() error {
	if m.ID == (TicketID{}) {
		return errors.New("the ticket's id is all zero, which none is")
	}
	if n := m.Secret.Len(); n < MinTicketSecret || n > MaxTicketSecret {
		return fmt.Errorf("the ticket's secret has %d bytes, want %d to %d", n, MinTicketSecret, MaxTicketSecret)
	}
	return nil
}

func (m EnrollKubernetes) check() error {
	if n := m.Token.Len(); n == 0 || n > MaxToken {
		return fmt.Errorf("the token has %d bytes, want 1 to %d", n, MaxToken)
	}
	if !utf8.Valid(m.Token.bytes()) {
		return errors.New("the token is not valid UTF-8")
	}
	return nil
}

func (Renew) check() error { return nil }

func (FetchRevocations) check() error { return nil }

func (m Issued) check() error {
	if n := len(m.Bundle); n == 0 || n > MaxBundleLen {
		return fmt.Errorf("the credential has %d bytes, want 1 to %d", n, MaxBundleLen)
	}
	return nil
}

func (m FullRevocations) check() error  { return checkListLen(m.List) }
func (m DeltaRevocations) check() error { return checkListLen(m.Delta) }

func checkListLen(b []byte) error {
	if n := len(b); n == 0 || n > MaxListLen {
		return fmt.Errorf("the revocation list has %d bytes, want 1 to %d", n, MaxListLen)
	}
	return nil
}

func (Unchanged) check() error { return nil }

func (m Refused) check() error {
	switch {
	case m.Code == code.OK:
		return errors.New("a refusal with code ok")
	case len(m.Reason) > code.MaxReason:
		return fmt.Errorf("the reason has %d bytes, at most %d", len(m.Reason), code.MaxReason)
	case !utf8.ValidString(m.Reason):
		return errors.New("the reason is not valid UTF-8")
	}
	return nil
}

// decodeRequest reads a request's body.
func decodeRequest(k kind, body []byte) (Request, error) {
	switch k {
	case kindTicket:
		var w wireEnroll
		if err := decodeBody(body, &w); err != nil {
			return nil, err
		}
		defer clear(w.Secret)
		m := EnrollTicket{Secret: NewSecret(w.Secret)}
		if err := fill(m.ID[:], w.ID); err != nil {
			return nil, fmt.Errorf("the ticket's id %w", err)
		}
		return m, nil
	case kindKubernetes:
		var w wireToken
		err := decodeBody(body, &w)
		return EnrollKubernetes{NewSecret([]byte(w.Token))}, err
	case kindRenew:
		return Renew{}, decodeBody(body, &wireRenew{})
	case kindFetch:
		n, err := decodeNumber(body)
		return FetchRevocations{n}, err
	}
	return nil, fmt.Errorf("kind %d is no request", k)
}

// decodeAnswer reads an answer's body, and may keep it.
func decodeAnswer(k kind, body []byte) (Answer, error) {
	switch k {
	case kindIssued:
		var w wireIssued
		err := decodeBody(body, &w)
		return Issued(w), err
	case kindFullList:
		return FullRevocations{body}, nil
	case kindDelta:
		return DeltaRevocations{body}, nil
	case kindUnchanged:
		n, err := decodeNumber(body)
		return Unchanged{n}, err
	case kindRefused:
		var w wireRefused
		err := decodeBody(body, &w)
		return Refused{code.Code(w.Code), w.Reason}, err
	}
	return nil, fmt.Errorf("kind %d is no answer", k)
}

// decodeBody reads a body, which is a map: the decoder would take null for any.
func decodeBody(body []byte, v any) error {
	const major, mapOf = 7 << 5, 5 << 5
	if len(body) == 0 || body[0]&major != mapOf {
		return errors.New("its body is not a map")
	}
	return canon.Unmarshal(body, v)
}

func decodeNumber(body []byte) (uint64, error) {
	var w wireNumber
	if err := decodeBody(body, &w); err != nil {
		return 0, err
	}
	if w.Number == nil {
		return 0, errors.New("it names no number")
	}
	return *w.Number, nil
}
