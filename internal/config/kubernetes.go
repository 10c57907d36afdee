package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Bounds of what a Kubernetes section can say.
const (
	MinClockSkew = time.Second
	MaxClockSkew = 10 * time.Minute

	maxIssuer = 512 // bytes of an issuer, an audience or a URL
)

// A Kubernetes says whose ServiceAccount tokens prove to an authority which pod
// a new member runs in. Paths are as they can be opened; an empty one stands for
// none.
type Kubernetes struct {
	Issuer          string        // the tokens' iss; an https URL if JWKSURL and KeysFile are ""
	Audience        string        // the only one that tokens may be for
	JWKSURL         string        // the https URL of the issuer's keys; "": discovery at the issuer, or KeysFile
	KeysFile        string        // the file of the issuer's keys
	CAFile          string        // the certificate authorities of the issuer's servers; "": those of the system
	BearerTokenFile string        // the token to ask the issuer's servers with
	ClockSkew       time.Duration // how far clocks may be apart; zero: what internal/kubetoken takes
	Algorithms      []string      // the signatures accepted; empty: what internal/kubetoken takes
	Namespaces      []string      // whose pods are accepted; empty: all
	AllowWithoutPod bool          // accept tokens that are not bound to a pod
}

// KubernetesAlgorithms returns what can stand under algorithms.
func KubernetesAlgorithms() []string {
	return []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}
}

// kubernetes reads the section that v is.
func (d *decoder) kubernetes(v *value, path string) *Kubernetes {
	s := d.section(v, path)
	s.synonyms = map[string]string{
		"jwks": "jwks_url", "jwks_uri": "jwks_url", "keys": "keys_file", "ca": "ca_file", "token": "bearer_token_file", "token_file": "bearer_token_file",
		"audiences": "audience", "skew": "clock_skew", "namespace": "namespaces", "algorithm": "algorithms",
	}
	s.hints = map[string]string{"kubernetes_token": "it belongs in the file of the inlet, outlet or relay that enrols"}
	k := &Kubernetes{
		Issuer: s.visible("issuer"), Audience: s.visible("audience"), JWKSURL: s.visible("jwks_url"),
		KeysFile: s.filePath("keys_file"), CAFile: s.filePath("ca_file"), BearerTokenFile: s.filePath("bearer_token_file"),
		ClockSkew: s.duration("clock_skew", MinClockSkew, MaxClockSkew),
	}
	s.need("issuer", "say whose tokens count (issuer: https://…); \"kubectl get --raw /.well-known/openid-configuration\" prints it")
	s.need("audience", "say what tokens have to be made for (audience: culvert); pods' projected volumes name the same")
	s.keysOf(k)
	k.Algorithms = s.words("algorithms", func(text string) error {
		if !slices.Contains(KubernetesAlgorithms(), text) {
			return fmt.Errorf("%s: want some of %s", quote(text), strings.Join(KubernetesAlgorithms(), ", "))
		}
		return nil
	})
	s.notEmpty("algorithms", "nothing could be accepted: write at least one, or remove the key")
	k.Namespaces = s.words("namespaces", serviceName) // a DNS label, too
	s.notEmpty("namespaces", "no pod could be accepted: write at least one, or remove the key for all")
	k.AllowWithoutPod = s.boolean("allow_without_pod")
	s.finish()
	return k
}

// keysOf checks that there is one way to the issuer's keys, and that what is
// said of it has a use.
func (s *section) keysOf(k *Kubernetes) {
	at := func(key string) Origin { return s.origins[join(s.path, key)] }
	s.httpsURL("jwks_url", k.JWKSURL, "")
	switch {
	case strings.Contains(k.Issuer, "#"):
		s.fault(at("issuer"), join(s.path, "issuer"), "%s has a fragment, which no issuer has", quote(k.Issuer))
	case !s.has("jwks_url") && !s.has("keys_file"):
		s.httpsURL("issuer", k.Issuer, "; or say where its keys are (jwks_url or keys_file)")
	}
	if k.KeysFile == "" {
		return
	}
	for _, other := range []struct{ key, text string }{{"jwks_url", k.JWKSURL}, {"ca_file", k.CAFile}, {"bearer_token_file", k.BearerTokenFile}} {
		if other.text != "" {
			s.fault(at(other.key), join(s.path, other.key), "has no use beside keys_file, from which the keys are read: remove one of the two")
		}
	}
}

// httpsURL reports a text that is there and no https URL; also is added to what
// to do.
func (s *section) httpsURL(key, text, also string) {
	if text == "" {
		return
	}
	if err := checkHTTPS(text); err != nil {
		path := join(s.path, key)
		s.fault(s.origins[path], path, "%w%s", err, also)
	}
}

// checkHTTPS refuses all but https URLs that hold no secret.
func checkHTTPS(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%s is no URL", quote(text))
	case u.Scheme != "https":
		return fmt.Errorf("%s: want https://, since whoever can change the keys on their way can make tokens", quote(text))
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%s names no host", quote(text))
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return errors.New("want a URL without user, query and fragment") // which may be secret, and are not shown
	}
	return nil
}

// visible reads a text that an issuer, an audience or a URL can be.
func (s *section) visible(key string) (visible string) {
	s.read(key, func(text string) error {
		switch {
		case len(text) > maxIssuer:
			return fmt.Errorf("has %d characters: at most %d fit", len(text), maxIssuer)
		case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
			return fmt.Errorf("%s holds a space, or other characters than those of ASCII that can be seen", quote(text))
		}
		visible = text
		return nil
	})
	return visible
}

// filePath reads the path of a file.
func (s *section) filePath(key string) (path string) {
	s.read(key, func(text string) error {
		path = resolve(text, s.origins[join(s.path, key)])
		return nil
	})
	return path
}

// words reads a list of texts, each once.
func (s *section) words(key string, check func(text string) error) (list []string) {
	s.list(key, func(text, _ string, _ *value) error {
		if err := check(text); err != nil {
			return err
		}
		if slices.Contains(list, text) {
			return fmt.Errorf("%s is in the list twice: remove one", text)
		}
		list = append(list, text)
		return nil
	})
	return list
}

// boolean reads true or false; false if it is not there.
func (s *section) boolean(key string) bool {
	v := s.get(key)
	if v == nil {
		return false
	}
	yes := v.text == "true"
	if v.shape != shapeBool && v.shape != shapeText || !yes && v.text != "false" {
		s.fault(v.at, join(s.path, key), "want true or false")
		return false
	}
	return yes
}
