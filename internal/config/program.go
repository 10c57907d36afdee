package config

import (
	"errors"
	"strings"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// Programs that have Culvert inside make their settings themselves, in the place of a
// file. What follows holds them to what a file is held to.

// Hold makes id the identity, in the place of a file's.
func (c *Common) Hold(id *identity.Identity) { c.held = id }

// Held returns the identity of Hold; nil where it is in the file Identity.
func (c *Common) Held() *identity.Identity { return c.held }

// Call has faults name settings as the program that has made them does: names has, for
// the first word of a key path, the program's own. It is read from then on.
func (c *Common) Call(names map[string]string) { c.names = names }

// called returns a key path as whoever has made the settings calls it.
func (c *Common) called(key string) string {
	first, rest := key, ""
	if i := strings.IndexAny(key, ".["); i >= 0 {
		first, rest = key[:i], key[i:]
	}
	if name, ok := c.names[first]; ok {
		return name + rest
	}
	return key
}

// CheckService says why no service has that name, or returns nil.
func CheckService(name string) error {
	if name == "" {
		return errors.New("it has no name")
	}
	return serviceName(name)
}

// ParseListen reads an address to listen at: "host:port" or "tcp://host:port".
func ParseListen(text string) (Address, error) { return parseAddress(text, toListen) }

// CheckRoute says why a route cannot lead to an outlet, or returns nil.
func CheckRoute(r route.Route, outlet identity.Identifier) error { return endsAt(r, outlet) }

// TicketRoutes returns the routes in a ticket.
func TicketRoutes(t credential.Ticket) ([]route.Route, error) { return ticketRoutes(t) }
