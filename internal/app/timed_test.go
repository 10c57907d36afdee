package app

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/policy"
)

// Policies that look at the time are told from those that do not.
func TestTimed(t *testing.T) {
	const always, hours = `peer.id != ""`, `now.getHours() < 18`
	for _, tt := range []struct {
		register, connect, extend string
		want                      bool
	}{
		{always, always, "", false},
		{always, always, `to != ""`, false},
		{hours, always, "", true},
		{always, hours, "", true},
		{always, always, `to != "" && ` + hours, true},
	} {
		cfg := config.Relay{Register: mustCompile(t, policy.Register, tt.register), Connect: mustCompile(t, policy.Connect, tt.connect)}
		if tt.extend != "" {
			cfg.Extend.Allow = mustCompile(t, policy.Extend, tt.extend)
		}
		p, err := NewRelayPolicy(&cfg)
		if err != nil || p.timed() != tt.want {
			t.Errorf("%+v: timed is %t, %v", tt, p.timed(), err)
		}
	}
	for _, second := range []string{always, hours} {
		p := NewOutletPolicy([]config.OutletService{
			{Name: "a", Allow: policy.List(id(1))}, {Name: "b", Allow: mustCompile(t, policy.Open, second)},
		})
		if got := p.timed(); got != (second == hours) {
			t.Errorf("%s: timed is %t", second, got)
		}
	}
}

// What was let in while the time allowed it ends when the time does not any more,
// without any authority.
func TestTimeCuts(t *testing.T) {
	t.Parallel()
	const often = 100 * time.Millisecond // in the place of a minute
	for _, tt := range []struct {
		name   string
		until  func(s *setup, expression string)
		log    func(*system) *logBuffer
		expect map[string]string
	}{
		{"outlet", func(s *setup, expression string) {
			s.outlet = func(c *config.Outlet) { c.Services[0].Allow = mustCompile(t, policy.Open, expression) }
		}, func(sys *system) *logBuffer { return sys.outletLog }, map[string]string{"msg": "stream is cut", "code": "stream_denied"}},
		{"relay's joins", func(s *setup, expression string) {
			s.relay = func(c *config.Relay) { c.Connect = mustCompile(t, policy.Connect, expression) }
		}, func(sys *system) *logBuffer { return sys.relayLog }, map[string]string{"msg": "join ended", "code": "connect_denied"}},
		{"relay's registrations", func(s *setup, expression string) {
			s.relay = func(c *config.Relay) { c.Register = mustCompile(t, policy.Register, expression) }
		}, func(sys *system) *logBuffer { return sys.relayLog }, map[string]string{"msg": "outlet unregistered", "code": "register_denied"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sys := openedInTime(t, func(s *setup, expression string) {
				tt.until(s, expression)
				s.before = func(out *Outlet) { out.trust.every = often }
				s.beforeRelay = func(r *Relay) { r.trust.every = often }
			})
			eventually(t, "it is cut when its time is over", func() bool { return len(tt.log(sys).lines(t, tt.expect)) > 0 })
		})
	}
}

// openedInTime returns a system with a stream that a policy has let in which ends a
// while after the start: a longer one where the machine was too slow for that.
func openedInTime(t *testing.T, until func(s *setup, expression string)) *system {
	t.Helper()
	for allowed := 2 * time.Second; ; allowed *= 2 {
		var s setup
		end := time.Now().Add(allowed)
		s.inlet = func(c *config.Inlet) { c.ConnectTimeout = allowed } // for nothing, when the time is over
		until(&s, fmt.Sprintf("now < timestamp(%q)", end.UTC().Format(time.RFC3339Nano)))
		sys := startSystem(t, s)
		nc := sys.dial(t)
		if echoes(nc) {
			return sys
		}
		if time.Now().Before(end) || allowed > time.Minute {
			t.Fatal("no stream, though there was time")
		}
	}
}

// echoes reports whether what is sent comes back.
func echoes(nc net.Conn) bool {
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write([]byte("x")); err != nil {
		return false
	}
	n, err := nc.Read(make([]byte, 1))
	return n == 1 && err == nil
}
