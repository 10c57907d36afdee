package kubetoken

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/culvert-net/culvert/pkg/credential"
)

// claims are what a token says, as far as it matters: the registered ones of
// RFC 7519, section 4.1, and Kubernetes' own (k8s.io/kubernetes,
// pkg/serviceaccount/claims.go).
type claims struct {
	Issuer     string      `json:"iss"`
	Subject    string      `json:"sub"`
	Audience   audience    `json:"aud"`
	Expires    numericDate `json:"exp"`
	NotBefore  numericDate `json:"nbf"`
	IssuedAt   numericDate `json:"iat"`
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount ref    `json:"serviceaccount"`
		Pod            *ref   `json:"pod"`
	} `json:"kubernetes.io"`
}

// A ref names an object of the cluster.
type ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// An audience is a text or a list of texts (RFC 7519, section 4.1.3).
type audience []string

// UnmarshalJSON reads either form.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// A numericDate is seconds since 1970 (RFC 7519, section 2); the zero value
// stands for none.
type numericDate struct{ time.Time }

// UnmarshalJSON reads a number that a time can be.
func (d *numericDate) UnmarshalJSON(b []byte) error {
	var seconds float64
	if err := json.Unmarshal(b, &seconds); err != nil {
		return err
	}
	const year9999 = 253402300799 // RFC 3339 prints no later one
	if seconds <= 0 || seconds > year9999 {
		return errors.New("a time out of range")
	}
	whole, part := math.Modf(seconds)
	d.Time = time.Unix(int64(whole), int64(part*1e9))
	return nil
}

// parseClaims reads a payload whose signature is right.
func parseClaims(payload []byte) (*claims, error) {
	c := new(claims)
	if err := json.Unmarshal(payload, c); err != nil {
		return nil, refuse("the token's claims have other types than Kubernetes gives them")
	}
	return c, nil
}

// checkClaims refuses a token that proves nothing here and now.
func (v *Verifier) checkClaims(c *claims, now time.Time) error {
	switch {
	case c.Issuer != v.config.Issuer:
		return refuse("the token is of the issuer %s, and accepted are those of %s", shown(c.Issuer), v.config.Issuer)
	case !slices.Contains(c.Audience, v.config.Audience):
		return refuse("the token is for the audience %s, want %s: set audience: %s in the pod's projected volume",
			shown(strings.Join(c.Audience, " ")), v.config.Audience, v.config.Audience)
	case len(c.Audience) > 1:
		// The other audiences could come with it in the pod's place.
		return refuse("the token is for %d audiences: project one that is for %s alone", len(c.Audience), v.config.Audience)
	}
	if err := v.checkTimes(c, now); err != nil {
		return err
	}
	return v.checkBearer(c)
}

func (v *Verifier) checkTimes(c *claims, now time.Time) error {
	const clocks = "are the clocks right?"
	at := now.UTC().Format(time.RFC3339)
	switch {
	case c.Expires.IsZero() || c.IssuedAt.IsZero():
		return refuse("the token has no end (exp) or no beginning (iat): it is not a projected one")
	case !now.Before(c.Expires.Add(v.config.Skew)):
		return refuse("the token expired at %s, and here it is %s: read the file anew, which the kubelet replaces in time; %s", c.Expires.UTC().Format(time.RFC3339), at, clocks)
	case now.Before(c.NotBefore.Add(-v.config.Skew)):
		return refuse("the token holds from %s, and here it is %s: %s", c.NotBefore.UTC().Format(time.RFC3339), at, clocks)
	case now.Before(c.IssuedAt.Add(-v.config.Skew)):
		return refuse("the token was issued at %s, and here it is %s: %s", c.IssuedAt.UTC().Format(time.RFC3339), at, clocks)
	}
	return nil
}

// checkBearer refuses claims that name nobody, disagree, or name somebody who
// is not wanted.
func (v *Verifier) checkBearer(c *claims) error {
	k := c.Kubernetes
	account := k.ServiceAccount
	switch {
	case !isLabel(k.Namespace) || !isSubdomain(account.Name) || !isUID(account.UID):
		return refuse("the token's claim kubernetes.io names no namespace and service account: it is no ServiceAccount token")
	case c.Subject != "system:serviceaccount:"+k.Namespace+":"+account.Name:
		return refuse("the token's subject %s is not the service account %s of namespace %s that its claim kubernetes.io names", shown(c.Subject), account.Name, k.Namespace)
	case k.Pod == nil && !v.config.AllowWithoutPod:
		return refuse("the token is not bound to a pod: use one that a projected volume has put there, not one of \"kubectl create token\"")
	case k.Pod != nil && (!isSubdomain(k.Pod.Name) || !isUID(k.Pod.UID)):
		return refuse("the token's claim kubernetes.io names a pod without a name or UID")
	case len(v.config.Namespaces) > 0 && !slices.Contains(v.config.Namespaces, k.Namespace):
		return refuse("pods of namespace %s may not enrol here", k.Namespace)
	}
	return nil
}

// subject names the bearer, once for all its tokens. An issuer's URL has no
// "#" (OpenID Connect Core, section 2) and names have no "/", so that no two
// bearers share one.
func (c *claims) subject() string {
	k := c.Kubernetes
	kind, who := "serviceaccount", k.ServiceAccount
	if k.Pod != nil {
		kind, who = "pod", *k.Pod
	}
	return fmt.Sprintf("%s#%s/%s/%s/%s", c.Issuer, kind, k.Namespace, who.Name, who.UID)
}

func (c *claims) attributes() credential.Attributes {
	k := c.Kubernetes
	a := credential.Attributes{AttrNamespace: k.Namespace, AttrServiceAccount: k.ServiceAccount.Name}
	if k.Pod != nil {
		a[AttrPod] = k.Pod.Name
	}
	return a
}

// isLabel reports whether s is a DNS label (RFC 1123), as the names of
// namespaces are.
func isLabel(s string) bool { return len(s) <= 63 && isPart(s) }

// isSubdomain reports whether s is labels with dots between, as the names of
// pods and service accounts are: Kubernetes bounds the whole, and so its length
// fits an attribute.
func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !isPart(part) {
			return false
		}
	}
	return true
}

// isPart reports whether s is a label of any length.
func isPart(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// isUID reports whether s can be an object's UID: a UUID in practice, which
// nothing promises.
func isUID(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '/' || r == '#'
	})
}
