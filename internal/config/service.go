package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"time"

	"github.com/culvert-net/culvert/pkg/route"
)

// DefaultListenMode is the mode of a unix socket to listen at: its owner's alone.
const DefaultListenMode fs.FileMode = 0o600

// MinIdle is the shortest time after which a quiet connection is ended.
const MinIdle = time.Second

// ServiceLimits bound the connections of one service at one process. Zero stands for
// no limit.
type ServiceLimits struct {
	Connections    int           // open at a time; one more is refused
	IdleTimeout    time.Duration // one that moves no byte for this long is reset
	BytesPerSecond int64         // of all of them together, for each direction
}

// TargetTLS says how an outlet speaks TLS with a target. The zero TargetTLS verifies
// the target by its host and the system's roots.
type TargetTLS struct {
	CAFile     string // who may vouch for the target; "": the system's roots
	ServerName string // the name to verify; "": the host that is dialled
	CertFile   string // shown to the target, with KeyFile; "": nothing is
	KeyFile    string
	MinVersion string // 1.2 or 1.3; "": 1.2
}

// Shown returns the target as logs have it: "host:port", "tls://host:port" or
// "unix:///path".
func (s *OutletService) Shown() string {
	if s.TLS != nil {
		return tlsScheme + s.Target.String()
	}
	return s.Target.String()
}

// listenPlace reads where local clients connect.
func (s *section) listenPlace(key string) (a Address) {
	s.numberIsText(key)
	s.read(key, func(text string) (err error) {
		if a, err = parsePlace(text); err == nil {
			path := join(s.path, key)
			s.listen(a, s.origins[path], path)
		}
		return err
	})
	return a
}

// listenMode reads the mode of the unix socket that listen is.
func (s *section) listenMode(key string, listen Address) (mode fs.FileMode) {
	s.numberIsText(key)
	s.read(key, func(text string) (err error) {
		if !listen.IsZero() && listen.Path == "" {
			return errors.New("is for a unix socket: write listen: unix:///PATH, or remove it")
		}
		mode, err = parseMode(text)
		return err
	})
	return mode
}

// parseMode reads the mode of a socket, of which nothing but who may write counts.
func parseMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || len(text) < 3 || len(text) > 4 || n > 0o777 {
		return 0, fmt.Errorf("%s is no mode of a file: want one like 0600, the owner's alone, 0660, its group's too, or 0666, everybody's", quote(text))
	}
	if n&0o200 == 0 {
		return 0, fmt.Errorf("%s keeps its owner out: want one like 0600, 0660 or 0666", quote(text))
	}
	return fs.FileMode(n), nil
}

// serviceLimits reads the limits of one service.
func (s *section) serviceLimits(key string) (l ServiceLimits) {
	v := s.get(key)
	if v == nil {
		return l
	}
	in := s.section(v, join(s.path, key))
	in.hints = map[string]string{"handshakes_per_second": "it is a limit of all services together: write it under limits at the top"}
	in.synonyms = map[string]string{"idle": "idle_timeout", "timeout": "idle_timeout", "streams": "connections", "rate": "bytes_per_second"}
	l.Connections = in.count("connections")
	l.IdleTimeout = in.duration("idle_timeout", MinIdle, MaxTimeout)
	if l.BytesPerSecond = in.size("bytes_per_second"); l.BytesPerSecond != 0 && l.BytesPerSecond < MinRate {
		path := join(in.path, "bytes_per_second")
		s.fault(s.origins[path], path, "%d is next to nothing: want at least %d, or leave it out for no limit", l.BytesPerSecond, MinRate)
	}
	in.finish()
	return l
}

// target reads what is dialled, and how TLS is spoken there.
func (s *section) target(c *OutletService) {
	s.numberIsText("target")
	known := false
	s.read("target", func(text string) (err error) {
		var secure bool
		if c.Target, secure, err = parseTarget(text); secure {
			c.TLS = &TargetTLS{}
		}
		known = err == nil
		return err
	})
	v := s.get("tls")
	if v == nil {
		return
	}
	t := s.targetTLS(v, join(s.path, "tls"))
	switch {
	case c.TLS != nil:
		*c.TLS = t
	case known:
		s.fault(v.at, join(s.path, "tls"), "the target is not spoken TLS with: write target: tls://HOST:PORT, or remove this section")
	}
}

// targetTLS reads how TLS is spoken with a target.
func (s *section) targetTLS(v *value, path string) (t TargetTLS) {
	in := s.section(v, path)
	in.synonyms = map[string]string{"ca": "ca_file", "cert": "cert_file", "certificate": "cert_file", "key": "key_file", "host": "server_name", "name": "server_name"}
	in.hints = map[string]string{}
	for _, key := range []string{"insecure", "insecure_skip_verify", "skip_verify", "verify"} {
		in.hints[key] = "a target's certificate is always verified: name who vouches for it under ca_file"
	}
	t.CAFile = in.filePath("ca_file")
	in.read("server_name", func(text string) (err error) {
		t.ServerName, err = tlsName(text)
		return err
	})
	t.CertFile = in.filePath("cert_file")
	t.KeyFile = in.filePath("key_file")
	in.numberIsText("min_version")
	t.MinVersion = in.choice("min_version", "1.2", "1.3")
	if in.has("cert_file") {
		in.need("key_file", "the key of the certificate under cert_file; name the file of both twice where they are in one")
	}
	if in.has("key_file") {
		in.need("cert_file", "the certificate whose key is under key_file")
	}
	in.finish()
	return t
}

// tlsName checks a name that a certificate is to have: a DNS name or an IP address.
func tlsName(text string) (string, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		return ip.String(), nil
	}
	host, _, err := route.ParseAddress("tcp://" + text + ":1")
	if err != nil {
		return "", fmt.Errorf("%s is no name that a certificate can have: want a DNS name or an IP address, without a port", quote(text))
	}
	return host, nil
}

// proxyProtocol reads what a target is told of who calls.
func (s *section) proxyProtocol(c *OutletService) {
	s.numberIsText("proxy_protocol")
	switch s.choice("proxy_protocol", "v1", "v2") {
	case "v1":
		c.ProxyProtocol = 1
	case "v2":
		c.ProxyProtocol = 2
	}
	if c.TrustClientAddress = s.boolean("trust_client_address"); c.TrustClientAddress && !s.has("proxy_protocol") {
		path := join(s.path, "trust_client_address")
		s.fault(s.origins[path], path, "the target is told no address: write proxy_protocol: v2, or v1, or remove it")
	}
}
