package credential

import (
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Verify says whether a bundle, presented by the peer that has proven to be
// subject, counts at now, and returns the credential in it. An error is an
// [*Error], whose Code is the first of these reasons: it is malformed, its
// issuer is not trusted, its history or its signature is wrong, the issuer's
// history has diverged, it is for another subject, and then those of
// [Verifier.Check].
func (v *Verifier) Verify(subject identity.Identifier, bundle []byte, now time.Time) (*Credential, error) {
	c, fail := v.verify(subject, bundle, now)
	if fail != nil {
		return nil, fail
	}
	return c, nil
}

func (v *Verifier) verify(subject identity.Identifier, bundle []byte, now time.Time) (*Credential, *Error) {
	c, fail := v.prove(subject, bundle)
	if fail != nil {
		return nil, fail
	}
	if fail := v.check(c, now); fail != nil {
		return nil, fail
	}
	return c, nil
}

// prove does of verify what no time changes, and takes in the history.
func (v *Verifier) prove(subject identity.Identifier, bundle []byte) (*Credential, *Error) {
	opened, fail := openBundle(bundle)
	if fail != nil {
		return nil, fail
	}
	c := opened.claims
	a, fail := v.authority(c.Issuer)
	if fail != nil {
		return nil, fail.of(c.Issuer, c.Serial)
	}
	h, fail := opened.verify(a.known)
	if fail != nil {
		return nil, fail
	}
	// Even a credential that does not count may show a newer history.
	if fail := v.learn(h, opened.History); fail != nil {
		return nil, fail.of(c.Issuer, c.Serial)
	}
	if c.Subject != subject {
		return nil, fault(code.CredentialSubject, "it is for %s, not for %s, who presents it", c.Subject, subject).of(c.Issuer, c.Serial)
	}
	return c, nil
}

// Check says whether a credential that [Verifier.Verify] has returned still
// counts at now: after the trusted authorities, a history or a revocation list
// have changed, and when time has passed. An error is an [*Error], whose Code
// is the first of these reasons: the issuer is not trusted, its history has
// diverged, the identifier of the subject or of the issuer is revoked, the
// credential is revoked, the key that signed was not the issuer's when the
// credential begins, the issuer's key does not hold now, the credential does not
// hold now, or the issuer's next revocation list is overdue. It takes no
// cryptography.
func (v *Verifier) Check(c *Credential, now time.Time) error {
	if fail := v.check(c, now); fail != nil {
		return fail
	}
	return nil
}

func (v *Verifier) check(c *Credential, now time.Time) *Error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return about(c, v.checkLocked(c, now))
}

// about names c in what is wrong with it. Which authority has revoked an
// identifier is in the error already: it may be another one than the credential's.
func about(c *Credential, fail *Error) *Error {
	if fail != nil && fail.Code != code.IdentityRevoked {
		return fail.of(c.Issuer, c.Serial)
	}
	return fail
}

// stands says why c cannot take the place of older credentials: it was not signed by
// whom it should have been, or has not begun.
func (v *Verifier) stands(c *Credential, now time.Time) *Error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	a, fail := v.issuerLocked(c)
	if fail == nil {
		fail = v.checkSigner(c, a.known.History)
	}
	if fail == nil {
		fail = v.checkBegun(c, now)
	}
	return about(c, fail)
}

// issuerLocked returns c's issuer, whose newest history is at hand.
func (v *Verifier) issuerLocked(c *Credential) (*authority, *Error) {
	a, ok := v.authorities[c.Issuer]
	switch {
	case !ok:
		return nil, untrusted(c.Issuer)
	case a.diverged != nil:
		return nil, a.divergedError(c.Issuer)
	case a.known == nil:
		return nil, fault(code.SignerReplaced, "no history of the authority is known")
	}
	if fail := v.isNewest(a, c.Issuer); fail != nil {
		return nil, fail
	}
	return a, nil
}

func (v *Verifier) checkLocked(c *Credential, now time.Time) *Error {
	a, fail := v.issuerLocked(c)
	if fail != nil {
		return fail
	}
	for _, id := range []identity.Identifier{c.Subject, c.Issuer} {
		if err := v.revokedLocked(id); err != nil {
			return err
		}
	}
	if a.list != nil && a.list.set.HasSerial(c.Serial) {
		return fault(code.CredentialRevoked, "it is revoked: have a new one issued")
	}
	if err := v.checkSigner(c, a.known.History); err != nil {
		return err
	}
	if err := a.known.CheckTime(now, v.skew); err != nil {
		return fault(code.AuthorityExpired, "the authority's own key does not hold: %w", err)
	}
	if err := v.checkTime(c, now); err != nil {
		return err
	}
	if l := a.list; l != nil && !l.head.next.IsZero() && !now.Add(-v.skew).Before(l.head.next) {
		return fault(code.RevocationsOverdue, "its revocation list %d was to be followed by %s, and the clock says %s: fetch a newer one, or see why the authority makes none",
			l.head.number, l.head.next.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkSigner checks that the change that signed was the last one, in what is
// now known of the issuer's history, when the credential begins. A key that has
// been replaced can sign only what begins before that, and so is worth nothing
// MaxLifetime later.
func (v *Verifier) checkSigner(c *Credential, newest *identity.History) *Error {
	change, ok := newest.Change(c.signer)
	switch {
	case !ok:
		return fault(code.SignerReplaced, "what signed it is no change of the authority's history")
	case c.NotBefore.Add(v.skew).Before(change.Created):
		return fault(code.SignerReplaced, "it begins at %s, before the key that signed it, at %s",
			c.NotBefore.Format(time.RFC3339), change.Created.Format(time.RFC3339))
	case !c.NotBefore.Add(-v.skew).Before(change.Expires):
		return fault(code.SignerReplaced, "it begins at %s, after the key that signed it had expired, at %s",
			c.NotBefore.Format(time.RFC3339), change.Expires.Format(time.RFC3339))
	case !change.Replaced.IsZero() && !c.NotBefore.Add(-v.skew).Before(change.Replaced):
		return fault(code.SignerReplaced, "it begins at %s, after the key that signed it had been replaced, at %s: have a new one issued",
			c.NotBefore.Format(time.RFC3339), change.Replaced.Format(time.RFC3339))
	}
	return nil
}

func (v *Verifier) checkTime(c *Credential, now time.Time) *Error {
	if err := v.checkBegun(c, now); err != nil {
		return err
	}
	if !now.Add(-v.skew).Before(c.NotAfter) {
		return fault(code.CredentialExpired, "%w: it ended at %s and the clock says %s: have it renewed, or check the clocks on both sides",
			identity.ErrExpired, c.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func (v *Verifier) checkBegun(c *Credential, now time.Time) *Error {
	if now.Add(v.skew).Before(c.NotBefore) {
		return fault(code.NotYetValid, "%w: it starts at %s and the clock says %s: check the clocks on both sides",
			identity.ErrNotYetValid, c.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}
