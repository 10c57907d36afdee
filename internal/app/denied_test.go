package app

import (
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A relay that is started with a wrong list says for a while that nobody may connect.
// That is its word alone: the streams wait for the grace time, and go on when it has
// been put right.
func TestRelayDeniesByMistake(t *testing.T) {
	t.Parallel()
	relayKey, relayID := newIdentity(t)
	port := testenv.Port(t)
	var right config.Relay
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) {
			c.Identity, c.Listen, c.DrainTimeout = relayKey, []config.Address{local(port)}, time.Millisecond
			right = *c
		}, outlet: func(c *config.Outlet) { c.Relays = []route.Route{withIdentity(c.Relays[0], relayID)} },
		inlet: func(c *config.Inlet) {
			c.Services[0].Routes = []route.Route{withIdentity(c.Services[0].Routes[0], relayID)}
			c.ConnectTimeout = patience
		},
	})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	sys.stopRelay()
	wrong := right
	wrong.Connect = policy.List(relayID)
	_, _, stop := startRelay(t, wrong)
	began := time.Now()
	eventually(t, "the inlet has been denied for some seconds", func() bool {
		return metric(t, sys.inlet.obs, "culvert_inlet_connects_total", "connect_denied") >= 5 && time.Since(began) > 2*deniedTime
	})
	stop()
	startRelay(t, right)
	wantEcho(t, nc, "still here")
}
