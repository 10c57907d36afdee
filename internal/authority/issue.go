package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	// MaxMembers bounds the members of an authority.
	MaxMembers = 100_000
	// MaxPerSubject is how many members one token's subject lets in at once: a pod
	// has one, or a few when its identity does not outlive its containers.
	MaxPerSubject = 16
	// maxTokens is how many tokens are verified at once, and tokenTime how long
	// that may take.
	maxTokens = 16
	tokenTime = 15 * time.Second
)

// The names of requests, as traces have them.
const (
	requestTicket     = "ticket"
	requestKubernetes = "kubernetes"
	requestRenew      = "renew"
	requestFetch      = "fetch"
)

// A decide turns who a peer was, nil for no member, into who it is to be. It is
// called in a transaction that only reads, and then in one that writes, perhaps
// more than once, and keeps nothing of a call that was not the last.
type decide func(tx *bolt.Tx, was *member) (*member, error)

// grant issues a credential to peer as decide says, and returns its bundle when
// all of it is on disk, and in the record. A *[Refusal] says that nothing was
// changed, but for one of code.AuditFailed: then the peer may be a member all the
// same, and gets its credential when it asks again.
func (a *Authority) grant(peer identity.Identifier, issue Issue, to decide) ([]byte, error) {
	now, err := clock()
	if err != nil {
		return nil, err
	}
	signer := a.signer.Load()
	if err := signer.History().CheckTime(now, 0); err != nil {
		return nil, refuse(code.AuthorityExpired, "the authority's own key does not hold: %v", err)
	}
	change := func(tx *bolt.Tx) (was, is *member, err error) {
		if err := errors.Join(refuseRevoked(tx, peer), refuseRevoked(tx, a.store.owner)); err != nil {
			return nil, nil, err
		}
		if was, err = getMember(tx, peer); err != nil {
			return nil, nil, err
		}
		is, err = to(tx, was)
		return was, is, err
	}
	// Who is refused is so by reading, which holds nobody up: a refusal in a batch
	// has all others in it done again.
	if err := a.store.db.View(func(tx *bolt.Tx) error { _, _, err := change(tx); return err }); err != nil {
		return nil, err
	}
	// Before anything is stored: who is refused for this tries on, and each time
	// would make another credential outstanding.
	if err := a.recordable(); err != nil {
		return nil, err
	}
	var bundle []byte
	err = a.store.db.Batch(func(tx *bolt.Tx) error {
		was, is, err := change(tx)
		if err != nil {
			return err
		}
		if was == nil && membersFull(tx) {
			return refuse(code.Limit, "the authority has %d members, which is all that it takes", MaxMembers)
		}
		from := was.nextBegin(now)
		c, b, err := credential.Issue(signer, credential.Template{Subject: peer, Attributes: is.attributes, NotBefore: from, Lifetime: a.cfg.Lifetime})
		if err != nil {
			return err
		}
		if err := is.add(outstanding{c.Serial, c.NotAfter}, now); err != nil {
			return err
		}
		is.renewed = from
		bundle = b
		issue.Peer, issue.Serial, issue.NotAfter, issue.New = peer, c.Serial, c.NotAfter, was == nil
		issue.Ticket, issue.Subject, issue.Attributes = is.ticket, is.subject, is.attributes
		return putMember(tx, peer, was, is)
	})
	if err != nil {
		return nil, err
	}
	if issue.New {
		a.changed(peer)
	}
	if err := a.record(issue.decision()); err != nil {
		return nil, err
	}
	if a.cfg.Trace.Issued != nil {
		a.cfg.Trace.Issued(issue)
	}
	return bundle, nil
}

// decision returns what is recorded of a credential that was issued.
func (i *Issue) decision() *Decision {
	d := &Decision{Action: ActionRenew, Peer: i.Peer, Ticket: i.Ticket, Subject: i.Subject, Attributes: i.Attributes, Serial: i.Serial}
	// Who shows a ticket enrols, with what the ticket says, whether it is new or not.
	if i.New || i.Request == requestTicket {
		d.Action = ActionEnroll
	}
	return d
}

// mostAhead is how far before its time a credential may be issued, and so how far this
// machine's clock may go back without one that begins before the last. It is more than
// all that a member may have outstanding, a second each, and less than the
// credential.DefaultSkew that is granted for clocks.
const mostAhead = (maxOutstanding + 4) * time.Second

// nextBegin returns when the next credential of a member, nil for a new one, begins:
// now, but after the one before, since verifiers take the one that begins last for the
// newest.
func (m *member) nextBegin(now time.Time) time.Time {
	if m == nil || m.renewed.Before(now) || m.renewed.After(now.Add(mostAhead)) {
		return now
	}
	return m.renewed.Add(time.Second)
}

// refuseRevoked refuses an identifier that this authority has revoked.
func refuseRevoked(tx *bolt.Tx, id identity.Identifier) error {
	if tx.Bucket(bucketIdentifiers).Get(id[:]) == nil {
		return nil
	}
	return refuse(code.IdentityRevoked, "the authority has revoked the identifier %s, for ever: make a new identity, and enrol that", id)
}

// membersFull reports whether there is no room for another member.
func membersFull(tx *bolt.Tx) bool {
	// The number of keys takes a walk over the pages; it is asked only where the
	// sequence, which counts those that have come, says that it could be so.
	b := tx.Bucket(bucketMembers)
	if n, err := b.NextSequence(); err == nil && n <= MaxMembers {
		return false
	}
	return b.Stats().KeyN >= MaxMembers
}

// add enters a credential, and gives up those that nobody can take for good any
// more.
func (m *member) add(o outstanding, now time.Time) error {
	kept := make([]outstanding, 0, len(m.issued)+1)
	for _, o := range m.issued {
		if now.Before(o.end.Add(credential.DropAfter)) {
			kept = append(kept, o)
		}
	}
	if len(kept) >= maxOutstanding {
		return refuse(code.Limit, "%d credentials were issued to this identifier that may still hold: renew at half of a credential's time, and no more often", len(kept))
	}
	m.issued = append(kept, o)
	return nil
}

// enrollTicket makes peer a member by a ticket. The ticket by which it is one
// already is taken once more without another use: the answer may have been lost.
func (a *Authority) enrollTicket(peer identity.Identifier, m credential.EnrollTicket) ([]byte, error) {
	return a.grant(peer, Issue{Request: requestTicket}, func(tx *bolt.Tx, was *member) (*member, error) {
		t, err := getTicket(tx, m.ID)
		if err != nil {
			return nil, err
		}
		now := wholeSeconds(time.Now())
		again := was != nil && was.how == ByTicket && was.ticket == m.ID
		switch {
		case t == nil || !t.hash.Matches(m.ID, m.Secret):
			// Which of the two is nobody's business who does not have the secret.
			return nil, refuse(code.TicketRefused, "the authority has made no such ticket, or has forgotten it: make a new one with \"culvert ticket create\"")
		case !t.revoked.IsZero():
			return nil, refuse(code.TicketRefused, "the ticket %s was revoked at %s: make a new one with \"culvert ticket create\"", m.ID, t.revoked.Format(time.RFC3339))
		case !now.Before(t.expires):
			return nil, refuse(code.TicketRefused, "the ticket %s expired at %s: make a new one with \"culvert ticket create\"", m.ID, t.expires.Format(time.RFC3339))
		case t.used >= t.uses && !again:
			return nil, refuse(code.TicketRefused, "the ticket %s is used up (%d of %d): make a new one with \"culvert ticket create\"", m.ID, t.used, t.uses)
		}
		is := &member{attributes: t.attributes, how: ByTicket, ticket: m.ID, enrolled: now}
		if was != nil {
			is.issued = was.issued
		}
		if again {
			is.enrolled = was.enrolled
			return is, nil
		}
		if !tx.Writable() {
			return is, nil
		}
		t.used++
		return is, putRecord(tx, bucketTickets, m.ID[:], t)
	})
}

// enrollKubernetes makes peer a member by a token, or renews it as one.
func (a *Authority) enrollKubernetes(ctx context.Context, peer identity.Identifier, m credential.EnrollKubernetes) ([]byte, error) {
	subject, attributes, err := a.verifyToken(ctx, m.Token)
	if err != nil {
		return nil, err
	}
	return a.grant(peer, Issue{Request: requestKubernetes}, func(tx *bolt.Tx, was *member) (*member, error) {
		is := &member{attributes: attributes, how: ByKubernetes, subject: subject, enrolled: wholeSeconds(time.Now())}
		if was != nil {
			is.issued = was.issued
		}
		if was != nil && was.how == ByKubernetes && was.subject == subject {
			is.enrolled = was.enrolled
		} else if countSubject(tx, subject, MaxPerSubject) >= MaxPerSubject {
			return nil, refuse(code.Limit, "%d members were enrolled by tokens for %s: keep the pod's identity where it outlives its containers", MaxPerSubject, subject)
		}
		return is, nil
	})
}

// verifyToken asks the verifier, for as long as it may take.
func (a *Authority) verifyToken(ctx context.Context, token credential.Secret) (string, credential.Attributes, error) {
	if a.cfg.Tokens == nil {
		return "", nil, refuse(code.TokenRefused, "the authority takes no Kubernetes tokens: set kubernetes in its settings, or enrol by a ticket")
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	select {
	case a.tokens <- struct{}{}:
		defer func() { <-a.tokens }()
	case <-ctx.Done():
		return "", nil, refuse(code.Timeout, "the authority has too many Kubernetes tokens to verify: try again")
	}
	text := token.Reveal()
	defer clear(text)
	subject, attributes, err := a.cfg.Tokens.Verify(ctx, string(text))
	var refused *Refusal
	switch {
	case errors.As(err, &refused):
		return "", nil, refused
	case err != nil:
		return "", nil, refuse(code.TokenRefused, "%v", err)
	}
	if err := errors.Join(checkSubject(subject), attributes.Check()); err != nil {
		return "", nil, refuse(code.TokenRefused, "what the token says cannot stand in a credential: %v", err)
	}
	return subject, attributes, nil
}

// renew issues a member another credential.
func (a *Authority) renew(peer identity.Identifier) ([]byte, error) {
	return a.grant(peer, Issue{Request: requestRenew}, func(_ *bolt.Tx, was *member) (*member, error) {
		switch {
		case was == nil:
			return nil, refuseStranger(peer)
		case was.how == ByKubernetes && !a.cfg.RenewWithoutToken:
			return nil, refuse(code.TokenRefused, "%s was enrolled by a Kubernetes token, and renews by showing one again", peer)
		}
		is := *was
		return &is, nil
	})
}

// refuseStranger refuses what only members get.
func refuseStranger(peer identity.Identifier) *Refusal {
	return refuse(code.NotEnrolled, "%s is no member of this authority: enrol it by a ticket (\"culvert ticket create\") or a Kubernetes token", peer)
}

// keepPods is how long after the end of its last credential a member is kept that was
// enrolled by a token and renews without: pods come and go.
const keepPods = 24 * time.Hour

// forgotten reports whether a member is to be given up. None of its credentials may
// hold any more, so that each can be revoked as long as it may; what was revoked is
// kept elsewhere.
func (c *Config) forgotten(m *member, now time.Time) bool {
	keep := credential.DropAfter
	switch {
	case m.how == ByKubernetes && c.RenewWithoutToken:
		keep = keepPods
	case m.how == ByTicket && now.Before(m.renewed.Add(c.ForgetAfter)):
		return false
	}
	return !now.Before(m.lastEnd().Add(keep))
}

// tidy gives up what is over for long: tickets, and members that cannot renew, since
// they would have to show a token again, or have not renewed for long. It tells of
// members that are none any more.
func (a *Authority) tidy(now time.Time) error {
	gone, err := a.giveUp(wholeSeconds(now))
	for _, id := range gone {
		a.changed(id)
	}
	return err
}

func (a *Authority) giveUp(now time.Time) (gone []identity.Identifier, err error) {
	err = a.store.db.Update(func(tx *bolt.Tx) error {
		gone = nil
		err := deleteWhere(tx.Bucket(bucketTickets), func(_, v []byte) (bool, error) {
			t, err := decodeTicket(v)
			return err == nil && !now.Before(t.expires.Add(keepTickets)), err
		})
		if err != nil {
			return err
		}
		members := map[identity.Identifier]*member{}
		err = tx.Bucket(bucketMembers).ForEach(func(k, v []byte) error {
			m, err := decodeMember(v)
			if err == nil && a.cfg.forgotten(m, now) {
				members[identity.Identifier(k)] = m
			}
			return err
		})
		for id, m := range members {
			err = errors.Join(err, deleteMember(tx, id, m))
			gone = append(gone, id)
		}
		if err != nil {
			return fmt.Errorf("giving up what has ended: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}
