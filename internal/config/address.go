package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/culvert-net/culvert/pkg/route"
)

// An Address is a TCP address, or the path of a unix socket. The zero Address stands
// for none.
type Address struct {
	Host string // an IP address or a DNS name in lower case; never empty, but for a unix socket
	Port uint16
	Path string // of a unix socket, absolute; "": it is TCP
}

// IsZero reports whether a is the zero Address.
func (a Address) IsZero() bool { return a == Address{} }

// String returns "host:port", IPv6 in brackets, as package net takes it, or
// "unix:///path"; "" for the zero Address.
func (a Address) String() string {
	switch {
	case a.IsZero():
		return ""
	case a.Path != "":
		return unixScheme + a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// Net returns the network and the address as package net takes them.
func (a Address) Net() (network, address string) {
	if a.Path != "" {
		return "unix", a.Path
	}
	return "tcp", a.String()
}

// URL returns "tcp://host:port" or "unix:///path", as files write it; "" for the zero
// Address.
func (a Address) URL() string {
	if a.IsZero() || a.Path != "" {
		return a.String()
	}
	return "tcp://" + a.String()
}

// Loopback reports whether only this machine can reach the address.
func (a Address) Loopback() bool {
	if a.Host == "localhost" || a.Path != "" {
		return true
	}
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && ip.Unmap().IsLoopback()
}

// everywhere reports whether listening at the address takes the port on all
// interfaces.
func (a Address) everywhere() bool {
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && ip.IsUnspecified()
}

// overlaps reports whether a and b cannot both be listened at. Port 0 is a new
// port each time and overlaps with nothing. IPv4's and IPv6's "everywhere" are
// taken for the same, which they are on most systems.
func (a Address) overlaps(b Address) bool {
	if a.Path != "" || b.Path != "" {
		return a.Path == b.Path
	}
	return a.Port != 0 && a.Port == b.Port && (a.Host == b.Host || a.everywhere() || b.everywhere())
}

// An addressUse says what an address is for, which decides what it may be.
type addressUse int

const (
	toDial   addressUse = iota // a port from 1
	toListen                   // port 0 takes a free one
)

// parseAddress reads "tcp://host:port" or "host:port".
func parseAddress(s string, use addressUse) (Address, error) {
	rest, err := cutScheme(s)
	if err != nil {
		return Address{}, err
	}
	if at := strings.IndexByte(rest, '/'); at >= 0 {
		return Address{}, fmt.Errorf("%s has %s after the port: only host:port belongs here", quote(s), quote(rest[at:]))
	}
	host, portText, err := net.SplitHostPort(rest)
	if err != nil {
		return Address{}, splitError(s, rest, use)
	}
	port, err := parsePort(portText, use)
	if err != nil {
		return Address{}, fmt.Errorf("%s: %w", quote(s), err)
	}
	if host == "" {
		if use == toListen {
			return Address{}, fmt.Errorf("%s listens on every interface; write 0.0.0.0:%s if you mean that, or 127.0.0.1:%s", quote(s), portText, portText)
		}
		return Address{}, fmt.Errorf("%s has no host: write 127.0.0.1:%s if this machine is meant", quote(s), portText)
	}
	host, err = parseHost(host, use)
	if err != nil {
		return Address{}, fmt.Errorf("%s: %w", quote(s), err)
	}
	return Address{Host: host, Port: port}, nil
}

// cutScheme takes an optional tcp:// off.
func cutScheme(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty: write host:port")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		return s, nil
	case scheme == "tcp":
		return rest, nil
	case strings.EqualFold(scheme, "tcp"):
		return "", fmt.Errorf("%s: write tcp:// in lower case", quote(s))
	case strings.EqualFold(scheme, "unix"):
		return "", fmt.Errorf("%s: only TCP can be used here: want host:port or tcp://host:port", quote(s))
	}
	return "", fmt.Errorf("%s: want host:port or tcp://host:port, without %s (Culvert carries whatever runs on TCP)", quote(s), word(scheme+"://"))
}

// splitError says why net.SplitHostPort refused rest.
func splitError(s, rest string, use addressUse) error {
	_, notNumber := strconv.ParseUint(rest, 10, 16)
	switch {
	case notNumber == nil && use == toListen:
		return fmt.Errorf("%s is a port without a host: write 127.0.0.1:%s, or 0.0.0.0:%s to be reached from other machines", quote(s), rest, rest)
	case notNumber == nil:
		return fmt.Errorf("%s is a port without a host: write 127.0.0.1:%s if this machine is meant", quote(s), rest)
	case strings.HasPrefix(rest, "[") && !strings.Contains(rest, "]"):
		return fmt.Errorf("%s: the [ has no ]", quote(s))
	case strings.Count(rest, ":") > 1 && !strings.HasPrefix(rest, "["):
		return fmt.Errorf("%s: write an IPv6 address in brackets, like [::1]:5432", quote(s))
	case !strings.HasSuffix(rest, "]") && strings.Contains(rest, ":"):
		return fmt.Errorf("%s: want host:port", quote(s))
	}
	return fmt.Errorf("%s has no port: write host:port", quote(s))
}

// parsePort takes decimal digits only: service names differ between machines.
func parsePort(s string, use addressUse) (uint16, error) {
	if s == "" {
		return 0, errors.New("there is no port after the colon")
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || (len(s) > 1 && s[0] == '0') {
		return 0, fmt.Errorf("port %s: want a number from 1 to 65535", quote(s))
	}
	if n == 0 && use == toDial {
		return 0, errors.New("port 0 cannot be dialled: want a number from 1 to 65535")
	}
	return uint16(n), nil
}

// parseHost returns the canonical form of an IP address or DNS name, as routes
// have it; an address to listen at may also have an IPv6 zone.
func parseHost(s string, use addressUse) (string, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() != "" && use == toListen {
		return ip.String(), nil
	}
	host, _, err := route.ParseAddress("tcp://" + net.JoinHostPort(s, "1"))
	if inner := errors.Unwrap(err); inner != nil {
		err = inner // without the port that stands in here
	}
	return host, err
}

// parseEndpoint reads where the admin server listens: the address of a
// loopback, or unix:///path.
func parseEndpoint(s string) (string, Address, error) {
	if strings.HasPrefix(s, unixScheme) {
		a, err := parseSocket(s)
		return a.String(), a, err
	}
	a, err := parseAddress(s, toListen)
	if err != nil {
		return "", Address{}, err
	}
	if !a.Loopback() {
		return "", Address{}, fmt.Errorf("%s can be reached from other machines, and the admin server asks for no password: write 127.0.0.1:%d or unix:///path", quote(s), a.Port)
	}
	return a.String(), a, nil
}

const unixScheme = "unix://"

// maxSocketPath is what fits into sun_path on macOS, the shortest of all.
const maxSocketPath = 103

// parseSocket reads unix:///path.
func parseSocket(s string) (Address, error) {
	path := strings.TrimPrefix(s, unixScheme)
	switch {
	case !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/"):
		return Address{}, fmt.Errorf("%s: want an absolute path: unix:///run/culvert/NAME.sock", quote(s))
	case len(path) > maxSocketPath:
		return Address{}, fmt.Errorf("the socket's path has %d characters: at most %d fit", len(path), maxSocketPath)
	case strings.ContainsRune(path, 0):
		return Address{}, fmt.Errorf("%s: a path holds no NUL", quote(s))
	}
	return Address{Path: path}, nil
}

// parsePlace reads where local clients connect: TCP, or unix:///path.
func parsePlace(s string) (Address, error) {
	if strings.HasPrefix(s, unixScheme) {
		return parseSocket(s)
	}
	return parseAddress(s, toListen)
}

// parseTarget reads what an outlet dials: TCP, tls://host:port, or unix:///path. It
// reports whether TLS is spoken there.
func parseTarget(s string) (a Address, tls bool, err error) {
	switch {
	case strings.HasPrefix(s, unixScheme):
		a, err = parseSocket(s)
		return a, false, err
	case strings.HasPrefix(s, tlsScheme):
		rest := strings.TrimPrefix(s, tlsScheme)
		if strings.Contains(rest, "://") {
			return Address{}, false, fmt.Errorf("%s: want tls://host:port", quote(s))
		}
		a, err = parseAddress(rest, toDial)
		return a, err == nil, err
	}
	a, err = parseAddress(s, toDial)
	return a, false, err
}

const tlsScheme = "tls://"
