package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// common reads the settings that all kinds have.
func (s *section) common() (c Common) {
	s.read("identity", func(text string) error {
		c.Identity = resolve(text, s.origins["identity"])
		return nil
	})
	s.need("identity", "name the private identity file (identity: FILE or --identity FILE); \"culvert identity new -o FILE\" makes one")
	s.read("state", func(text string) error {
		c.State = resolve(text, s.origins["state"])
		return nil
	})
	c.Metrics = s.listenAddress("metrics")
	s.numberIsText("admin")
	s.read("admin", func(text string) error {
		endpoint, a, err := parseEndpoint(text)
		c.Admin = endpoint
		s.listen(a, s.origins["admin"], "admin")
		return err
	})
	c.DrainTimeout = s.duration("drain_timeout", MinTimeout, MaxTimeout)
	c.Keepalive = s.duration("keepalive", MinKeepalive, MaxKeepalive)
	c.ClockSkew = s.duration("clock_skew", MinSkew, MaxSkew)
	c.LogFormat = s.choice("log_format", "console", "json")
	c.LogLevel = s.choice("log_level", "debug", "info", "warn", "error")
	s.read("audit", func(text string) error {
		if c.Audit = text; text != AuditStdout && text != AuditStderr {
			c.Audit = resolve(text, s.origins["audit"])
		}
		return nil
	})
	c.AuditFailure = s.choice("audit_failure", AuditContinue, AuditDeny)
	c.Sandbox = s.choice("sandbox", SandboxOn, SandboxOff)
	if s.has("audit_failure") && !s.has("audit") {
		s.fault(s.origins["audit_failure"], "audit_failure", "there is no audit log that could fail: say where it goes (audit: FILE, stdout or stderr, or --audit)")
	}
	return c
}

// channels reads the settings that inlets and outlets have.
func (s *section) channels() (c Channels) {
	s.read("name", func(text string) error {
		c.Name = text
		return identity.CheckName(text)
	})
	c.Grace = s.duration("grace", time.Second, MaxGrace)
	if c.Buffers = s.size("buffers"); c.Buffers != 0 && c.Buffers < MinBuffers {
		s.fault(s.origins[join(s.path, "buffers")], "buffers", "want at least 1MiB")
	}
	return c
}

// inlet reads an inlet's settings.
func (d *decoder) inlet(root *value) *Inlet {
	s := d.section(root, "")
	s.hints = hintsFor(KindInlet)
	s.hints["limits"] = "it is a key of the commands outlet and relay; an inlet's services have limits of their own"
	c := &Inlet{Common: s.common(), Channels: s.channels(), Trust: s.trust()}
	c.ConnectTimeout = s.duration("connect_timeout", MinTimeout, MaxTimeout)
	c.Rekey = s.duration("rekey", MinRekey, MaxRekey)
	c.Tracing = s.tracing()
	for _, v := range s.sections("services", "say what to listen at and where to carry it (services: in a file, or --listen, --service, --outlet and --route)") {
		c.Services = append(c.Services, d.inletService(v.v, v.path, s.trusts()))
	}
	s.finish()
	c.origins, c.file, c.info = d.origins, d.file, d.info
	c.SetDefaults()
	return c
}

// trusts reports whether credentials count here, or may: those of the authority
// that the folder state knows do, once there is one.
func (s *section) trusts() bool {
	return slices.ContainsFunc([]string{"authorities", "authority", "ticket", "ticket_file", "kubernetes_token", "state"}, s.has)
}

// inletService reads an item of services. Where no credentials count, nobody can
// prove a service's name.
func (d *decoder) inletService(v *value, path string, byName bool) (c InletService) {
	s := d.section(v, path)
	s.synonyms = map[string]string{"name": "service", "relay": "routes", "relays": "routes", "address": "listen"}
	s.hints = map[string]string{
		"target": "the target is written in the outlet's file",
		"allow":  "who may use the service is written in the outlet's file",
	}
	s.need("listen", "say where to accept connections (listen: 127.0.0.1:PORT or --listen)")
	c.Listen = s.listenPlace("listen")
	c.ListenMode = s.listenMode("listen_mode", c.Listen)
	s.need("service", "name the service as its outlet does (service: NAME or --service)")
	s.read("service", func(text string) error {
		c.Service = text
		return serviceName(text)
	})
	if !byName {
		s.need("outlet", "say whose the service is (outlet: IDENTIFIER or --outlet); "+
			"or, to take it from any outlet whose credential says that it offers the service, whose credentials count (authorities: [IDENTIFIER] or --authority, or a ticket)")
	}
	c.Outlet = s.identifier("outlet")
	s.need("routes", "say how to get there (routes: [tcp://host:port/IDENTIFIER] or --route); the outlet's own address, if it listens, is a route too")
	c.Routes = s.routes("routes", func(r route.Route) error { return endsAt(r, c.Outlet) })
	s.notEmpty("routes", "write at least one route")
	c.Limits = s.serviceLimits("limits")
	s.finish()
	return c
}

// endsAt refuses a route that goes on behind the outlet.
func endsAt(r route.Route, outlet identity.Identifier) error {
	for i, hop := range r[:len(r)-1] {
		if hop.Identifier == outlet {
			return fmt.Errorf("hop %d is the outlet itself, so nothing can come after it: end the route there", i+1)
		}
	}
	return nil
}

// outlet reads an outlet's settings.
func (d *decoder) outlet(root *value) *Outlet {
	s := d.section(root, "")
	s.hints = hintsFor(KindOutlet)
	s.synonyms = map[string]string{"routes": "relays", "register": "relays"}
	c := &Outlet{Common: s.common(), Channels: s.channels(), Trust: s.trust()}
	c.Relays = s.routes("relays", nil)
	c.Listen = s.listenAddresses("listen")
	if len(s.items("relays"))+len(s.items("listen")) == 0 && s.v.shape == shapeMap {
		s.need("relays", "say where inlets can reach this outlet (relays: [tcp://host:port/IDENTIFIER] or --relay; or listen: to accept them directly)")
		s.notEmpty("relays", "nothing could reach this outlet: write a relay's route, or an address in listen")
	}
	c.DialTimeout = s.duration("dial_timeout", MinTimeout, MaxTimeout)
	if v := s.get("limits"); v != nil {
		c.Limits = d.outletLimits(v)
	}
	c.Tracing = s.tracing()
	names := map[string]Origin{}
	for _, v := range s.sections("services", "say what to offer (services: in a file, or --service NAME=HOST:PORT and --allow IDENTIFIER)") {
		service := d.outletService(v.v, v.path)
		c.Services = append(c.Services, service)
		d.unique(names, service.Name, join(v.path, "name"))
	}
	s.finish()
	c.origins, c.file, c.info = d.origins, d.file, d.info
	c.SetDefaults()
	return c
}

// outletLimits reads an outlet's limits.
func (d *decoder) outletLimits(v *value) OutletLimits {
	s := d.section(v, "limits")
	s.hints = map[string]string{}
	for _, key := range []string{"handshakes_in_flight", "connections_per_identity", "registrations_per_identity", "waiting_callers"} {
		s.hints[key] = "it is a limit of the command relay"
	}
	for _, key := range []string{"connections", "idle_timeout", "bytes_per_second"} {
		s.hints[key] = "it is a limit of a service: write it under limits of an item of services"
	}
	l := OutletLimits{HandshakesPerSecond: s.count("handshakes_per_second")}
	s.finish()
	return l
}

// unique reports a service name that an earlier service has.
func (d *decoder) unique(names map[string]Origin, name, path string) {
	if name == "" {
		return
	}
	at := d.origins[path]
	if first, ok := names[name]; ok {
		d.fault(at, path, "another service has the name %q already (%s): choose another", name, first)
		return
	}
	names[name] = at
}

func (d *decoder) outletService(v *value, path string) (c OutletService) {
	s := d.section(v, path)
	s.synonyms = map[string]string{"service": "name", "address": "target"}
	s.hints = map[string]string{
		"listen": "where to accept clients is written in the inlet's file",
		"outlet": "this key belongs in the inlet's file",
		"routes": "this key belongs in the inlet's file",
	}
	s.need("name", "name the service, as inlets will ask for it (name: NAME)")
	s.read("name", func(text string) error {
		c.Name = text
		return serviceName(text)
	})
	s.need("target", "say what to dial (target: tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH)")
	s.target(&c)
	s.need("allow", "nobody could use the service: list the identifiers of the inlets that may (allow: [IDENTIFIER] or --allow)")
	c.Allow = s.policy("allow", policy.Open)
	s.proxyProtocol(&c)
	c.Limits = s.serviceLimits("limits")
	s.finish()
	return c
}

// relay reads a relay's settings.
func (d *decoder) relay(root *value) *Relay {
	s := d.section(root, "")
	s.hints = hintsFor(KindRelay)
	s.hints["services"] = "it is a key of the commands inlet and outlet"
	s.hints[tracingSection] = "a relay sees no connections that it could trace: it is a key of the commands inlet and outlet"
	c := &Relay{Common: s.common(), Trust: s.trust()}
	s.need("listen", "say where to accept callers (listen: [tcp://0.0.0.0:4000] or --listen)")
	c.Listen = s.listenAddresses("listen")
	s.notEmpty("listen", "write at least one address")
	c.Register = s.policy("register", policy.Register)
	c.Connect = s.policy("connect", policy.Connect)
	c.Extend = s.extend("extend")
	s.servesSomebody()
	c.DialTimeout = s.duration("dial_timeout", MinTimeout, MaxRelayDial)
	if v := s.get("limits"); v != nil {
		c.Limits = d.limits(v)
	}
	s.finish()
	c.origins, c.file, c.info = d.origins, d.file, d.info
	c.SetDefaults()
	return c
}

// servesSomebody reports a relay that lets nobody do anything: without a
// policy, or with addresses to be carried on to and nobody who may be. Lists that
// are there and empty say that nobody is meant.
func (s *section) servesSomebody() {
	if s.v.shape != shapeMap {
		return
	}
	switch {
	case !s.has("register") && !s.has("connect") && !s.has("extend"):
		s.need("register", "this relay would serve nobody: say who may offer an outlet (register: or --register) and who may connect to one or be carried on (connect: or --connect)")
	case s.addressesAlone("extend") && s.nobody("register") && s.nobody("connect"):
		s.fault(s.origins["extend"], "extend", "nobody could be carried on: that is for those who may connect or register here, so list the callers (connect: or --connect) or the outlets (register: or --register)")
	}
}

// limits reads a relay's limits.
func (d *decoder) limits(v *value) Limits {
	s := d.section(v, "limits")
	l := Limits{
		HandshakesPerSecond:      s.count("handshakes_per_second"),
		HandshakesInFlight:       s.count("handshakes_in_flight"),
		Connections:              s.count("connections"),
		ConnectionsPerIdentity:   s.count("connections_per_identity"),
		RegistrationsPerIdentity: s.count("registrations_per_identity"),
		WaitingCallers:           s.count("waiting_callers"),
		BytesPerSecond:           s.size("bytes_per_second"),
	}
	if n := l.BytesPerSecond; n > 0 && n < MinRate {
		s.fault(s.v.get("bytes_per_second").value.at, "limits.bytes_per_second",
			"%d is less than a handshake needs: want at least %d, or leave it out for no limit", n, MinRate)
	}
	s.finish()
	return l
}

// A sectionAt is an item of a list of sections, with its key path.
type sectionAt struct {
	v    *value
	path string
}

// sections returns the items of a list of sections, which must be there; what
// says what to write.
func (s *section) sections(key, what string) (list []sectionAt) {
	s.need(key, what)
	v := s.get(key)
	if v == nil {
		return nil
	}
	if v.shape != shapeList {
		s.fault(v.at, key, "want a list, not %s: begin each service with a dash", v.shape)
		return nil
	}
	s.notEmpty(key, what)
	for i, item := range v.items {
		list = append(list, sectionAt{item, fmt.Sprintf("%s[%d]", key, i)})
	}
	return list
}

// items returns the items of a list, if the key has one.
func (s *section) items(key string) []*value {
	if e := s.v.get(key); e != nil {
		return e.value.items
	}
	return nil
}

// nobody reports whether the key is not there, or is an empty list.
func (s *section) nobody(key string) bool {
	e := s.v.get(key)
	return e == nil || e.value.shape == shapeList && len(e.value.items) == 0
}

// addressesAlone reports whether extend says where callers are carried on to,
// and leaves who to the other policies.
func (s *section) addressesAlone(key string) bool {
	e := s.v.get(key)
	if e != nil && e.value.shape == shapeMap {
		return e.value.get("allow") == nil
	}
	return len(s.items(key)) > 0
}

// notEmpty reports a list that is there and has no items.
func (s *section) notEmpty(key, what string) {
	if e := s.v.get(key); e != nil && e.value.shape == shapeList && len(e.value.items) == 0 {
		s.fault(e.value.at, join(s.path, key), "is empty: %s", what)
	}
}

// hintsFor says, for keys of other kinds' files, where they belong.
func hintsFor(kind Kind) map[string]string {
	hints := map[string]string{}
	for _, other := range kinds {
		for _, key := range other.top {
			if other.kind != kind && !slices.Contains(kindInfo(kind).top, key) {
				hints[key] = fmt.Sprintf("it is a key of the command %s", other.kind.Command())
			}
		}
		if other.kind == kind {
			for _, key := range other.service {
				if !slices.Contains(other.top, key) {
					hints[key] = "this key belongs to an item of services"
				}
			}
		}
	}
	return hints
}

// parseRoute adds to route.Parse where a missing identifier comes from.
func parseRoute(text string) (route.Route, error) {
	r, err := route.Parse(text)
	if err == nil {
		return r, nil
	}
	for hop := range strings.SplitSeq(text, ",") {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(hop), "tcp://"); ok && (!strings.Contains(rest, "/") || strings.HasSuffix(rest, "/")) {
			return nil, fmt.Errorf("%w (\"culvert identity show FILE\" prints it)", err)
		}
	}
	return nil, err
}
