package app

import (
	"crypto/sha256"
	"encoding/binary"
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

// maxProven bounds how many peers' credentials are remembered as proven.
const maxProven = 16_384

// A trust says what peers' credentials are worth here, and sees to it that what
// lives is asked about again when that changes. Without authorities no credential
// counts, and nothing changes but by the settings.
type trust struct {
	verifier *credential.Verifier
	enabled  atomic.Bool // there are authorities

	mu          sync.Mutex
	authorities []identity.Identifier
	proven      map[[32]byte]*credential.Proven // by what was presented, and by whom
	trusted     int                             // times that the authorities were others

	changes
}

// newTrust returns what trusts those that the settings name.
func newTrust(cfg *config.Trust, c *config.Common) (*trust, error) {
	t := &trust{proven: map[[32]byte]*credential.Proven{}}
	t.changes.init()
	var err error
	if t.verifier, err = credential.NewVerifier(credential.Config{}); err != nil {
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
	clear(t.proven) // what was proven was proven for the former ones
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

// admit refuses a peer whose identifier is revoked, in every handshake.
func (t *trust) admit(p channel.Peer) error {
	if err := t.verifier.Revoked(p.Identifier); err != nil {
		return &channel.PeerError{Code: code.IdentityRevoked, Err: err}
	}
	return nil
}

// prove verifies the signatures of what a peer presents, once.
func (t *trust) prove(p channel.Peer) *credential.Proven {
	h := sha256.New()
	h.Write(p.Identifier[:])
	for _, b := range p.Credentials {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	key := [32]byte(h.Sum(nil))
	t.mu.Lock()
	known, trusted := t.proven[key], t.trusted
	t.mu.Unlock()
	if known != nil {
		return known
	}
	before := t.histories()
	proven := t.verifier.Prove(p.Identifier, p.Credentials)
	if t.taught(before, proven) {
		t.changed()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trusted != trusted {
		return proven // for those that were trusted before; the next one asks anew
	}
	for old := range t.proven { // any of them, where there are too many
		if len(t.proven) < maxProven {
			break
		}
		delete(t.proven, old)
	}
	t.proven[key] = proven
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

// histories returns what is known of the trusted authorities' histories.
func (t *trust) histories() []*identity.History {
	t.mu.Lock()
	authorities := t.authorities
	t.mu.Unlock()
	list := make([]*identity.History, len(authorities))
	for i, a := range authorities {
		list[i] = t.verifier.History(a)
	}
	return list
}

// taught reports whether a peer has shown something of an authority by which what
// others have shown may count no more: that its key was replaced, or that its
// history has diverged.
func (t *trust) taught(before []*identity.History, p *credential.Proven) bool {
	if !slices.Equal(before, t.histories()) {
		return true
	}
	v, _ := t.verifier.Judge(p, time.Now()) // what does not count is looked at below
	return slices.ContainsFunc(v.Refused, func(e *credential.Error) bool { return e.Code == code.AuthorityDiverged })
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

// logged returns all of a denial's reasons.
func (d *denial) logged() string {
	if d.why == "" {
		return d.told
	}
	return d.told + ": " + d.why
}
