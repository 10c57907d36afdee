package app

import (
	"context"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A client of a stream that is refused sees a reset, and both logs say why.
func TestRefusalsReachTheClientAsAReset(t *testing.T) {
	t.Parallel()
	_, stranger := newIdentity(t)
	silent := serveTCP(t, func(nc *net.TCPConn) { _, _ = io.Copy(io.Discard, nc) })
	tests := []struct {
		name, code string
		setup      setup
		reason     string // what the inlet's line says
	}{
		{"service unknown", "service_unknown", setup{service: "other"}, `no service "other"`},
		{"denied", "stream_denied", setup{outlet: func(c *config.Outlet) { c.Services[0].Allow = policy.List(stranger) }}, `is not allowed to use the service "echo"`},
		{"a stranger is not told what there is", "stream_denied", setup{service: "other", outlet: func(c *config.Outlet) { c.Services[0].Allow = policy.List(stranger) }}, `is not allowed to use the service "other"`},
		{"refused", "target_refused", setup{target: local(testenv.Port(t))}, `the target of "echo" refuses connections`},
		{"timeout", "target_timeout", setup{dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Nanosecond}).DialContext(ctx, "tcp", silent.String())
		}}, `the target of "echo" does not answer`},
		{"unreachable", "target_unreachable", setup{dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EHOSTUNREACH}
		}}, `the target of "echo" cannot be reached`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sys := startSystem(t, tt.setup)
			eventually(t, "ready", func() bool { ok, _ := sys.inlet.obs.Ready.Check(); return ok })
			wantRefused(t, sys.inlet.Addrs()[0])
			for side, log := range map[string]*logBuffer{"inlet": sys.inletLog, "outlet": sys.outletLog} {
				eventually(t, side+" logs the refusal", func() bool {
					return len(log.lines(t, map[string]string{"msg": "stream refused", "code": tt.code})) == 1
				})
			}
			// What to do about a denial is the outlet's operator's to know.
			for side, log := range map[string]*logBuffer{"inlet": sys.inletLog, "outlet": sys.outletLog} {
				line := log.lines(t, map[string]string{"msg": "stream refused"})[0]
				reason, _ := line["reason"].(string)
				if got, want := strings.Contains(reason, "under allow:"), tt.name == "denied" && side == "outlet"; got != want {
					t.Errorf("the %s's reason %q says what to do: %v, want %v", side, reason, got, want)
				}
			}
			line := sys.inletLog.lines(t, map[string]string{"msg": "stream refused"})[0]
			if got, _ := line["reason"].(string); !strings.Contains(got, tt.reason) {
				t.Errorf("inlet's reason %q, want it to hold %q", got, tt.reason)
			}
			if target := sys.outlet.cfg.Services[0].Target.String(); strings.Contains(sys.inletLog.text(), target) {
				t.Errorf("the inlet was told the target's address %s", target)
			}
			service := sys.inlet.cfg.Services[0].Service
			if got := metric(t, sys.inlet.obs, "culvert_inlet_streams_total", service, tt.code); got != 1 {
				t.Errorf("inlet's streams_total with code %s: %v, want 1", tt.code, got)
			}
		})
	}
}

// While there is no channel a client waits, and then gets a reset: the reason
// is in the log and in readiness.
func TestNoChannelEndsInAReset(t *testing.T) {
	t.Parallel()
	_, other := newIdentity(t)
	tests := []struct {
		name, code string
		setup      setup
		reason     string
		relayCode  string // in the relay's log; "": nothing
	}{
		{"relay is down", "unreachable", setup{inlet: func(c *config.Inlet) { c.Services[0].Routes[0] = withPort(c.Services[0].Routes[0], testenv.Port(t)) }}, "connection refused", ""},
		{"relay is another", "wrong_identity", setup{inlet: func(c *config.Inlet) { c.Services[0].Routes[0] = withIdentity(c.Services[0].Routes[0], other) }}, "peer proves to be", ""},
		{"outlet is not registered", "not_registered", setup{inlet: func(c *config.Inlet) { c.Services[0].Outlet = other }}, "is not registered here", "not_registered"},
		{"may not connect", "connect_denied", setup{relay: func(c *config.Relay) { c.Connect = nil }}, "is not allowed to connect at this relay", "connect_denied"},
		{"may not extend", "extend_denied", setup{inlet: func(c *config.Inlet) {
			c.Services[0].Routes[0] = append(c.Services[0].Routes[0][:1:1], route.Hop{Host: "127.0.0.1", Port: 1, Identifier: other})
		}}, "is not allowed to be carried on to 127.0.0.1:1 by this relay", "extend_denied"},
		{"a stranger may not be carried on", "extend_denied", setup{relay: func(c *config.Relay) {
			c.Connect, c.Register, c.Extend = nil, nil, config.Extend{To: []config.Address{local(1)}}
		}, inlet: func(c *config.Inlet) {
			c.Services[0].Routes[0] = append(c.Services[0].Routes[0][:1:1], route.Hop{Host: "127.0.0.1", Port: 1, Identifier: other})
		}}, "is not allowed to be carried on to 127.0.0.1:1 by this relay", "extend_denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inlet := tt.setup.inlet
			tt.setup.inlet = func(c *config.Inlet) {
				c.ConnectTimeout = 200 * time.Millisecond
				c.Services[0].Routes = []route.Route{c.Services[0].Routes[0]}
				if inlet != nil {
					inlet(c)
				}
			}
			sys := startSystem(t, tt.setup)
			eventually(t, "an attempt has failed, for the reason that the client's end is to have", func() bool {
				_, states := sys.inlet.obs.Ready.Check()
				return strings.Contains(states[0].Err.Error(), tt.reason)
			})
			began, watch := time.Now(), testenv.Start(t)
			wantRefused(t, sys.inlet.Addrs()[0])
			if all, took := time.Since(began), watch.Took(); all < 200*time.Millisecond || took > 3*time.Second {
				t.Errorf("the client was reset after %s, want the connect time-out, 200ms", all)
			}
			eventually(t, "the inlet logs the stream", func() bool {
				return len(sys.inletLog.lines(t, map[string]string{"msg": "stream refused", "code": tt.code})) == 1
			})
			if got := len(sys.inletLog.lines(t, map[string]string{"msg": "cannot reach the outlet, trying on", "code": tt.code, "level": "warn"})); got != 1 {
				t.Errorf("%d warnings about the channel, want 1 for all attempts", got)
			}
			ok, states := sys.inlet.obs.Ready.Check()
			if ok || states[0].Name != "service/echo" || !strings.Contains(states[0].Err.Error(), tt.reason) || !strings.Contains(states[0].Err.Error(), "no channel to "+sys.inlet.cfg.Services[0].Outlet.String()) {
				t.Errorf("ready %v %v, want it to name the outlet and %q", ok, states, tt.reason)
			}
			if tt.relayCode != "" {
				eventually(t, "the relay logs the refusal", func() bool {
					return len(sys.relayLog.lines(t, map[string]string{"msg": "request refused", "code": tt.relayCode, "level": "warn"})) == 1
				})
				line := sys.relayLog.lines(t, map[string]string{"msg": "request refused", "level": "warn"})[0]
				if got, _ := line["remedy"].(string); strings.Contains(got, "in this relay's settings") != strings.HasSuffix(tt.relayCode, "_denied") {
					t.Errorf("the relay's log says of %s what to do: %q", tt.relayCode, got)
				}
				if got := states[0].Err.Error(); strings.Contains(got, "settings") {
					t.Errorf("the inlet was told what is for the relay's operator: %q", got)
				}
				if got := metric(t, sys.relay.obs, "culvert_relay_refusals_total", tt.relayCode); got < 1 {
					t.Errorf("culvert_relay_refusals_total: %v, want at least 1", got)
				}
			}
		})
	}
}

func withPort(r route.Route, port int) route.Route {
	h := r[0]
	h.Port = uint16(port)
	return route.Route{h}
}

func withIdentity(r route.Route, id identity.Identifier) route.Route {
	h := r[0]
	h.Identifier = id
	return route.Route{h}
}

func TestRegisterDenied(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{relay: func(c *config.Relay) { c.Register = nil }})
	for side, log := range map[string]*logBuffer{"relay": sys.relayLog, "outlet": sys.outletLog} {
		eventually(t, side+" says register_denied", func() bool {
			return len(log.lines(t, map[string]string{"code": "register_denied", "level": "warn"})) == 1
		})
	}
	eventually(t, "the outlet is not ready and says why", func() bool {
		ok, states := sys.outlet.obs.Ready.Check()
		return !ok && states[0].Name == "relays" && strings.Contains(states[0].Err.Error(), "is not allowed to register at this relay")
	})
}
