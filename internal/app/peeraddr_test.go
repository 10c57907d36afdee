package app

import (
	"net"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A target is told the peer's address where inlet and outlet agree on it, and none where
// a relay, or something that nobody has told them of, has made the connection to the
// outlet: that one's address would stand for all who come by it.
func TestProxyProtocolNamesNobodyElse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		known  bool
		routes func(t *testing.T, outlet net.Addr, id, inlet identity.Identifier) []route.Route
	}{
		{"straight", true, func(_ *testing.T, outlet net.Addr, id, _ identity.Identifier) []route.Route {
			return []route.Route{routeTo(outlet, id)}
		}},
		{"carried on by a relay", false, func(t *testing.T, outlet net.Addr, id, inlet identity.Identifier) []route.Route {
			return []route.Route{append(extendingRelay(t, outlet, inlet), routeTo(outlet, id)...)}
		}},
		{"behind a balancer", false, func(t *testing.T, outlet net.Addr, id, _ identity.Identifier) []route.Route {
			return []route.Route{routeTo(newWire(t, outlet).ln.Addr(), id)}
		}},
	} {
		for _, version := range []int{1, 2} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				header := proxiedBy(t, version, tt.routes)
				switch source := header.SourceAddr; {
				case !tt.known && (source != nil || header.TransportProtocol != proxyproto.UNSPEC):
					t.Errorf("version %d names %v, which is nobody's who calls", version, source)
				case !tt.known && version == 2 && header.Command != proxyproto.LOCAL:
					t.Errorf("the command is %v, want LOCAL", header.Command)
				case tt.known && (source == nil || !source.(*net.TCPAddr).IP.IsLoopback()):
					t.Errorf("version %d names %v, want the inlet's own address", version, source)
				}
			})
		}
	}
}

// proxiedBy returns the header that a target is sent for a stream of an inlet with these
// routes to an outlet that listens.
func proxiedBy(t *testing.T, version int, routes func(t *testing.T, outlet net.Addr, id, inlet identity.Identifier) []route.Route) *proxyproto.Header {
	t.Helper()
	addr, told := serveProxied(t)
	outletKey, outletID := newIdentity(t)
	inletKey, inletID := newIdentity(t)
	out, _, _ := startOutlet(t, config.Outlet{
		Common: config.Common{Identity: outletKey, DrainTimeout: time.Second}, Listen: []config.Address{local(0)},
		Services: []config.OutletService{{Name: "echo", Target: addr, Allow: policy.List(inletID), ProxyProtocol: version}},
	})
	in, _, _ := startInlet(t, config.Inlet{
		Common:         config.Common{Identity: inletKey, DrainTimeout: time.Second},
		Services:       []config.InletService{{Listen: local(0), Service: "echo", Outlet: outletID, Routes: routes(t, out.Addrs()[0], outletID, inletID)}},
		ConnectTimeout: patience,
	})
	wantEcho(t, dialTCP(t, in.Addrs()[0]), "hello")
	return (<-told).header
}

// extendingRelay starts a relay that carries the inlet on to an address, and returns the
// route to it.
func extendingRelay(t *testing.T, to net.Addr, inlet identity.Identifier) route.Route {
	t.Helper()
	key, id := newIdentity(t)
	r, _, _ := startRelay(t, config.Relay{
		Common: config.Common{Identity: key, DrainTimeout: time.Second}, Listen: []config.Address{local(0)},
		Connect: policy.List(inlet), Extend: config.Extend{To: []config.Address{local(portOf(to))}},
	})
	return routeTo(r.Addrs()[0], id)
}
