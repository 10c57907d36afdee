package member

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
)

// A conversation is one stream to the authority. One goroutine speaks, and waits
// for each answer before it asks again; another reads.
type conversation struct {
	m    *Member
	conn net.Conn
	last uint32 // id of the last request
	said chan said
	// stale says that a delta did not fit: the list is to be asked for.
	stale bool
	due   time.Time // when the credential is to be renewed; wall clock
	// hastened is what was held when it was found to be revoked, and due made sooner.
	hastened *held
}

// A said is what the reader has read.
type said struct {
	id     uint32
	answer credential.Answer
	err    error // why there is nothing more
}

// converse opens a stream, brings everything up to date and keeps it so until the
// stream or ctx ends, and says why it did.
func (m *Member) converse(ctx context.Context) error {
	opening, cancel := context.WithTimeout(ctx, m.cfg.Timing.Open)
	conn, err := m.cfg.Open(opening)
	cancel()
	if err != nil {
		return fmt.Errorf("opening a stream: %w", err)
	}
	c := &conversation{m: m, conn: conn, said: make(chan said)}
	ctx, cancel = context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.Close()
	defer cancel()
	reading.Go(func() { c.read(ctx) })
	return c.serve(ctx)
}

// read hands on what the authority says until ctx ends or there is no more.
func (c *conversation) read(ctx context.Context) {
	r := bufio.NewReader(c.conn)
	for {
		id, answer, err := credential.ReadAnswer(r)
		select {
		case c.said <- said{id, answer, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// serve asks for what is due, and takes what comes, until the conversation ends.
func (c *conversation) serve(ctx context.Context) error {
	if c.m.holds() == nil {
		if err := c.enrol(ctx); err != nil {
			return err
		}
	}
	if err := c.fetch(ctx); err != nil {
		return err
	}
	c.m.connect(true)
	c.m.retry.Reset()
	poll := time.NewTimer(c.m.pollTime())
	defer poll.Stop()
	c.due = c.m.holds().renewal
	for {
		c.hasten()
		renew := time.NewTimer(until(c.due))
		var err error
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case s := <-c.said:
			err = c.unasked(ctx, s)
			poll.Reset(c.m.pollTime())
		case <-poll.C:
			err = c.fetch(ctx)
			poll.Reset(c.m.pollTime())
		case <-renew.C:
			if !time.Now().Round(0).Before(c.due) { // else a tick
				err = c.renewed(ctx)
			}
		}
		renew.Stop()
		if err != nil {
			return err
		}
		if c.stale {
			if err := c.fetch(ctx); err != nil {
				return err
			}
		}
	}
}

// hasten makes the renewal due soon when the credential is revoked, and not its
// subject: then the authority issues another.
func (c *conversation) hasten() {
	h := c.m.holds()
	if why := c.m.revoked(h.credential); c.hastened == h || why == nil || why.Code != code.CredentialRevoked {
		return
	}
	c.hastened = h
	pause := c.m.cfg.Timing.Revoked
	if soon := time.Now().Round(0).Add(pause + rand.N(pause)); soon.Before(c.due) { //nolint:gosec // no secret
		c.due = soon
	}
}

// renewed has the credential renewed, and says when that is due again. A
// refusal is told, and no end: the conversation is good for lists all the same.
func (c *conversation) renewed(ctx context.Context) error {
	if c.m.shut() {
		c.due = time.Now().Round(0).Add(c.m.pollTime()) // it would be refused
		return nil
	}
	err := c.renew(ctx)
	var no *RefusedError
	switch {
	case shutOut(err), err != nil && !errors.As(err, &no):
		return fmt.Errorf("renewing the credential: %w", err)
	case err != nil:
		c.complain("renewing the credential", err)
		c.due = time.Now().Round(0).Add(soonest + c.m.retry.NextBackOff())
		return nil
	}
	c.m.retry.Reset()
	c.due = c.m.holds().renewal
	return nil
}

// pollTime returns how long to wait for a list before asking for one.
func (m *Member) pollTime() time.Duration {
	p := m.cfg.Timing.Poll
	return p/10*9 + rand.N(p/5+1) //nolint:gosec // no secret
}

// enrol makes this process a member: by the token, or the ticket; or, where there
// is neither or the ticket is not taken, by what the authority still knows of an
// enrolment whose answer was lost.
func (c *conversation) enrol(ctx context.Context) error {
	cfg := &c.m.cfg
	switch {
	case cfg.Token != nil:
		return c.byToken(ctx)
	case cfg.Ticket == nil:
		return c.issue(ctx, credential.Renew{}, credential.TicketID{})
	}
	err := c.issue(ctx, credential.EnrollTicket{ID: cfg.Ticket.ID, Secret: cfg.Ticket.Secret}, cfg.Ticket.ID)
	var no *RefusedError
	if !errors.As(err, &no) || no.Code != code.TicketRefused {
		return err
	}
	if again := c.issue(ctx, credential.Renew{}, cfg.Ticket.ID); again == nil {
		return nil
	}
	return err // the reason that helps
}

func (c *conversation) byToken(ctx context.Context) error {
	token, err := c.m.cfg.Token()
	if err != nil {
		return fmt.Errorf("reading the Kubernetes token: %w", err)
	}
	return c.issue(ctx, credential.EnrollKubernetes{Token: token}, credential.TicketID{})
}

// renew has the credential renewed. Where the authority has forgotten this
// process, another ticket than the one that is used up makes it known again.
func (c *conversation) renew(ctx context.Context) error {
	if c.m.cfg.Token != nil {
		return c.byToken(ctx)
	}
	h, ticket := c.m.holds(), c.m.cfg.Ticket
	err := c.issue(ctx, credential.Renew{}, h.ticket)
	var no *RefusedError
	if ticket != nil && ticket.ID != h.ticket && errors.As(err, &no) && no.Code == code.NotEnrolled {
		return c.enrol(ctx)
	}
	return err
}

// issue asks for a credential and takes it.
func (c *conversation) issue(ctx context.Context, r credential.Request, ticket credential.TicketID) error {
	answer, err := c.ask(ctx, r)
	if err != nil {
		return err
	}
	issued, ok := answer.(credential.Issued)
	if !ok {
		return outOfPlace(answer)
	}
	return c.m.take(issued.Bundle, ticket)
}

// fetch asks for a newer list than the one held, and for the whole one where what
// comes does not fit. What is wrong with a list, or refused, is told and ends
// nothing.
func (c *conversation) fetch(ctx context.Context) error {
	for _, since := range []uint64{c.m.number(), 0} {
		c.stale = false
		err := c.fetchSince(ctx, since)
		var no *RefusedError
		switch {
		case shutOut(err): // after which the authority ends the stream
			return fmt.Errorf("fetching revocations: %w", err)
		case errors.As(err, &no):
			c.complain("fetching revocations", err)
			return nil
		}
		if err != nil || !c.stale {
			return err
		}
	}
	c.complain("fetching revocations", errors.New("not even the whole list is taken"))
	return nil
}

// number returns that of the list held, 0 for none.
func (m *Member) number() uint64 {
	if l := m.cfg.Verifier.List(m.cfg.Authority); l != nil {
		return l.Number()
	}
	return 0
}

func (c *conversation) fetchSince(ctx context.Context, since uint64) error {
	answer, err := c.ask(ctx, credential.FetchRevocations{Since: since})
	if err != nil {
		return err
	}
	a, ok := answer.(credential.Unchanged)
	if !ok {
		return c.apply(answer)
	}
	if a.Number < since {
		c.complain("fetching revocations", fmt.Errorf("its newest list is %d, and %d is held here: its store has gone back: restore it from a newer backup", a.Number, since))
	}
	return nil
}

// apply takes a list in. A delta that does not fit makes c stale. One that is not
// newer than the list held was pushed while it was asked for.
func (c *conversation) apply(answer credential.Answer) error {
	var l *credential.List
	var err error
	switch a := answer.(type) {
	case credential.FullRevocations:
		l, err = c.m.cfg.Verifier.ApplyList(a.List, time.Now())
	case credential.DeltaRevocations:
		l, err = c.m.cfg.Verifier.ApplyDelta(a.Delta, time.Now())
	default:
		return outOfPlace(answer)
	}
	switch {
	case errors.Is(err, credential.ErrNotNewer):
	case errors.Is(err, credential.ErrNeedFull):
		c.stale = true
	case err != nil:
		c.complain("taking a revocation list", err)
	default:
		c.m.listed(l) // of whatever authority: it is signed by one that is trusted, whoever brings it
	}
	return nil
}

// complain tells of what does not end the conversation.
func (c *conversation) complain(what string, err error) {
	c.m.failed(fmt.Errorf("authority %s: %s: %w", c.m.cfg.Authority, what, err))
}

// listed keeps a list that holds from now on, and tells of it first: whoever is
// revoked is to be cut at once, and this process may be.
func (m *Member) listed(l *credential.List) {
	m.trace(func(t *Trace) { t.Listed(l) })
	m.mu.Lock()
	m.changeLocked()
	m.mu.Unlock()
	if m.cfg.Store == nil {
		return
	}
	if err := m.cfg.Store.SaveList(l); err != nil {
		m.trace(func(t *Trace) { t.Unkept(err) })
	}
}

// unasked takes what the authority says by itself: lists.
func (c *conversation) unasked(ctx context.Context, s said) error {
	switch {
	case s.err != nil:
		return fmt.Errorf("the stream ended: %w", s.err)
	case s.id != 0:
		return fmt.Errorf("an answer to request %d, which waits for none", s.id)
	}
	if err := c.apply(s.answer); err != nil || !c.stale {
		return err
	}
	return c.fetch(ctx)
}

// ask sends a request and waits for its answer. Lists that come meanwhile are
// taken. A refusal is a *[RefusedError].
func (c *conversation) ask(ctx context.Context, r credential.Request) (credential.Answer, error) {
	c.last++
	id := c.last
	b, err := credential.AppendRequest(nil, id, r)
	if err != nil {
		return nil, err
	}
	defer clear(b) // it may hold a secret
	answerTime := c.m.cfg.Timing.Answer
	_ = c.conn.SetWriteDeadline(time.Now().Add(answerTime)) // a stream that has none is judged by its answer
	if _, err := c.conn.Write(b); err != nil {
		return nil, fmt.Errorf("asking: %w", err)
	}
	t := time.NewTimer(answerTime)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-t.C:
			return nil, fmt.Errorf("no answer within %s", answerTime)
		case s := <-c.said:
			switch {
			case s.err != nil:
				return nil, fmt.Errorf("the stream ended: %w", s.err)
			case s.id == id:
				return answered(s.answer)
			case s.id != 0:
				return nil, fmt.Errorf("an answer to request %d, asked was %d", s.id, id)
			}
			if err := c.apply(s.answer); err != nil {
				return nil, err
			}
		}
	}
}

// answered makes a refusal an error.
func answered(a credential.Answer) (credential.Answer, error) {
	if no, ok := a.(credential.Refused); ok {
		return nil, &RefusedError{Code: no.Code, Reason: code.Printable(no.Reason)}
	}
	return a, nil
}

func outOfPlace(a credential.Answer) error {
	return fmt.Errorf("the authority answers %T, which answers nothing that was asked", a)
}
