package authority

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	// maxUnix is the last second of the year 9999: every accepted time prints.
	maxUnix = 253402300799
	// maxOutstanding is how many credentials of one member may hold at once.
	maxOutstanding = 256
	// MaxReason bounds the note beside a revocation, in bytes.
	MaxReason = 256
	// MaxSubject bounds what a token is for, in bytes.
	MaxSubject = 512
)

// How a member was enrolled.
const (
	ByTicket     = "ticket"
	ByKubernetes = "kubernetes"
)

// enrolments are the numbers that stand for these in the store.
const (
	wireTicket     = 1
	wireKubernetes = 2
)

// A member is an identity that is issued credentials.
type member struct {
	attributes credential.Attributes
	how        string              // ByTicket or ByKubernetes
	ticket     credential.TicketID // by which it enrolled; zero with ByKubernetes
	subject    string              // what its token was for; "" with ByTicket
	enrolled   time.Time           // whole seconds, as all times here
	renewed    time.Time           // when the last credential begins
	issued     []outstanding       // credentials that may hold, the last issued last
}

// An outstanding credential is one that was issued and has not ended.
type outstanding struct {
	serial credential.Serial
	end    time.Time
}

// lastEnd returns when the last credential ends; zero if there is none.
func (m *member) lastEnd() time.Time {
	if len(m.issued) == 0 {
		return time.Time{}
	}
	return m.issued[len(m.issued)-1].end
}

// A ticketRecord is what is kept of a ticket.
type ticketRecord struct {
	hash       credential.TicketHash
	attributes credential.Attributes
	uses, used uint64
	created    time.Time
	expires    time.Time
	revoked    time.Time // zero: it is not
}

// A revocation is what is kept of a revoked identifier, or of a revoked
// credential.
type revocation struct {
	at     time.Time
	number uint64 // of the list that had it first
	reason string // for people

	end     time.Time           // of the credential; zero for an identifier
	subject identity.Identifier // of the credential; zero for an identifier
}

// A dropped credential was revoked, and its entry given up after its end.
type dropped struct {
	end     time.Time
	number  uint64 // of the list that had it first
	without uint64 // of the first list that has it no more
}

// The records as they are stored.
type (
	wireMember struct {
		Attributes map[string]string `cbor:"1,keyasint,omitempty"`
		How        uint8             `cbor:"2,keyasint"`
		Ticket     []byte            `cbor:"3,keyasint,omitempty"`
		Subject    string            `cbor:"4,keyasint,omitempty"`
		Enrolled   uint64            `cbor:"5,keyasint"`
		Renewed    uint64            `cbor:"6,keyasint"`
		Issued     []byte            `cbor:"7,keyasint,omitempty"` // 16 bytes serial || u64 end, each
	}
	wireTicketRecord struct {
		Hash       []byte            `cbor:"1,keyasint"`
		Attributes map[string]string `cbor:"2,keyasint,omitempty"`
		Uses       uint64            `cbor:"3,keyasint"`
		Used       uint64            `cbor:"4,keyasint"`
		Created    uint64            `cbor:"5,keyasint"`
		Expires    uint64            `cbor:"6,keyasint"`
		Revoked    uint64            `cbor:"7,keyasint,omitempty"`
	}
	wireRevocation struct {
		At      uint64 `cbor:"1,keyasint"`
		Number  uint64 `cbor:"2,keyasint"`
		Reason  string `cbor:"3,keyasint,omitempty"`
		End     uint64 `cbor:"4,keyasint,omitempty"`
		Subject []byte `cbor:"5,keyasint,omitempty"`
	}
	wireDropped struct {
		End     uint64 `cbor:"1,keyasint"`
		Number  uint64 `cbor:"2,keyasint"`
		Without uint64 `cbor:"3,keyasint"`
	}
)

const outstandingLen = 16 + 8

func (m *member) encode() ([]byte, error) {
	w := wireMember{
		Attributes: m.attributes, Subject: m.subject,
		Enrolled: unix(m.enrolled), Renewed: unix(m.renewed),
	}
	switch m.how {
	case ByTicket:
		w.How, w.Ticket = wireTicket, m.ticket[:]
	case ByKubernetes:
		w.How = wireKubernetes
	}
	for _, o := range m.issued {
		w.Issued = append(w.Issued, o.serial[:]...)
		w.Issued = binary.BigEndian.AppendUint64(w.Issued, unix(o.end))
	}
	return canon.Marshal(w)
}

func decodeMember(b []byte) (*member, error) {
	var w wireMember
	if err := canon.UnmarshalExact(b, &w); err != nil {
		return nil, err
	}
	m := &member{attributes: w.Attributes, subject: w.Subject}
	if err := m.attributes.Check(); err != nil {
		return nil, err
	}
	switch {
	case w.How == wireTicket && len(w.Ticket) == len(m.ticket) && w.Subject == "":
		m.how, m.ticket = ByTicket, credential.TicketID(w.Ticket)
	case w.How == wireKubernetes && len(w.Ticket) == 0:
		m.how = ByKubernetes
		if err := checkSubject(w.Subject); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("enrolled in an unknown way (%d)", w.How)
	}
	if len(w.Issued)%outstandingLen != 0 || len(w.Issued)/outstandingLen > maxOutstanding {
		return nil, fmt.Errorf("%d bytes of credentials", len(w.Issued))
	}
	if err := errors.Join(readTime(&m.enrolled, w.Enrolled), readTime(&m.renewed, w.Renewed)); err != nil {
		return nil, err
	}
	for b := w.Issued; len(b) > 0; b = b[outstandingLen:] {
		o := outstanding{serial: credential.Serial(b[:16])}
		if err := readTime(&o.end, binary.BigEndian.Uint64(b[16:])); err != nil {
			return nil, err
		}
		m.issued = append(m.issued, o)
	}
	return m, nil
}

// checkSubject checks what a token verifier has said.
func checkSubject(s string) error {
	if s == "" || len(s) > MaxSubject || !utf8.ValidString(s) {
		return fmt.Errorf("a subject of %d bytes, want 1 to %d of UTF-8", len(s), MaxSubject)
	}
	for i := range len(s) {
		if s[i] < ' ' {
			return errors.New("a subject with control characters")
		}
	}
	return nil
}

func (t *ticketRecord) encode() ([]byte, error) {
	return canon.Marshal(wireTicketRecord{t.hash[:], t.attributes, t.uses, t.used, unix(t.created), unix(t.expires), unix(t.revoked)})
}

func decodeTicket(b []byte) (*ticketRecord, error) {
	var w wireTicketRecord
	if err := canon.UnmarshalExact(b, &w); err != nil {
		return nil, err
	}
	t := &ticketRecord{attributes: w.Attributes, uses: w.Uses, used: w.Used}
	switch {
	case len(w.Hash) != len(t.hash):
		return nil, fmt.Errorf("a hash of %d bytes, want %d", len(w.Hash), len(t.hash))
	case w.Uses == 0 || w.Used > w.Uses:
		return nil, fmt.Errorf("used %d times of %d", w.Used, w.Uses)
	}
	t.hash = credential.TicketHash(w.Hash)
	if err := errors.Join(readTime(&t.created, w.Created), readTime(&t.expires, w.Expires)); err != nil {
		return nil, err
	}
	if w.Revoked != 0 {
		if err := readTime(&t.revoked, w.Revoked); err != nil {
			return nil, err
		}
	}
	return t, t.attributes.Check()
}

func (r *revocation) encode() ([]byte, error) {
	w := wireRevocation{At: unix(r.at), Number: r.number, Reason: r.reason, End: unix(r.end)}
	if !r.subject.IsZero() {
		w.Subject = r.subject[:]
	}
	return canon.Marshal(w)
}

// decodeRevocation reads the record of an identifier, or that of a serial.
func decodeRevocation(b []byte, serial bool) (*revocation, error) {
	var w wireRevocation
	if err := canon.UnmarshalExact(b, &w); err != nil {
		return nil, err
	}
	r := &revocation{number: w.Number, reason: w.Reason}
	switch {
	case w.Number == 0:
		return nil, errors.New("revoked by list 0, which there is not")
	case serial != (w.End != 0) || serial != (len(w.Subject) == len(r.subject)) || !serial && len(w.Subject) > 0:
		return nil, errors.New("an identifier's revocation in the place of a credential's, or the reverse")
	case len(w.Reason) > MaxReason:
		return nil, fmt.Errorf("a reason of %d bytes, at most %d", len(w.Reason), MaxReason)
	}
	if serial {
		r.subject = identity.Identifier(w.Subject)
		if err := readTime(&r.end, w.End); err != nil {
			return nil, err
		}
	}
	return r, readTime(&r.at, w.At)
}

func (d *dropped) encode() ([]byte, error) {
	return canon.Marshal(wireDropped{unix(d.end), d.number, d.without})
}

func decodeDropped(b []byte) (*dropped, error) {
	var w wireDropped
	if err := canon.UnmarshalExact(b, &w); err != nil {
		return nil, err
	}
	if w.Number == 0 || w.Without <= w.Number {
		return nil, fmt.Errorf("in the lists from %d to before %d", w.Number, w.Without)
	}
	d := &dropped{number: w.Number, without: w.Without}
	return d, readTime(&d.end, w.End)
}

// unix returns t as it is stored; 0 for the zero time.
func unix(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}

// readTime is the reverse of unix for a time that has to be there.
func readTime(t *time.Time, s uint64) error {
	if s > maxUnix {
		return errors.New("a time after the year 9999")
	}
	*t = time.Unix(int64(s), 0).UTC()
	return nil
}

// wholeSeconds returns now as it is stored and read back.
func wholeSeconds(now time.Time) time.Time { return now.UTC().Truncate(time.Second) }
