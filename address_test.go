package culvert

import (
	"strings"
	"testing"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Whatever is dialled is the name of a service or an error, and what is shown of it
// does nothing to a terminal.
func FuzzServiceOf(f *testing.F) {
	for _, s := range []string{"orders", "orders:80", "orders:", ":80", "[::1]:80", "a:b:c", "\x1b[2J:1", "ORDERS:1", "orders.example:443", strings.Repeat("a", 64)} {
		f.Add("tcp", s)
	}
	f.Add("udp", "orders")
	all := ways{"": config.InletService{Outlet: identity.Identifier{1}}}
	f.Fuzz(func(t *testing.T, network, address string) {
		service, err := serviceOf(network, address)
		if err == nil {
			_, err = all.to(service)
		}
		if err == nil {
			if config.CheckService(service) != nil || !strings.HasPrefix(address, service) {
				t.Errorf("%q %q is the service %q", network, address, service)
			}
			return
		}
		if _, unknown := err.(interface{ Timeout() bool }); unknown {
			return // the network's name, as package net shows it
		}
		// The replacement character is what Printable replaces, too, and does no harm.
		if text := strings.ReplaceAll(err.Error(), "\uFFFD", "?"); code.Printable(text) != text {
			t.Errorf("%q: the error is %q", address, text)
		}
	})
}
