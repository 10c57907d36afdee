package app

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
)

// A trust says what peers' credentials are worth here, and sees to it that what
// lives is asked about again when that changes. Without authorities no credential
// counts, and nothing changes but by the settings.
type trust struct {
	verifier *credential.Verifier
	enabled  atomic.Bool // there are authorities

	// What was proven of peers with a credential of a trusted authority, and of others,
	// who are strangers: they push out nobody but each other.
	members, strangers *provenCache

	mu          sync.Mutex
	authorities []identity.Identifier
	trusted     int // times that the authorities were others

	changes
}

// newTrust returns what trusts those that the settings name. The memory has the
// newest histories, of authorities too.
func newTrust(cfg *config.Trust, c *config.Common, memory *identity.Memory) (*trust, error) {
	t := &trust{members: newProvenCache(maxProven), strangers: newProvenCache(maxWorthless)}
	t.changes.init()
	var err error
	if t.verifier, err = credential.NewVerifier(credential.Config{Memory: memory, Skew: c.ClockSkew}); err != nil {
		return nil, err
	}
	if err := t.trusts(cfg.Trusted()); err != nil {
		return nil, c.Fault("authorities", err)
	}
	return t, nil
}

// trusts makes authorities the trusted ones.
func (t *trust) trusts(authorities []identity.Identifier) error {
	if err := t.verifier.Trust(authorities); err != nil {
		return err
	}
	t.enabled.Store(len(authorities) > 0)
	t.idle.Store(len(authorities) == 0)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.authorities = slices.Clone(authorities)
	t.trusted++
	t.members.clear() // what was proven was proven for the former ones
	t.strangers.clear()
	return nil
}

// sameAs reports whether these, in any order, are the authorities that are trusted.
func (t *trust) sameAs(authorities []identity.Identifier) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.authorities) == len(authorities) && !slices.ContainsFunc(authorities, func(a identity.Identifier) bool {
		return !slices.Contains(t.authorities, a)
	})
}

// met takes in the history of a peer that is a trusted authority, so that the verifier
// has at hand what the memory of peers knows, and knows at once when it diverges.
func (t *trust) met(p channel.Peer) {
	if p.History != nil && t.verifier.Trusts(p.Identifier) {
		t.learning(func() { _ = t.verifier.Learn(p.History) }) // what it is worth is asked for elsewhere
	}
}

// admit refuses a peer whose identifier is revoked, in every handshake.
func (t *trust) admit(p channel.Peer) error {
	t.met(p)
	if err := t.verifier.Revoked(p.Identifier); err != nil {
		return &channel.PeerError{Code: code.IdentityRevoked, Err: err}
	}
	return nil
}

// prove verifies the signatures of what a peer presents, once.
func (t *trust) prove(p channel.Peer) *credential.Proven {
	if len(p.Credentials) == 0 {
		return t.verifier.Prove(p.Identifier, nil)
	}
	t.mu.Lock()
	trusted := t.trusted
	t.mu.Unlock()
	shown := shownBy(p)
	for _, c := range []*provenCache{t.members, t.strangers} {
		if known := c.get(p.Identifier, shown); known != nil {
			return known
		}
	}
	var proven *credential.Proven
	t.learning(func() { proven = t.verifier.Prove(p.Identifier, p.Credentials) })
	c := t.strangers
	if proven.Any() {
		c = t.members
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trusted == trusted { // else it was proven for those that were trusted before
		c.put(p.Identifier, shown, proven)
	}
	return proven
}

// shows returns the credentials that a peer has shown and that are what they say,
// whether or not they count.
func (t *trust) shows(p channel.Peer) []*credential.Credential {
	if !t.enabled.Load() {
		return nil
	}
	return t.prove(p).Credentials()
}

// learning calls f, and has everything asked about again if f has taught the verifier
// something by which what others have shown may count no more: that an authority's key
// was replaced, or that its history has diverged. Each of that is new once.
func (t *trust) learning(f func()) {
	before := t.verifier.Learned()
	f()
	if t.verifier.Learned() != before {
		t.changed()
	}
}

// A judgement is what a peer's credentials say of it now.
type judgement struct {
	policy.Peer
	credentials []*credential.Credential // that count
	notAfter    time.Time                // when the first of them ends; zero if there are none
	// nothing is why nothing of the peer counts, refused why one of its credentials
	// does not; both nil if there is no such reason.
	nothing, refused *credential.Error
}

// judge judges a peer, as its last handshake has proven it.
func (t *trust) judge(p channel.Peer) judgement {
	j := judgement{Peer: policy.Peer{ID: p.Identifier}}
	if !t.enabled.Load() {
		return j
	}
	v, err := t.verifier.Judge(t.prove(p), time.Now())
	t.due(v.Until)
	if errors.As(err, &j.nothing) {
		j.Unclear = j.nothing.Error()
		return j
	}
	j.Attr, j.credentials, j.notAfter = v.Attributes, v.Credentials, v.NotAfter
	for _, r := range v.Refused {
		// One of an authority that is not trusted is usual beside others.
		if j.refused == nil || j.refused.Code == code.UntrustedAuthority {
			j.refused = r
		}
	}
	return j
}

// A denial is why a peer may not do something.
type denial struct {
	code code.Code
	told string // what the peer hears
	why  string // for the log
}

// decide asks a policy. other is the denial's code where no credential is the
// reason, what says what the peer wants; looks says whether the policy looks at
// attributes.
func (j *judgement) decide(r policy.Request, ask func(*policy.Request) policy.Decision, other code.Code, what string, looks bool) *denial {
	if j.nothing != nil && j.nothing.Code == code.IdentityRevoked {
		// Whatever a list says: its key is in the wrong hands.
		return &denial{code: j.nothing.Code, told: fmt.Sprintf("%s %s: %v", j.ID, what, j.nothing)}
	}
	r.Peer = j.Peer
	d := ask(&r)
	if d.Allowed {
		return nil
	}
	reason := j.nothing
	if reason == nil {
		reason = j.refused
	}
	if reason == nil || !looks {
		return &denial{code: other, told: fmt.Sprintf("%s %s", j.ID, what), why: d.Reason}
	}
	return &denial{code: reason.Code, told: fmt.Sprintf("%s %s: %v", j.ID, what, reason), why: d.Reason}
}

// An unprovenError says that a peer, whose identity is proven, has not proven that it
// offers a service. No relay can make that up.
type unprovenError struct{ peer *channel.PeerError }

func (e *unprovenError) Error() string { return e.peer.Error() }

// Unwrap returns the reason and its code.
func (e *unprovenError) Unwrap() error { return e.peer }

// offers says why a peer has not proven that it offers a service, as an
// *unprovenError, or returns nil: a credential that counts has to say so.
func (t *trust) offers(p channel.Peer, service string) error {
	j := t.judge(p)
	if credential.HasService(j.Attr, service) {
		return nil
	}
	reason := j.nothing
	if reason == nil {
		reason = j.refused
	}
	if reason != nil {
		return &unprovenError{&channel.PeerError{
			Code: reason.Code, Err: fmt.Errorf("%s does not prove that it offers the service %s: %w", p.Identifier, service, reason),
		}}
	}
	return &unprovenError{&channel.PeerError{Code: code.AttributeMissing, Err: fmt.Errorf(
		"%s does not prove that it offers the service %s: none of its credentials says service=%s (give it that attribute at the authority)", p.Identifier, service, service)}}
}

// logged returns all of a denial's reasons.
func (d *denial) logged() string {
	if d.why == "" {
		return d.told
	}
	return d.told + ": " + d.why
}
