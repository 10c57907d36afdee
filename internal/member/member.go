package member

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A Config is what a [Member] is made of. Identifier, Authority, Verifier and Open
// are required.
type Config struct {
	Identifier identity.Identifier // of this process
	Authority  identity.Identifier // whose credential it is to have
	// Routes are how the authority is reached, as texts, for the store to keep.
	Routes []string
	// Verifier is given the lists that come, and those that are kept. It trusts the
	// authority.
	Verifier *credential.Verifier
	// Open opens a stream to the authority, with nothing said on it. Whoever
	// answers there has proven to be the authority. ctx bounds the call; the conn
	// is closed when it is of no more use.
	Open func(ctx context.Context) (net.Conn, error)
	// Store keeps what there is over restarts; nil: nothing is kept.
	Store *Store
	// Ticket enrols, if the authority does not know this process yet; nil: none.
	Ticket *credential.Ticket
	// Token returns a Kubernetes token, which enrols and renews; nil: there is
	// none. It is called each time, since the file that has it is replaced.
	Token func() (credential.Secret, error)

	Timing Timing
	Trace  *Trace // nil: nobody is told
}

// Timing are a [Member]'s times. Zero means the default.
type Timing struct {
	// Poll is how often the authority is asked for a newer list, give or take a
	// tenth, where none has come by itself; 5 min.
	Poll time.Duration
	// Answer is how long one answer may take, a list of 8 MiB too; 2 min. Open is
	// how long a stream may take to be opened; 30 s.
	Answer, Open time.Duration
	// Retry is the longest pause before the authority is tried again, before
	// jitter; 30 s. The first comes within 150 ms.
	Retry time.Duration
	// Revoked is how long after its credential was revoked another is asked for, up
	// to twice that; 10 s. Whoever has the list has cut by then what the credential
	// was for: a revocation is to be more than a renewal.
	Revoked time.Duration
}

// A Trace is told what happens, by funcs of which any may be nil. They are called
// from [Member.Run]'s goroutines, one at a time, and must not call the Member's
// Run.
type Trace struct {
	// Issued says that there is a new credential, which is to be shown from now
	// on; enrolled, that it is the first.
	Issued func(c *credential.Credential, bundle []byte, enrolled bool)
	// Listed says that a newer revocation list holds.
	Listed func(l *credential.List)
	// Failed says that the authority could not be reached or has refused
	// something; what there was goes on, and it is tried again.
	Failed func(err error)
	// Unkept says that what there is could not be written to the store.
	Unkept func(err error)
	// Ended says that the credential has ended and there is no other.
	Ended func(c *credential.Credential)
	// Revoked says, once for each credential and code, that peers refuse the
	// credential from now on: it or the identifier is revoked.
	Revoked func(c *credential.Credential, why *credential.Error)
}

func (t Trace) filled() *Trace {
	if t.Issued == nil {
		t.Issued = func(*credential.Credential, []byte, bool) {}
	}
	if t.Listed == nil {
		t.Listed = func(*credential.List) {}
	}
	if t.Failed == nil {
		t.Failed = func(error) {}
	}
	if t.Unkept == nil {
		t.Unkept = func(error) {}
	}
	if t.Ended == nil {
		t.Ended = func(*credential.Credential) {}
	}
	if t.Revoked == nil {
		t.Revoked = func(*credential.Credential, *credential.Error) {}
	}
	return &t
}

// A RefusedError is the authority's refusal.
type RefusedError struct {
	Code   code.Code
	Reason string // the authority's words; printable, at most 1 KiB
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("authority refuses: %s: %s", e.Code, e.Reason)
}

// A Status is what a [Member] has and does, for people.
type Status struct {
	Connected  bool                   // there is a stream to the authority
	Credential *credential.Credential // nil: none yet
	Renewal    time.Time              // when it is due; zero without a credential
	Revoked    *credential.Error      // that Credential, or its subject, is revoked; nil if not
	Err        error                  // why the last attempt at something did not work; nil since one has
}

// A Member keeps one process's credential. It is made by [New], started by
// [Member.Run] and safe for concurrent use.
type Member struct {
	cfg   Config
	retry *backoff.ExponentialBackOff // of Run's goroutine

	tracing sync.Mutex // held while the trace is told something

	mu        sync.Mutex
	held      *held
	changed   chan struct{} // closed, and made anew, when held or a list changes
	connected bool
	err       error
}

// A held credential is the one that there is. It does not change.
type held struct {
	credential *credential.Credential
	bundle     []byte
	ticket     credential.TicketID // by which this process was enrolled; zero: by none
	renewal    time.Time           // wall clock
}

// New checks c, and takes in what the store has: the credential, if it is this
// authority's for this process, and the lists of all authorities that the Verifier
// trusts. It starts nothing. An error about
// the store says which file it is and what to do: what was revoked is not to be
// forgotten unnoticed.
func New(c Config) (*Member, error) {
	if c.Identifier.IsZero() || c.Authority.IsZero() || c.Verifier == nil || c.Open == nil {
		return nil, errors.New("making a member: Identifier, Authority, Verifier or Open is missing")
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Timing.Poll, 5 * time.Minute},
		{&c.Timing.Answer, 2 * time.Minute},
		{&c.Timing.Open, 30 * time.Second},
		{&c.Timing.Retry, 30 * time.Second},
		{&c.Timing.Revoked, 10 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.Trace == nil {
		c.Trace = &Trace{}
	}
	c.Trace = c.Trace.filled()
	m := &Member{cfg: c, changed: make(chan struct{}), retry: &backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: c.Timing.Retry,
	}}
	m.retry.Reset()
	if err := m.load(); err != nil {
		return nil, err
	}
	return m, nil
}

// load takes in what the store has: the lists of all authorities that are trusted,
// whatever becomes of the rest, and the credential.
func (m *Member) load() error {
	if m.cfg.Store == nil {
		return nil
	}
	if err := m.cfg.Store.LoadLists(m.cfg.Verifier); err != nil {
		return err
	}
	stored, err := m.cfg.Store.Load()
	if err != nil || stored == nil || stored.Authority != m.cfg.Authority {
		return err
	}
	c, h, err := credential.Inspect(stored.Bundle)
	if err != nil {
		return err // which Load has ruled out
	}
	// What the authority's history is worth now is no fault of the file's: whoever
	// asks the verifier hears that it has diverged.
	if err := m.cfg.Verifier.Learn(h); err != nil && !errors.Is(err, identity.ErrDiverged) {
		return fmt.Errorf("%s: %w", m.cfg.Store.membershipPath(), err)
	}
	m.held = &held{credential: c, bundle: stored.Bundle, ticket: stored.Ticket, renewal: renewalOf(c, time.Time{})}
	return nil
}

// Bundle returns the credential as it is presented to peers, nil before there is
// one. It is not to be written.
func (m *Member) Bundle() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held == nil {
		return nil
	}
	return m.held.bundle
}

// Status returns what the member has and does.
func (m *Member) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Connected: m.connected, Err: m.err}
	if m.held != nil {
		s.Credential, s.Renewal, s.Revoked = m.held.credential, m.held.renewal, m.revoked(m.held.credential)
	}
	return s
}

// Run enrols if that has to be, keeps the credential renewed and the list new
// until ctx ends, and returns nil when nothing that it started runs any more. The
// authority's absence ends nothing. A ticket that is refused to a process that
// has no credential is the error, a *[RefusedError]: nothing but another ticket
// helps.
func (m *Member) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { m.watch(ctx) })
	for {
		err := m.converse(ctx)
		m.connect(false)
		switch {
		case ctx.Err() != nil:
			return nil
		case m.hopeless(err):
			return err
		}
		m.failed(fmt.Errorf("authority %s: %w", m.cfg.Authority, err))
		pause := m.retry.NextBackOff()
		if shutOut(err) {
			pause = m.pollTime() // for ever, it says: only another authority's store could change that
		}
		if !wait.Sleep(ctx, pause) {
			return nil
		}
	}
}

// hopeless reports whether only an operator can help.
func (m *Member) hopeless(err error) bool {
	var refused *RefusedError
	return m.holds() == nil && errors.As(err, &refused) && refused.Code == code.TicketRefused
}

// shutOut reports whether the authority says that it has revoked this identity.
func shutOut(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && refused.Code == code.IdentityRevoked
}

// wallTick bounds how long a timer runs for a time of the wall clock: timers stand
// still while a machine sleeps, and a clock can be set.
const wallTick = 3 * time.Second

// until returns how long to wait for a time of the wall clock.
func until(at time.Time) time.Duration {
	return min(max(0, at.Sub(time.Now().Round(0))), wallTick)
}

// watch tells of each credential that ends before there is another, and of each that
// is revoked.
func (m *Member) watch(ctx context.Context) {
	var ended *held // that was told of
	var revoked struct {
		held *held
		code code.Code
	}
	for {
		m.mu.Lock()
		h, changed := m.held, m.changed
		m.mu.Unlock()
		var due <-chan time.Time
		stop := func() {}
		if h != nil {
			if why := m.revoked(h.credential); why != nil && (revoked.held != h || revoked.code != why.Code) {
				revoked.held, revoked.code = h, why.Code
				m.trace(func(t *Trace) { t.Revoked(h.credential, why) })
			}
			switch over := !h.credential.NotAfter.After(time.Now().Round(0)); {
			case over && ended != h:
				ended = h
				m.trace(func(t *Trace) { t.Ended(h.credential) })
			case !over:
				t := time.NewTimer(until(h.credential.NotAfter))
				due, stop = t.C, func() { t.Stop() }
			}
		}
		select {
		case <-due:
		case <-changed:
		case <-ctx.Done():
			stop()
			return
		}
		stop()
	}
}

// revoked says that peers refuse a credential of this process since the list of a
// trusted authority has its subject, or that of its own authority the serial; nil if
// not.
func (m *Member) revoked(c *credential.Credential) *credential.Error {
	var why *credential.Error
	if errors.As(m.cfg.Verifier.Revoked(c.Subject), &why) {
		return why
	}
	if l := m.cfg.Verifier.List(c.Issuer); l != nil && l.Set().HasSerial(c.Serial) {
		return &credential.Error{Code: code.CredentialRevoked, Authority: c.Issuer, Serial: c.Serial, Err: errors.New("it is revoked: another one is asked for")}
	}
	return nil
}

// shut reports whether the authority's list has this process's identifier: then it
// issues nothing to it any more.
func (m *Member) shut() bool {
	l := m.cfg.Verifier.List(m.cfg.Authority)
	return l != nil && l.Set().HasIdentifier(m.cfg.Identifier)
}

func (m *Member) holds() *held {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

func (m *Member) connect(connected bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connected = connected
	if connected {
		m.err = nil
	}
}

func (m *Member) failed(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	m.trace(func(t *Trace) { t.Failed(err) })
}

func (m *Member) trace(tell func(*Trace)) {
	m.tracing.Lock()
	defer m.tracing.Unlock()
	tell(m.cfg.Trace)
}

// take makes a bundle that the authority has issued the one that is held.
func (m *Member) take(bundle []byte, ticket credential.TicketID) error {
	c, err := m.check(bundle)
	if err != nil {
		return fmt.Errorf("the credential that the authority has issued is of no use: %w", err)
	}
	now := time.Now().Round(0)
	h := &held{credential: c, bundle: bundle, ticket: ticket, renewal: renewalOf(c, now)}
	m.mu.Lock()
	first := m.held == nil
	m.held, m.err = h, nil
	m.changeLocked()
	m.mu.Unlock()
	if m.cfg.Store != nil {
		err := m.cfg.Store.Save(&Membership{Authority: m.cfg.Authority, Routes: m.cfg.Routes, Bundle: bundle, Ticket: ticket})
		if err != nil {
			m.trace(func(t *Trace) { t.Unkept(err) })
		}
	}
	m.trace(func(t *Trace) { t.Issued(c, bundle, first) })
	return nil
}

// changeLocked lets watch look again.
func (m *Member) changeLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// check verifies what was issued: that it is the authority's, for this process,
// and has not ended. What is revoked is for its peers to say.
func (m *Member) check(bundle []byte) (*credential.Credential, error) {
	c, h, err := credential.Inspect(bundle)
	switch {
	case err != nil:
		return nil, err
	case c.Issuer != m.cfg.Authority:
		return nil, fmt.Errorf("it is of another authority, %s", c.Issuer)
	case c.Subject != m.cfg.Identifier:
		return nil, fmt.Errorf("it is for %s, and this process is %s", c.Subject, m.cfg.Identifier)
	case !c.NotAfter.After(time.Now().Add(-credential.MaxSkew)):
		return nil, fmt.Errorf("it ended at %s, and the clock here says %s: set the clocks on both sides",
			c.NotAfter.Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
	}
	return c, m.cfg.Verifier.Learn(h)
}

// soonest is the least time between two renewals.
const soonest = time.Second

// renewalOf returns when a credential is to be renewed: when half of its time has
// passed, give or take a tenth of it, so that processes that were started together
// do not ask together. One that was received at got is renewed no sooner than a
// tenth of its time later, whatever the clocks say.
func renewalOf(c *credential.Credential, got time.Time) time.Time {
	lifetime := c.NotAfter.Sub(c.NotBefore)
	at := c.NotBefore.Add(lifetime/10*4 + rand.N(lifetime/5+1)) //nolint:gosec // no secret
	if least := got.Add(max(lifetime/10, soonest)); !got.IsZero() && at.Before(least) {
		return least
	}
	return at
}
