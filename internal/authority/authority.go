package authority

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Bounds of what [Config] says.
const (
	MinLifetime     = time.Minute
	MinListLifetime = 10 * time.Second
	MaxListLifetime = 30 * 24 * time.Hour

	MinForgetAfter     = 24 * time.Hour
	DefaultForgetAfter = 90 * 24 * time.Hour
)

const (
	// tidyEvery is how often what has ended is given up.
	tidyEvery = 10 * time.Minute
	// tidyAgain is the pause after the store could not be written.
	tidyAgain = 10 * time.Second
)

// A TokenVerifier says whose a Kubernetes token is. subject is what the token
// is for, of which [MaxPerSubject] members are let in: 1 to [MaxSubject] bytes
// without control characters. The text of an error is told to the peer; one that
// is a *[Refusal] says also with which code, and what only the log is to have.
type TokenVerifier interface {
	Verify(ctx context.Context, token string) (subject string, attributes credential.Attributes, err error)
}

// A Config says how an authority decides. The zero value of every field but
// Identity is the default.
type Config struct {
	Identity     *identity.Identity // whose key signs; that of the store's owner
	Routes       []string           // to the authority, for tickets; none: no ticket is made
	Lifetime     time.Duration      // of credentials, whole seconds; 0: credential.DefaultLifetime
	ListLifetime time.Duration      // a newer revocation list is promised by then; 0: none is

	Tokens TokenVerifier // nil: no token is taken
	// RenewWithoutToken lets a member that was enrolled by a token renew without
	// another one: then it goes on when its pod or service account has ended.
	RenewWithoutToken bool

	// ForgetAfter is how long a member by ticket is kept that does not renew; 0:
	// DefaultForgetAfter; at least MinForgetAfter.
	ForgetAfter time.Duration

	Recorder Recorder // nil: nothing is recorded
	Trace    *Trace   // nil: nobody is told
}

// A Trace is told what happens. Its funcs, each of which may be nil, are called
// from many goroutines and must not block.
type Trace struct {
	Issued    func(Issue) // on its way to the peer
	Refused   func(peer identity.Identifier, request string, err *Refusal)
	Published func(number uint64, entries int) // a revocation list
	Failed    func(doing string, err error)    // what is tried again later
	// Changed says that a peer has become a member, or is none any more:
	// [Authority.IsMember] has which.
	Changed func(peer identity.Identifier)
}

// An Issue is a credential that was issued.
type Issue struct {
	Peer       identity.Identifier
	Request    string // "ticket", "kubernetes" or "renew"
	Ticket     credential.TicketID
	Subject    string // of a token; else ""
	Attributes credential.Attributes
	Serial     credential.Serial
	NotAfter   time.Time
	New        bool // the peer was no member before
}

// A Refusal is why a peer does not get what it asks for. Its text is told to
// the peer.
type Refusal struct {
	Code   code.Code
	Reason string
	Detail error // more about it, for the log alone; nil if there is no more

	recorded bool // by who could not record what it refuses
}

// Error returns the reason.
func (r *Refusal) Error() string { return r.Reason }

// refuse makes a Refusal.
func refuse(c code.Code, format string, args ...any) *Refusal {
	return &Refusal{Code: c, Reason: fmt.Sprintf(format, args...)}
}

// An Authority decides on a store. It is safe for concurrent use.
type Authority struct {
	cfg    Config
	store  *Store
	signer atomic.Pointer[identity.Identity]

	listing sync.Mutex // held while a list is made; no other lock is waited for under the ones below

	mu      sync.RWMutex
	current *published // the newest list; never nil

	tokens  chan struct{} // places for tokens under verification
	streams streams
}

// New returns the authority of a store, and makes a revocation list, which is
// in the store when New returns. The store stays the caller's to close, after
// all calls have returned.
func New(store *Store, cfg Config) (*Authority, error) {
	if cfg.Trace == nil {
		cfg.Trace = &Trace{}
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = credential.DefaultLifetime
	}
	if cfg.ForgetAfter == 0 {
		cfg.ForgetAfter = DefaultForgetAfter
	}
	switch {
	case cfg.ForgetAfter < MinForgetAfter:
		return nil, fmt.Errorf("starting the authority: members would be forgotten after %s, want %s or more", cfg.ForgetAfter, MinForgetAfter)
	case cfg.Identity == nil:
		return nil, errors.New("starting the authority: there is no identity")
	case cfg.Identity.Identifier() != store.owner:
		return nil, fmt.Errorf("starting the authority: the identity is %s, and the store is that of %s", cfg.Identity.Identifier(), store.owner)
	case cfg.Lifetime < MinLifetime || cfg.Lifetime > credential.MaxLifetime || cfg.Lifetime%time.Second != 0:
		return nil, fmt.Errorf("starting the authority: credentials would hold for %s, want whole seconds from %s to %s", cfg.Lifetime, MinLifetime, credential.MaxLifetime)
	case cfg.ListLifetime != 0 && (cfg.ListLifetime < MinListLifetime || cfg.ListLifetime > MaxListLifetime):
		return nil, fmt.Errorf("starting the authority: revocation lists would hold for %s, want %s to %s, or 0 for no end", cfg.ListLifetime, MinListLifetime, MaxListLifetime)
	}
	a := &Authority{cfg: cfg, store: store, tokens: make(chan struct{}, maxTokens)}
	a.signer.Store(cfg.Identity)
	set, err := store.loadSet()
	if err != nil {
		return nil, fmt.Errorf("starting the authority: %w", err)
	}
	// Always a new one: the key may have been replaced since the last was signed.
	a.listing.Lock()
	defer a.listing.Unlock()
	if _, err := a.makeListLocked(time.Now(), set, set, revoking{}); err != nil {
		return nil, fmt.Errorf("starting the authority: %w", err)
	}
	return a, nil
}

// Identifier returns the authority's own.
func (a *Authority) Identifier() identity.Identifier { return a.store.owner }

// SetIdentity signs with a newer key of the authority from now on, and makes a
// revocation list with it: verifiers that know of the newer key take no other.
func (a *Authority) SetIdentity(id *identity.Identity) error {
	was := a.signer.Load()
	if err := id.History().Succeed(was.History()); err != nil {
		return fmt.Errorf("taking a new key: %w", err)
	}
	a.listing.Lock()
	defer a.listing.Unlock()
	a.signer.Store(id)
	set := a.list().list.Set()
	if _, err := a.makeListLocked(time.Now(), set, set, revoking{}); err != nil {
		return fmt.Errorf("taking a new key: %w", err) // Run makes the list later
	}
	return nil
}

// Run makes revocation lists when they are due, and gives up what has ended,
// until ctx ends. What fails is told to the trace, and tried again.
func (a *Authority) Run(ctx context.Context) {
	every := tidyEvery
	if d := a.cfg.ListLifetime / 2; d != 0 {
		every = min(every, d)
	}
	t := time.NewTimer(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		next := every
		if err := errors.Join(a.relist(time.Now()), a.tidy(time.Now())); err != nil {
			if a.cfg.Trace.Failed != nil {
				a.cfg.Trace.Failed("looking after the store", err)
			}
			next = min(every, tidyAgain)
		}
		t.Reset(next)
	}
}

// relist makes a list if one is due: by the promise in the last one, for the
// sake of a new key, or to give up credentials that have ended.
func (a *Authority) relist(now time.Time) error {
	a.listing.Lock()
	defer a.listing.Unlock()
	now = wholeSeconds(now) // as the list will say, by which others judge what it drops
	l := a.list().list
	pruned := l.Set().Prune(now)
	due := a.cfg.ListLifetime != 0 && !now.Before(l.Issued().Add(a.cfg.ListLifetime/2-time.Second))
	if !due && pruned.Len() == l.Set().Len() && a.list().signer == a.signer.Load().History().LastHash() {
		return nil
	}
	_, err := a.makeListLocked(now, l.Set(), pruned, revoking{})
	return err
}

// clock returns the time in whole seconds, if it is one that can be stored.
func clock() (time.Time, error) {
	now := wholeSeconds(time.Now())
	if s := now.Unix(); s <= 0 || s > maxUnix {
		return time.Time{}, fmt.Errorf("this machine's clock says %s: set it", now.Format(time.RFC3339))
	}
	return now, nil
}
