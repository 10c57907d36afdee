package node

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// Bounds of addresses and routes.
const (
	MaxAddress = 255 // bytes of one address
	MaxRoute   = 16  // addresses of one route
)

// own begins the addresses that nodes give themselves: of links, channels and
// whoever waits for an answer. They are random and 128 bits wide: who has one was
// written to from there. Conns that take each other's place have the same one.
const own = "~"

// An Address is a place that messages go to: a worker's name, of 1 to 255 letters,
// digits, and any of . _ - : beside them; or a transport to another node, as
// tcp://HOST:PORT or unix:///PATH. A name that begins with ~ is a node's own.
type Address string

// transport returns the network and address to dial of a transport's address, or ""
// of a worker's.
func (a Address) transport() (network, address string) {
	scheme, rest, ok := strings.Cut(string(a), "://")
	if !ok {
		return "", ""
	}
	return scheme, rest
}

// isTransport reports whether a leads to another node by itself.
func (a Address) isTransport() bool { return strings.Contains(string(a), "://") }

// Check returns why a is no address.
func (a Address) Check() error {
	switch {
	case a == "":
		return errors.New("an address is empty: it is a worker's name, tcp://HOST:PORT or unix:///PATH")
	case len(a) > MaxAddress:
		return fmt.Errorf("an address has %d bytes, and may have %d", len(a), MaxAddress)
	}
	network, rest := a.transport()
	switch network {
	case "":
		return checkName(string(a))
	case "tcp":
		if _, _, err := route.ParseAddress(string(a)); err != nil {
			return fmt.Errorf("address %s: %w", quoted(a), err)
		}
		return nil
	case "unix":
		if !strings.HasPrefix(rest, "/") || strings.ContainsAny(rest, ",\x00") {
			return fmt.Errorf("address %s: write unix:/// and an absolute path without a comma", quoted(a))
		}
		return nil
	}
	return fmt.Errorf("address %s: the transports are tcp:// and unix://", quoted(a))
}

func checkName(name string) error {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-', c == ':':
		case c == own[0] && i == 0:
		default:
			return fmt.Errorf("address %s: a worker's name has letters, digits, and . _ - : beside them", quoted(Address(name)))
		}
	}
	return nil
}

// checkChosen is Check for names that a program gives.
func (a Address) checkChosen() error {
	if err := a.Check(); err != nil {
		return err
	}
	if a.isTransport() || strings.HasPrefix(string(a), own) {
		return fmt.Errorf("address %s: choose a name that does not begin with %s and is no transport's", quoted(a), own)
	}
	return nil
}

func quoted(a Address) string { return strconv.Quote(code.Printable(string(a))) }

// Addr returns the transport's address that leads to where ln listens, of TCP or at the
// absolute path of a Unix socket. Of one that listens on all addresses (0.0.0.0, [::])
// others do not get there by it: they need the host's.
func Addr(ln net.Listener) Address {
	return Address(ln.Addr().Network() + "://" + ln.Addr().String())
}

// A Route is a list of addresses, the next one first. Routes are values that are
// shared: nobody changes one.
type Route []Address

// ParseRoute reads addresses joined by commas, as [Route.String] prints them.
func ParseRoute(s string) (Route, error) {
	parts := strings.SplitN(s, ",", MaxRoute+1)
	r := make(Route, len(parts))
	for i, p := range parts {
		r[i] = Address(strings.TrimSpace(p))
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	return r, nil
}

// Check returns why r is no route to send to.
func (r Route) Check() error {
	switch {
	case len(r) == 0:
		return errors.New("a route is empty")
	case len(r) > MaxRoute:
		return fmt.Errorf("a route has more than %d addresses", MaxRoute)
	}
	for _, a := range r {
		if err := a.Check(); err != nil {
			return err
		}
	}
	return nil
}

// String returns the addresses joined by commas.
func (r Route) String() string {
	texts := make([]string, len(r))
	for i, a := range r {
		texts[i] = string(a)
	}
	return strings.Join(texts, ",")
}

// Then returns r and then more, as a route of its own.
func (r Route) Then(more ...Address) Route { return slices.Concat(r, Route(more)) }

// with returns r behind a.
func (r Route) with(a Address) Route {
	return append(append(make(Route, 0, len(r)+1), a), r...)
}
