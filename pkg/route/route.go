// Package route owns hops and routes as values: it reads them, prints them and
// says what is wrong with them. It resolves and dials nothing.
package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/culvert-net/culvert/pkg/identity"
)

// MaxHops is the most hops that a route has.
const MaxHops = 8

// maxHost is the longest host: a DNS name's limit (RFC 1035, section 2.3.4).
const maxHost = 253

const scheme = "tcp://"

// A Hop is one relay, or the outlet itself: where it is and who it has to
// prove to be. Its text is tcp://host:port/IDENTIFIER.
type Hop struct {
	Host       string // a DNS name in lower case, or an IP address without brackets
	Port       uint16 // never 0
	Identifier identity.Identifier
}

// A Route is the hops on the way to an outlet, the nearest first. Its text is
// its hops, joined by commas. An empty Route has no text.
type Route []Hop

// Parse reads a route. White space around hops is passed over, so that a long
// route can be folded; all else has to be as [Route.String] prints it, but for
// upper case in hosts and the spelling of IP addresses.
func Parse(s string) (Route, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("route is empty: write at least one hop, tcp://host:port/IDENTIFIER")
	}
	// Counted first: what is too long is not taken apart.
	if n := strings.Count(s, ",") + 1; n > MaxHops {
		return nil, fmt.Errorf("route has %d hops, at most %d", n, MaxHops)
	}
	parts := strings.Split(s, ",")
	r := make(Route, 0, len(parts))
	for i, part := range parts {
		hop, err := ParseHop(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("hop %d of %d: %w", i+1, len(parts), err)
		}
		r = append(r, hop)
	}
	return r, nil
}

// ParseHop reads one hop.
func ParseHop(s string) (Hop, error) {
	address, id, ok := strings.Cut(strings.TrimPrefix(s, scheme), "/")
	switch {
	case s == "":
		return Hop{}, errors.New("hop is empty, want tcp://host:port/IDENTIFIER")
	case !strings.HasPrefix(s, scheme):
		return Hop{}, fmt.Errorf("%s does not begin with %s, want tcp://host:port/IDENTIFIER", show(s), scheme)
	case !ok || id == "":
		return Hop{}, fmt.Errorf("%s has no identifier, want tcp://host:port/IDENTIFIER", show(s))
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return Hop{}, fmt.Errorf("%s: %w", show(s), err)
	}
	identifier, err := identity.ParseIdentifier(id)
	if err != nil {
		return Hop{}, fmt.Errorf("%s%s/…: %w", scheme, join(host, port), err)
	}
	return Hop{Host: host, Port: port, Identifier: identifier}, nil
}

// ParseAddress reads tcp://host:port, which has no identifier: an address to
// listen on or to dial. The host is as in a [Hop].
func ParseAddress(s string) (host string, port uint16, err error) {
	address, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return "", 0, fmt.Errorf("%s does not begin with %s, want tcp://host:port", show(s), scheme)
	}
	if address, rest, ok := strings.Cut(address, "/"); ok {
		return "", 0, fmt.Errorf("%s%s is followed by %s, want tcp://host:port alone", scheme, address, show("/"+rest))
	}
	if host, port, err = splitAddress(address); err != nil {
		return "", 0, fmt.Errorf("%s: %w", show(s), err)
	}
	return host, port, nil
}

// Address returns the hop's host:port, with brackets around an IPv6 address,
// as net.Dial takes it.
func (h Hop) Address() string { return join(h.Host, h.Port) }

// String returns the hop's one canonical text.
func (h Hop) String() string { return scheme + h.Address() + "/" + h.Identifier.String() }

// MarshalText returns what [Hop.String] does. A hop that would not read back
// is an error.
func (h Hop) MarshalText() ([]byte, error) {
	s := h.String()
	if back, err := ParseHop(s); err != nil {
		return nil, err
	} else if back != h {
		return nil, fmt.Errorf("%s is not the canonical form of this hop", show(s))
	}
	return []byte(s), nil
}

// UnmarshalText is [ParseHop]; on an error h stays as it was.
func (h *Hop) UnmarshalText(text []byte) error {
	hop, err := ParseHop(string(text))
	if err != nil {
		return err
	}
	*h = hop
	return nil
}

// String returns the route's one canonical text.
func (r Route) String() string {
	var b strings.Builder
	for i, h := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(h.String())
	}
	return b.String()
}

// MarshalText returns what [Route.String] does. A route that would not read
// back is an error.
func (r Route) MarshalText() ([]byte, error) {
	if len(r) == 0 || len(r) > MaxHops {
		return nil, fmt.Errorf("route has %d hops, want 1 to %d", len(r), MaxHops)
	}
	for i, h := range r {
		if _, err := h.MarshalText(); err != nil {
			return nil, fmt.Errorf("hop %d of %d: %w", i+1, len(r), err)
		}
	}
	return []byte(r.String()), nil
}

// UnmarshalText is [Parse]; on an error r stays as it was.
func (r *Route) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// splitAddress reads host:port. The host comes back in canonical form.
func splitAddress(s string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		var ae *net.AddrError
		if errors.As(err, &ae) {
			return "", 0, fmt.Errorf("address is not host:port: %s", ae.Err)
		}
		return "", 0, fmt.Errorf("address is not host:port: %w", err)
	}
	bracketed := strings.HasPrefix(s, "[")
	if host, err = canonicalHost(host, bracketed); err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || digits[0] == '0' || digits[0] == '+' {
		return "", 0, fmt.Errorf("port %s is not a number from 1 to 65535", show(digits))
	}
	return host, uint16(n), nil
}

func canonicalHost(host string, bracketed bool) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		switch {
		case ip.Zone() != "":
			return "", fmt.Errorf("host %s has a zone, which means nothing on another machine", show(host))
		case bracketed && ip.Is4():
			return "", fmt.Errorf("host %s is no IPv6 address: leave the brackets out", show(host))
		}
		return ip.Unmap().String(), nil
	}
	switch {
	case host == "":
		return "", errors.New("host is empty")
	case bracketed:
		return "", fmt.Errorf("host %s is in brackets but no IPv6 address", show(host))
	case len(host) > maxHost:
		return "", fmt.Errorf("host has %d characters, at most %d", len(host), maxHost)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, label := range strings.Split(host, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("host %s: %w", show(host), err)
		}
	}
	// "1.2.3" and "300.1.1.1" are what was meant to be an address.
	if last := host[strings.LastIndexByte(host, '.')+1:]; last[0] >= '0' && last[0] <= '9' && isNumber(last) {
		return "", fmt.Errorf("host %s is no valid IP address", show(host))
	}
	return host, nil
}

// checkLabel is RFC 1123's rule for host names, with the underscore that some
// clusters use.
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("two dots without a name between them")
	case len(label) > 63:
		return fmt.Errorf("a part has %d characters, at most 63", len(label))
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("a part begins or ends with a hyphen")
	}
	for _, r := range label {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return fmt.Errorf("%q cannot be in a host name", r)
		}
	}
	return nil
}

func isNumber(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}

func join(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// show quotes s for an error, shortened: it may be a whole file pasted into
// the wrong place.
func show(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}
