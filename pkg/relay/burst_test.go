package relay

import (
	"context"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/route"
)

// Many more callers at once than an outlet parks conns are all joined, without
// a pause: what the outlet had no room for when it was asked is not lost.
func TestBurst(t *testing.T) {
	const callers = 80 // ten times what is spare
	// As long as a slow machine may take for all of them: they come together. What is
	// asked for only when the registration is renewed comes too late.
	const most = 4 * patience
	relay := startRelay(t, func(c *Config) {
		c.Limits.Waiting = callers
		c.Timing.Hold, c.Timing.Lease = most, 10*most
	})
	r := route.Route{relay.hop(t)}
	agent := startAgent(t, newLocal(t), r, func(c *AgentConfig) { c.MaxSpares = 8 })
	eventually(t, "the outlet is registered", func() bool { return len(relay.Status().Registrations) == 1 })
	d := &Dialer{Local: newLocal(t), DialTimeout: most, HandshakeTimeout: most, AnswerTimeout: most}
	start := time.Now()
	results := make(chan error, callers)
	for range callers {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), most)
			defer cancel()
			nc, err := d.Path(ctx, r, agent.local.Identifier(), nil, 0)
			if err == nil {
				nc.Close()
			}
			results <- err
		}()
	}
	failed := 0
	for range callers {
		if err := <-results; err != nil {
			failed++
			t.Log(err)
		}
	}
	t.Logf("%d callers joined in %v", callers-failed, time.Since(start))
	if failed > 0 {
		t.Errorf("%d of %d callers were not joined", failed, callers)
	}
}
