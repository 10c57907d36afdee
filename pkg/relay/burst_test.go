package relay

import (
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/route"
)

// Many more callers at once than an outlet parks conns are all joined, without
// a pause: what the outlet had no room for when it was asked is not lost.
func TestBurst(t *testing.T) {
	const callers = 80 // ten times what is spare
	relay := startRelay(t, func(c *Config) { c.Limits.Waiting = callers })
	r := route.Route{relay.hop(t)}
	agent := startAgent(t, newLocal(t), r, func(c *AgentConfig) { c.MaxSpares = 8 })
	eventually(t, "the outlet is registered", func() bool { return len(relay.Status().Registrations) == 1 })
	d := &Dialer{Local: newLocal(t)}
	start := time.Now()
	var results []<-chan result
	for range callers {
		results = append(results, later(d, r, agent.local.Identifier()))
	}
	failed := 0
	for _, ch := range results {
		res := <-ch
		if res.err != nil {
			failed++
			t.Log(res.err)
			continue
		}
		res.nc.Close()
	}
	t.Logf("%d callers joined in %v", callers-failed, time.Since(start))
	if failed > 0 {
		t.Errorf("%d of %d callers were not joined", failed, callers)
	}
}
