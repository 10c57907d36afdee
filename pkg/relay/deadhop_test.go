package relay

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/route"
)

// A next hop whose first address swallows what is sent to it is reached by its
// second, with everybody's times as they are by default: the relay gives the
// dial up while the caller still waits for its answer.
func TestNextHopSwallows(t *testing.T) {
	last := startRelayOn(t, listen(t, "127.0.0.2:0"), newLocal(t))
	var dns hosts
	dns.set("last", "127.0.0.3", "127.0.0.2")
	hop := last.hop(t, "last")
	near := startRelay(t, func(c *Config) {
		c.LookupHost = dns.lookup
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "127.0.0.3:") {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	outlet := newLocal(t)
	for { // one whose callers try the dead address first
		order, err := resolve(context.Background(), dns.lookup, hop.Host, hop.Port, outlet.Identifier())
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(order[0], "127.0.0.3:") {
			break
		}
		outlet = newLocal(t)
	}
	agent := startAgent(t, outlet, route.Route{last.hop(t)})
	agent.log.await(t, 1, "registered at")
	nc := path(t, &Dialer{Local: newLocal(t)}, route.Route{near.hop(t), hop}, outlet.Identifier(), nil)
	carries(t, nc, "hello")
}

// A caller waits longer for its answer than a relay takes to look a host up and
// to dial, so that it hears which hop it was that failed.
func TestAnswerOutlastsDial(t *testing.T) {
	relay := Timing{}.withDefaults()
	caller := (&Dialer{}).withDefaults()
	if took := lookupTime + max(relay.Dial, MaxDial); took >= caller.AnswerTimeout {
		t.Errorf("a relay may take %v to extend, a caller waits %v for it", took, caller.AnswerTimeout)
	}
	if took := relay.Hold + relay.Going; took >= caller.AnswerTimeout {
		t.Errorf("a relay may take %v to connect, a caller waits %v for it", took, caller.AnswerTimeout)
	}
	if err := (Config{Local: newLocal(t), Timing: Timing{Dial: MaxDial + 1}}).check(); err == nil {
		t.Error("a relay may dial for longer than callers wait")
	}
}
