package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of a ticket, and what a [TicketRequest] has where it says nothing.
const (
	DefaultTicketUses = 1
	MaxTicketUses     = 100_000
	DefaultTicketTime = time.Hour
	MinTicketTime     = time.Second
	MaxTicketTime     = 90 * 24 * time.Hour
	// MaxTickets bounds the tickets that an authority keeps.
	MaxTickets = 10_000
	// MaxPage is how many members one call returns at most.
	MaxPage = 1000

	// keepTickets is how long a ticket's refusal says why.
	keepTickets = 7 * 24 * time.Hour
)

// tokenAttributes begins the names of attributes that only a token gives.
const tokenAttributes = "k8s."

// An Operator is what the command line asks of an authority: an [Authority] in
// this process, or one that runs in another.
type Operator interface {
	CreateTicket(ctx context.Context, r TicketRequest) (credential.Ticket, TicketInfo, error)
	Tickets(ctx context.Context) ([]TicketInfo, error)
	RevokeTicket(ctx context.Context, id credential.TicketID) error
	Revoke(ctx context.Context, r Revocation) (Revoked, error)
	Members(ctx context.Context, after identity.Identifier, most int) ([]MemberInfo, error)
}

// A TicketRequest says what a new ticket is good for. Zero fields are the
// defaults.
type TicketRequest struct {
	Attributes credential.Attributes
	Uses       int // members that it makes; 0: DefaultTicketUses
	ExpiresIn  time.Duration
}

// A TicketInfo is what is known of a ticket, without its secret.
type TicketInfo struct {
	ID         credential.TicketID
	Attributes credential.Attributes
	Uses, Used int
	Created    time.Time
	Expires    time.Time
	Revoked    time.Time // zero: it is not
}

// CreateTicket makes a ticket. Its secret is nowhere but in what is returned.
func (a *Authority) CreateTicket(_ context.Context, r TicketRequest) (credential.Ticket, TicketInfo, error) {
	t, info, err := a.createTicket(r)
	if err != nil {
		return credential.Ticket{}, TicketInfo{}, fmt.Errorf("making a ticket: %w", err)
	}
	return t, info, nil
}

func (a *Authority) createTicket(r TicketRequest) (credential.Ticket, TicketInfo, error) {
	now, err := clock()
	if err != nil {
		return credential.Ticket{}, TicketInfo{}, err
	}
	if r.Uses == 0 {
		r.Uses = DefaultTicketUses
	}
	if r.ExpiresIn == 0 {
		r.ExpiresIn = DefaultTicketTime
	}
	if err := a.checkTicket(r, now); err != nil {
		return credential.Ticket{}, TicketInfo{}, err
	}
	if err := a.recordable(); err != nil {
		_ = a.record(&Decision{Action: ActionCreateTicket, Attributes: r.Attributes, Refusal: err})
		return credential.Ticket{}, TicketInfo{}, err
	}
	t, err := credential.NewTicket(a.Identifier(), a.cfg.Routes)
	if err != nil {
		return credential.Ticket{}, TicketInfo{}, err
	}
	record := &ticketRecord{
		hash: credential.HashTicket(t.ID, t.Secret), attributes: r.Attributes, uses: uint64(r.Uses),
		created: now, expires: wholeSeconds(now.Add(r.ExpiresIn)),
	}
	err = a.store.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketTickets)
		if b.Stats().KeyN >= MaxTickets {
			return fmt.Errorf("there are %d tickets, which is all that it keeps: they are forgotten a week after their end", MaxTickets)
		}
		return putRecord(tx, bucketTickets, t.ID[:], record)
	})
	if err != nil {
		return credential.Ticket{}, TicketInfo{}, err
	}
	if err := a.record(&Decision{Action: ActionCreateTicket, Ticket: t.ID, Attributes: r.Attributes}); err != nil {
		// Nobody has it.
		return credential.Ticket{}, TicketInfo{}, errors.Join(err, a.store.db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketTickets).Delete(t.ID[:])
		}))
	}
	return t, record.info(t.ID), nil
}

// checkTicket says what is wrong with a ticket that is asked for.
func (a *Authority) checkTicket(r TicketRequest, now time.Time) error {
	if len(a.cfg.Routes) == 0 {
		return errors.New("the settings say of no route by which members reach the authority: set routes")
	}
	if r.Uses < 1 || r.Uses > MaxTicketUses {
		return fmt.Errorf("%d uses, want 1 to %d", r.Uses, MaxTicketUses)
	}
	if r.ExpiresIn < MinTicketTime || r.ExpiresIn > MaxTicketTime {
		return fmt.Errorf("it would expire in %s, want %s to %s", r.ExpiresIn, MinTicketTime, MaxTicketTime)
	}
	for name := range r.Attributes {
		if strings.HasPrefix(name, tokenAttributes) {
			return fmt.Errorf("attribute %s: names that begin with %q say what a Kubernetes token has proven: choose another", name, tokenAttributes)
		}
	}
	// A credential of them is what the ticket's users would get: it has to fit.
	_, _, err := credential.Issue(a.signer.Load(), credential.Template{Subject: a.Identifier(), Attributes: r.Attributes, NotBefore: now, Lifetime: a.cfg.Lifetime})
	return err
}

func (t *ticketRecord) info(id credential.TicketID) TicketInfo {
	return TicketInfo{
		ID: id, Attributes: t.attributes, Uses: int(t.uses), Used: int(t.used),
		Created: t.created, Expires: t.expires, Revoked: t.revoked,
	}
}

// Tickets returns all tickets that are kept, those that are over for up to a
// week.
func (a *Authority) Tickets(context.Context) (list []TicketInfo, err error) {
	err = a.store.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketTickets).ForEach(func(k, v []byte) error {
			t, err := decodeTicket(v)
			if err == nil {
				list = append(list, t.info(credential.TicketID(k)))
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading tickets: %w: %w", ErrDamaged, err)
	}
	return list, nil
}

// ErrNoTicket says that there is no ticket of that id.
var ErrNoTicket = errors.New("there is no such ticket")

// RevokeTicket makes a ticket worthless. Who was enrolled by it stays a member.
func (a *Authority) RevokeTicket(_ context.Context, id credential.TicketID) error {
	now, err := clock()
	var attributes credential.Attributes
	already := false
	if err == nil {
		err = a.store.db.Update(func(tx *bolt.Tx) error {
			t, err := getTicket(tx, id)
			switch {
			case err != nil:
				return err
			case t == nil:
				return ErrNoTicket
			case !t.revoked.IsZero():
				already = true
				return nil
			}
			t.revoked, attributes = now, t.attributes
			return putRecord(tx, bucketTickets, id[:], t)
		})
	}
	if err != nil {
		return fmt.Errorf("revoking ticket %s: %w", id, err)
	}
	if !already {
		_ = a.record(&Decision{Action: ActionRevokeTicket, Ticket: id, Attributes: attributes}) // it stands
	}
	return nil
}

// A Revocation says what is to be revoked.
type Revocation struct {
	Identifiers []identity.Identifier
	Serials     []credential.Serial
	Reason      string // for the operator alone; at most MaxReason bytes
	// Own says that the authority's own identifier may be among them, which ends
	// it: nothing that it has signed counts any more, for ever.
	Own bool
}

// A Revoked is what a [Revocation] has led to.
type Revoked struct {
	Number  uint64 // of the list that has it
	Added   int
	Already int // that were revoked before
}

// Revoke takes back identifiers, for ever, and credentials, and makes a list of
// it, which is on disk when Revoke returns and on its way to all members that are
// connected.
func (a *Authority) Revoke(_ context.Context, r Revocation) (Revoked, error) {
	out, err := a.revoke(r)
	if err != nil {
		return Revoked{}, fmt.Errorf("revoking: %w", err)
	}
	return out, nil
}

func (a *Authority) revoke(r Revocation) (Revoked, error) {
	if err := r.check(a.Identifier()); err != nil {
		return Revoked{}, err
	}
	now, err := clock()
	if err != nil {
		return Revoked{}, err
	}
	a.listing.Lock()
	defer a.listing.Unlock()
	was := a.list().list.Set()
	more := revoking{reason: r.Reason}
	seen := map[identity.Identifier]bool{}
	for _, id := range r.Identifiers {
		if !was.HasIdentifier(id) && !seen[id] {
			seen[id] = true
			more.identifiers = append(more.identifiers, id)
		}
	}
	if more.serials, err = a.store.findSerials(r.Serials, was, now); err != nil {
		return Revoked{}, err
	}
	out := Revoked{Added: len(more.identifiers) + len(more.serials)}
	out.Already = len(r.Identifiers) + len(r.Serials) - out.Added
	if out.Added == 0 {
		out.Number = a.list().list.Number()
		return out, nil
	}
	serials := make([]credential.RevokedSerial, len(more.serials))
	for i, s := range more.serials {
		serials[i] = s.RevokedSerial
	}
	is, err := was.Prune(now).Add(more.identifiers, serials)
	if err != nil {
		return Revoked{}, err
	}
	l, err := a.makeListLocked(now, was, is, more)
	if err != nil {
		return Revoked{}, err
	}
	for _, id := range more.identifiers {
		a.changed(id)
	}
	a.recordRevoked(more)
	out.Number = l.Number()
	return out, nil
}

// recordRevoked records what was revoked, which stands.
func (a *Authority) recordRevoked(r revoking) {
	for _, id := range r.identifiers {
		_ = a.record(&Decision{Action: ActionRevoke, Target: id, Reason: r.reason})
	}
	for _, s := range r.serials {
		_ = a.record(&Decision{Action: ActionRevoke, Target: s.subject, Serial: s.Serial, Reason: r.reason})
	}
}

func (r *Revocation) check(own identity.Identifier) error {
	if len(r.Identifiers)+len(r.Serials) == 0 {
		return errors.New("there is nothing to revoke: name identifiers or serials of credentials")
	}
	if len(r.Reason) > MaxReason || !utf8.ValidString(r.Reason) || strings.ContainsFunc(r.Reason, unicode.IsControl) {
		return fmt.Errorf("the reason has %d bytes, want at most %d of UTF-8 without control characters", len(r.Reason), MaxReason)
	}
	for _, id := range r.Identifiers {
		switch {
		case id.IsZero():
			return errors.New("one identifier is all zero, which is nobody's")
		case id == own && !r.Own:
			return fmt.Errorf("%s is the authority itself, which that would end for ever: say that it is meant", id)
		}
	}
	return nil
}

// findSerials returns the credentials of these serials that was has not, with
// their ends, which members' records have. One that ended so long ago that a list
// would drop it is none of them: it may have been dropped before, and what was
// dropped is not to come back.
func (s *Store) findSerials(serials []credential.Serial, was *credential.Set, now time.Time) (found []revokingSerial, err error) {
	wanted := map[credential.Serial]bool{}
	for _, serial := range serials {
		if !was.HasSerial(serial) {
			wanted[serial] = true
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMembers).ForEach(func(k, v []byte) error {
			m, err := decodeMember(v)
			if err != nil {
				return fmt.Errorf("member %x: %w: %w", k, ErrDamaged, err)
			}
			for _, o := range m.issued {
				if wanted[o.serial] && now.Before(o.end.Add(credential.DropAfter)) {
					delete(wanted, o.serial)
					found = append(found, revokingSerial{credential.RevokedSerial{Serial: o.serial, End: o.end}, identity.Identifier(k)})
				}
			}
			return nil
		})
	})
	for serial := range wanted {
		err = errors.Join(err, fmt.Errorf("no credential %s that could still hold was issued to a member: check the serial", serial))
	}
	return found, err
}

// A MemberInfo is what is known of a member.
type MemberInfo struct {
	Identifier identity.Identifier
	Attributes credential.Attributes
	How        string              // ByTicket or ByKubernetes
	Ticket     credential.TicketID // zero with ByKubernetes
	Subject    string              // "" with ByTicket
	Enrolled   time.Time
	Renewed    time.Time           // when the last credential was issued
	Serials    []credential.Serial // credentials that may hold, the last issued last
	NotAfter   time.Time           // when the last of them ends
}

// Members returns members in ascending order of their identifiers, up to most
// ([MaxPage] at most) above after.
func (a *Authority) Members(_ context.Context, after identity.Identifier, most int) (list []MemberInfo, err error) {
	if most < 1 || most > MaxPage {
		most = MaxPage
	}
	err = a.store.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketMembers).Cursor()
		k, v := c.Seek(after[:])
		if bytes.Equal(k, after[:]) {
			k, v = c.Next()
		}
		for ; k != nil && len(list) < most; k, v = c.Next() {
			m, err := decodeMember(v)
			if err != nil {
				return fmt.Errorf("member %x: %w: %w", k, ErrDamaged, err)
			}
			list = append(list, m.info(identity.Identifier(k)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading members: %w", err)
	}
	return list, nil
}

func (m *member) info(id identity.Identifier) MemberInfo {
	info := MemberInfo{
		Identifier: id, Attributes: m.attributes, How: m.how, Ticket: m.ticket, Subject: m.subject,
		Enrolled: m.enrolled, Renewed: m.renewed, NotAfter: m.lastEnd(),
	}
	for _, o := range m.issued {
		info.Serials = append(info.Serials, o.serial)
	}
	return info
}
