package credential

import (
	"slices"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// MaxBundles is how many bundles of one peer count at most: what a handshake
// carries.
const MaxBundles = 16

// A Proven is what one peer has presented in one handshake, with its signatures
// verified: so whoever asks about the peer again and again verifies once. It is
// immutable and safe for concurrent use.
type Proven struct {
	subject identity.Identifier
	bundles []proven // in the order presented
	excess  int      // how many there were, if that is too many
}

// Any reports whether at least one of the bundles is of a trusted authority, rightly
// signed and for the subject.
func (p *Proven) Any() bool {
	return slices.ContainsFunc(p.bundles, func(b proven) bool { return b.fail == nil })
}

// A proven is one bundle: a credential, or why there is none.
type proven struct {
	credential *Credential
	fail       *Error
}

// Credentials returns those that are what they say, in the order presented,
// whether or not they count.
func (p *Proven) Credentials() []*Credential {
	var list []*Credential
	for _, b := range p.bundles {
		if b.fail == nil {
			list = append(list, b.credential)
		}
	}
	return list
}

// A Verified is what the credentials of one peer say together.
type Verified struct {
	Credentials []*Credential // those that count, in the order presented
	Attributes  Attributes    // of all of them
	NotAfter    time.Time     // when the first of them ends; zero if there is none
	Refused     []*Error      // why the others do not count
	// Until is when the passing of time alone may change the answer, clock skew
	// included; zero if it does not.
	Until time.Time
}

// VerifyAll verifies every bundle that a peer presents, as [Verifier.Verify]
// does, and joins the attributes of those that count. Those that do not are in
// Refused: they neither help the peer nor harm it.
//
// Of each authority the newest credential alone counts that this Verifier has seen
// the peer present, now or before: of those that have begun, and whose signer was
// the authority's key then, the one that begins last. So what an authority has taken
// away does not come back with an older credential, also when the newest has ended
// or is revoked; and all conns of a peer are judged alike while it shows a new
// credential in one after the other. It counts only for a peer that presents one of
// that authority. How long what was presented before is remembered is bounded by
// number, not by time.
//
// An error, which is an [*Error], means that nothing of the peer counts: its
// identifier is revoked; it presents more than [MaxBundles]; or its credentials of
// two authorities give an attribute different values. Nobody here can say then
// which one is meant, and to leave the attribute out would grant what a policy
// denies to one of the values.
func (v *Verifier) VerifyAll(subject identity.Identifier, bundles [][]byte, now time.Time) (Verified, error) {
	if err := v.revoked(subject); err != nil {
		return Verified{}, err
	}
	return v.Judge(v.Prove(subject, bundles), now)
}

// Prove verifies the signatures of what a peer presents, and no more: [Verifier.Judge]
// says what of it counts, as often as it is asked. Which authorities are trusted
// is asked here: after [Verifier.Trust] the peer's bundles are to be proven anew.
func (v *Verifier) Prove(subject identity.Identifier, bundles [][]byte) *Proven {
	p := &Proven{subject: subject}
	if len(bundles) > MaxBundles {
		p.excess = len(bundles)
		return p
	}
	for _, b := range bundles {
		c, fail := v.prove(subject, b)
		p.bundles = append(p.bundles, proven{c, fail})
	}
	return p
}

// Judge is [Verifier.VerifyAll] for bundles that were proven. It takes no
// cryptography. With an error, Until is set as well.
func (v *Verifier) Judge(p *Proven, now time.Time) (Verified, error) {
	if err := v.revoked(p.subject); err != nil {
		return Verified{}, err
	}
	if p.excess > 0 {
		return Verified{}, fault(code.CredentialMalformed, "reading credentials: %d of them, at most %d", p.excess, MaxBundles)
	}
	var all Verified
	var conflict *Error
	for _, c := range v.candidates(p, &all, now) {
		all.until(v.turns(c), now)
		if fail := v.check(c, now); fail != nil {
			all.Refused = append(all.Refused, fail)
			continue
		}
		if fail := all.add(c); fail != nil && conflict == nil {
			conflict = fail
		}
	}
	if conflict != nil {
		return Verified{Until: all.Until}, conflict
	}
	return all, nil
}

// candidates returns the newest credential of each authority of which the peer
// presents one, in the order presented, and enters those into all that do not even
// stand for that.
func (v *Verifier) candidates(p *Proven, all *Verified, now time.Time) []*Credential {
	var newest []*Credential
	for _, b := range p.bundles {
		if b.fail != nil {
			all.Refused = append(all.Refused, b.fail)
			continue
		}
		c := b.credential
		if fail := v.stands(c, now); fail != nil {
			all.until(v.turns(c), now)
			all.Refused = append(all.Refused, fail)
			continue
		}
		// A remembered one stands no more where its signer has been found replaced.
		known := v.newest.look(c)
		if known != c && v.stands(known, now) != nil {
			v.newest.forget(known)
			known = v.newest.look(c)
		}
		if i := slices.IndexFunc(newest, func(n *Credential) bool { return n.Issuer == c.Issuer }); i < 0 {
			newest = append(newest, known)
		} else {
			newest[i] = known
		}
	}
	return newest
}

// until lowers all.Until to the earliest of turns that is still to come.
func (all *Verified) until(turns []time.Time, now time.Time) {
	for _, t := range turns {
		if t.After(now) && (all.Until.IsZero() || t.Before(all.Until)) {
			all.Until = t
		}
	}
}

// turns returns when the answer of check about c changes by time alone.
func (v *Verifier) turns(c *Credential) []time.Time {
	turns := []time.Time{c.NotBefore.Add(-v.skew), c.NotAfter.Add(v.skew)}
	v.mu.RLock()
	defer v.mu.RUnlock()
	a, ok := v.authorities[c.Issuer]
	if !ok {
		return turns
	}
	if a.known != nil {
		turns = append(turns, a.known.Created().Add(-v.skew), a.known.Expires().Add(v.skew))
	}
	if a.list != nil && !a.list.head.next.IsZero() {
		turns = append(turns, a.list.head.next.Add(v.skew))
	}
	return turns
}

// add joins c's attributes to those that are there.
func (all *Verified) add(c *Credential) *Error {
	for name, value := range c.Attributes {
		if was, ok := all.Attributes[name]; ok && was != value {
			return fault(code.AttributeConflict, "attribute %s is %+q here and %+q in another credential that the peer presents: have one of the authorities drop it, or present one of the two",
				name, value, was).of(c.Issuer, c.Serial)
		}
	}
	if all.Attributes == nil {
		all.Attributes = Attributes{}
	}
	for name, value := range c.Attributes {
		all.Attributes[name] = value
	}
	if all.NotAfter.IsZero() || c.NotAfter.Before(all.NotAfter) {
		all.NotAfter = c.NotAfter
	}
	all.Credentials = append(all.Credentials, c)
	return nil
}
