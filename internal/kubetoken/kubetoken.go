package kubetoken

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
)

// The attributes that a token gives its bearer.
const (
	AttrNamespace      = "k8s.namespace"
	AttrServiceAccount = "k8s.serviceaccount"
	AttrPod            = "k8s.pod" // not there if the token is not bound to a pod
)

// Bounds and defaults of [Config].
const (
	DefaultSkew = time.Minute
	MaxSkew     = 10 * time.Minute
	maxText     = 512 // bytes of an issuer, an audience or a URL
)

// Algorithms returns the signature algorithms (RFC 7518, section 3.1) that can
// be allowed. All are asymmetric: "none" and HMAC, whose secret a public key
// would be, are not among them.
func Algorithms() []string {
	return []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512}
}

// DefaultAlgorithms returns those that API servers sign with.
func DefaultAlgorithms() []string {
	return []string{oidc.RS256, oidc.ES256, oidc.ES384, oidc.ES512}
}

// A Config says which tokens are accepted. Issuer and Audience have to be there.
type Config struct {
	// Issuer is the tokens' iss, to the byte: what the API server has as
	// --service-account-issuer. It is an https URL, at which discovery starts, unless
	// JWKSURL or KeysFile says where the keys are.
	Issuer string
	// Audience is the only one that a token may be for.
	Audience string

	// JWKSURL is the https URL of the issuer's JSON Web Key Set. Servers are
	// asked through the proxy that the environment names (net/http.ProxyFromEnvironment).
	JWKSURL string
	// KeysFile is the path of a file with the issuer's public keys, a JSON Web
	// Key Set or PEM, in the place of a URL. It is read again when it changes.
	KeysFile string
	// CAFile is the path of a PEM file with the only certificate authorities
	// that may vouch for the servers asked; "" stands for those of the system.
	CAFile string
	// BearerTokenFile is the path of a file with a token that is shown to the
	// issuer's own host, or to JWKSURL's, for an API server that lets nobody
	// anonymous see its keys; "" for none. It is read anew each time.
	BearerTokenFile string

	// Skew is how far the issuer's clock and this one may be apart; 0 stands
	// for DefaultSkew. Negative is an error.
	Skew time.Duration
	// Algorithms are those of [Algorithms] that are accepted; none stands for
	// [DefaultAlgorithms].
	Algorithms []string
	// Namespaces are those whose pods are accepted; none stands for all.
	Namespaces []string
	// AllowWithoutPod accepts tokens that are not bound to a pod, such as
	// "kubectl create token" makes for anybody who may.
	AllowWithoutPod bool

	// Refreshed, if not nil, is called after each attempt to read the keys,
	// with how many are held and why none were read now. The error is for the
	// operator: it names files, URLs and addresses. Calls come from
	// [Verifier.Run]'s goroutine, one at a time.
	Refreshed func(keys int, err error)
}

// check returns all that is wrong with c, joined.
func (c *Config) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := checkText(c.Audience); err != nil {
		fault("audience: %w", err)
	}
	discover := c.JWKSURL == "" && c.KeysFile == ""
	if err := checkText(c.Issuer); err != nil {
		fault("issuer: %w", err)
	} else if strings.Contains(c.Issuer, "#") {
		fault("issuer: %q has a fragment, which no issuer has", c.Issuer)
	} else if _, err := parseURL(c.Issuer); err != nil && discover {
		fault("issuer: %w; or say where its keys are", err)
	}
	switch {
	case c.JWKSURL != "" && c.KeysFile != "":
		fault("keys of a URL and of a file: choose one")
	case c.JWKSURL != "":
		if _, err := parseURL(c.JWKSURL); err != nil {
			fault("URL of the keys: %w", err)
		}
	case c.KeysFile != "" && (c.CAFile != "" || c.BearerTokenFile != ""):
		fault("keys of a file need no certificate authorities and no bearer token")
	}
	if c.Skew < 0 || c.Skew > MaxSkew {
		fault("skew of %s: want 0 to %s", c.Skew, MaxSkew)
	}
	for _, alg := range c.Algorithms {
		if !slices.Contains(Algorithms(), alg) {
			fault("algorithm %q: want some of %s", alg, strings.Join(Algorithms(), ", "))
		}
	}
	for _, ns := range c.Namespaces {
		if !isLabel(ns) {
			fault("namespace %q: want a DNS label", ns)
		}
	}
	return errors.Join(errs...)
}

// checkText refuses what no issuer or audience is.
func checkText(s string) error {
	switch {
	case s == "":
		return errors.New("is missing")
	case len(s) > maxText:
		return fmt.Errorf("has %d bytes, at most %d", len(s), maxText)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%q holds other characters than visible ASCII", s)
	}
	return nil
}

// parseURL reads an https URL that keeps no secret and names a host.
func parseURL(s string) (*url.URL, error) {
	if err := checkText(s); err != nil {
		return nil, err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is no URL", s)
	case u.Scheme != "https":
		return nil, fmt.Errorf("%q: want an https:// URL, since who can change the keys can make tokens", s)
	case u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("%q names no host", s)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return nil, errors.New("want a URL without user, query and fragment")
	}
	return u, nil
}

// An Error says why a token was not accepted.
type Error struct {
	// Code is code.TokenRefused; or code.Internal if that is not the token's
	// doing: the issuer's keys could not be read, so the same token may be
	// accepted later.
	Code code.Code
	// Reason is for the bearer: it tells what is wrong and what to do, and
	// nothing that only the operator should know. It is printable.
	Reason string
	// Err is more about it, for the operator alone; nil if there is no more.
	Err error
}

// Error returns all of it, for the operator.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return fmt.Sprintf("%s: %v", e.Reason, e.Err)
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// refuse makes the error of a token that is not accepted.
func refuse(format string, args ...any) *Error {
	return &Error{Code: code.TokenRefused, Reason: code.CutReason(code.Printable(fmt.Sprintf(format, args...)))}
}

// shown is how texts of a token are shown: quoted, and not at any length.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%+q…", s[:most])
	}
	return fmt.Sprintf("%+q", s)
}

// A Verifier verifies tokens of one cluster. Its methods may be called by
// several goroutines.
type Verifier struct {
	config     Config
	algorithms []jose.SignatureAlgorithm
	keys       *keyring
}

// New returns a Verifier. It reads nothing yet, neither files nor keys: [Verifier.Run]
// does. The error tells all that is wrong with c.
func New(c Config) (*Verifier, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("verifying Kubernetes tokens: %w", err)
	}
	if c.Skew == 0 {
		c.Skew = DefaultSkew
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = DefaultAlgorithms()
	}
	c.Algorithms, c.Namespaces = slices.Clone(c.Algorithms), slices.Clone(c.Namespaces)
	v := &Verifier{config: c, keys: newKeyring(source(c), c.Refreshed)}
	if c.KeysFile != "" {
		v.keys.every = leastBetween // reading a file costs next to nothing
	}
	for _, alg := range c.Algorithms {
		v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(alg))
	}
	return v, nil
}

// Run reads the issuer's keys now and from time to time, until ctx is done,
// which is the only way it ends; it returns ctx's error. Failures are reported
// to [Config.Refreshed]; the keys that were read before hold on for 24 hours.
// It is to be called once, and without it no token is accepted.
func (v *Verifier) Run(ctx context.Context) error { return v.keys.run(ctx) }

// Verify returns what a token proves: attributes of its bearer, and a subject
// that is the same for all tokens of one pod, and never of another pod, nor of
// one of the same name that comes later:
//
//	ISSUER#pod/NAMESPACE/POD/UID
//	ISSUER#serviceaccount/NAMESPACE/NAME/UID    if the token is not bound to a pod
//
// It may wait, for seconds, for keys that are being read. The error is an
// [*Error], or ctx's if that was done before.
func (v *Verifier) Verify(ctx context.Context, token string) (subject string, attrs credential.Attributes, err error) {
	h, err := inspect(token)
	if err == nil {
		err = v.checkHeader(h)
	}
	if err != nil {
		return "", nil, err
	}
	keys, err := v.keys.find(ctx, h.KeyID)
	if err != nil {
		return "", nil, err
	}
	payload, err := v.verify(ctx, token, h, keys)
	if err != nil {
		return "", nil, err
	}
	c, err := parseClaims(payload)
	if err == nil {
		err = v.checkClaims(c, time.Now())
	}
	if err != nil {
		return "", nil, err
	}
	return c.subject(), c.attributes(), nil
}

// checkHeader refuses, before any key is looked for, what can be refused by
// what the token says of itself.
func (v *Verifier) checkHeader(h header) error {
	switch {
	case !slices.Contains(v.config.Algorithms, h.Algorithm):
		return refuse("the token is signed with the algorithm %s, and accepted are %s", shown(h.Algorithm), strings.Join(v.config.Algorithms, ", "))
	case h.Critical != nil:
		return refuse("the token's header has the parameter crit, which Kubernetes does not use")
	case h.KeyID == "" || len(h.KeyID) > maxText:
		return refuse("the token names its key (kid) with %d bytes, want 1 to %d", len(h.KeyID), maxText)
	case h.issuer != v.config.Issuer:
		// Nothing is verified yet, so the bearer may be anybody.
		e := refuse("the token is of the issuer %s, which is not the one accepted here: is it another cluster's?", shown(h.issuer))
		e.Err = fmt.Errorf("want %s", v.config.Issuer)
		return e
	}
	return nil
}

// verify returns the payload of a token that one of keys has signed.
func (v *Verifier) verify(ctx context.Context, token string, h header, keys []key) ([]byte, error) {
	p := &proof{keys: candidates(keys, h), algorithms: v.algorithms}
	_, err := oidc.NewVerifier(v.config.Issuer, p, &oidc.Config{
		ClientID:             v.config.Audience,
		SupportedSigningAlgs: v.config.Algorithms,
		SkipExpiryCheck:      true, // its allowance for clocks is fixed: checkClaims has ours
	}).Verify(ctx, token)
	switch {
	case err == nil:
		return p.payload, nil
	case !p.asked:
		return nil, refuse("the token's header has a parameter of a wrong type (RFC 7515, section 4.1)")
	case p.payload == nil:
		return nil, refuse("the token's signature is not that of the issuer's key %s: it was changed on its way, or made by somebody else", shown(h.KeyID))
	}
	// The signature is right, so what the claims lack can be told.
	c, err := parseClaims(p.payload)
	if err == nil {
		err = v.checkClaims(c, time.Now())
	}
	if err == nil {
		err = refuse("the token's claims are not those of an ID token (OpenID Connect Core, section 2)")
	}
	return nil, err
}

// A proof is an [oidc.KeySet] for one token: it has the keys that may have
// signed it, and keeps what was signed.
type proof struct {
	keys       []key
	algorithms []jose.SignatureAlgorithm

	asked   bool   // for the signature, so the token could be parsed
	payload []byte // not nil: the signature is right
}

// VerifySignature returns the payload if one of the keys has signed the token.
func (p *proof) VerifySignature(_ context.Context, token string) ([]byte, error) {
	p.asked = true
	jws, err := jose.ParseSignedCompact(token, p.algorithms)
	if err != nil {
		return nil, err
	}
	for _, k := range p.keys {
		if payload, err := jws.Verify(k.public); err == nil {
			p.payload = payload
			return payload, nil
		}
	}
	return nil, errors.New("no key has made the signature")
}
