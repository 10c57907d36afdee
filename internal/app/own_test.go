package app

import (
	"errors"
	"slices"
	"testing"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/sandbox"
	"github.com/culvert-net/culvert/pkg/route"
)

// Every host that settings have looked up is seen, wherever it stands.
func TestFilesNameHosts(t *testing.T) {
	way := func(host string) []route.Route { return []route.Route{{{Host: host, Port: 1, Identifier: id(1)}}} }
	inlet := func(change func(c *config.Inlet)) sandbox.Files {
		c := &config.Inlet{Services: []config.InletService{{Listen: local(1), Service: "db", Outlet: id(1), Routes: way("192.0.2.1")}}}
		change(c)
		return inletFiles(c)
	}
	outlet := func(change func(c *config.Outlet)) sandbox.Files {
		c := &config.Outlet{Relays: way("192.0.2.1"), Services: []config.OutletService{{Name: "db", Target: local(1)}}}
		change(c)
		return outletFiles(c)
	}
	for name, tt := range map[string]struct {
		files sandbox.Files
		names bool
	}{
		"inlet":                          {inlet(func(*config.Inlet) {}), false},
		"inlet's route":                  {inlet(func(c *config.Inlet) { c.Services[0].Routes = way("relay.example") }), true},
		"inlet's collector":              {inlet(func(c *config.Inlet) { c.Tracing.Endpoint = "https://collector:4318/v1/traces" }), true},
		"inlet's collector, an address":  {inlet(func(c *config.Inlet) { c.Tracing.Endpoint = "https://[2001:db8::1]:4318/v1/traces" }), false},
		"inlet's collector, here":        {inlet(func(c *config.Inlet) { c.Tracing.Endpoint = "http://localhost:4318/v1/traces" }), false},
		"outlet":                         {outlet(func(*config.Outlet) {}), false},
		"outlet's relay":                 {outlet(func(c *config.Outlet) { c.Relays = way("relay.example") }), true},
		"outlet's target":                {outlet(func(c *config.Outlet) { c.Services[0].Target.Host = "db.example" }), true},
		"outlet's collector":             {outlet(func(c *config.Outlet) { c.Tracing.Endpoint = "https://collector:4318/v1/traces" }), true},
		"outlet's collector, an address": {outlet(func(c *config.Outlet) { c.Tracing.Endpoint = "http://192.0.2.1:4318/v1/traces" }), false},
		"relay":                          {relayFiles(&config.Relay{Extend: config.Extend{To: []config.Address{local(1)}}}), false},
		"relay's next":                   {relayFiles(&config.Relay{Extend: config.Extend{To: []config.Address{{Host: "relay.example", Port: 1}}}}), true},
	} {
		if tt.files.Names != tt.names {
			t.Errorf("%s: looks up names %v, want %v", name, tt.files.Names, tt.names)
		}
	}
}

// Hosts that a file names anew are looked up, and the log says that they will not be for
// ever, where this process cannot read what takes the place of the resolver's settings.
func TestReloadNamesHosts(t *testing.T) {
	for _, tt := range []struct {
		name               string
		confined, resolves bool
		want               bool
	}{
		{"not confined", false, false, false},
		{"confined, and names are looked up", true, true, false},
		{"confined", true, false, true},
	} {
		o, log := newObs(t, "inlet")
		b := &base{log: o.Log, member: &membership{}, confined: tt.confined, resolves: tt.resolves}
		var applied int
		var failure error
		revise := func(names bool) *revision {
			return b.revise([]string{"grace"}, &config.Trust{}, &config.Trust{}, sandbox.Files{Names: names}, func() error { applied++; return failure })
		}
		if rev := revise(false); !slices.Equal(rev.restart, []string{"grace"}) {
			t.Errorf("%s: without a name %q need a restart", tt.name, rev.restart)
		}
		rev := revise(true)
		if slices.Contains(rev.restart, "sandbox") != tt.want || rev.restart[0] != "grace" {
			t.Errorf("%s: %q need a restart", tt.name, rev.restart)
		}
		warnings := func() int { return len(log.lines(t, map[string]string{"level": "warn"})) }
		failure = errShutdown
		if err := rev.apply(); !errors.Is(err, failure) || warnings() > 0 {
			t.Errorf("%s: %v, %d warnings, of settings that do not hold", tt.name, err, warnings())
		}
		failure = nil
		if err := rev.apply(); err != nil || applied != 2 || (warnings() == 1) != tt.want {
			t.Errorf("%s: applied %d times, %v, %d warnings", tt.name, applied, err, warnings())
		}
	}
}
