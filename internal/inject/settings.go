package inject

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Where things are in a sidecar's container.
const (
	configDir   = "/etc/culvert"
	identityDir = "/run/culvert/identity"
	tokenDir    = "/run/culvert/token" //nolint:gosec // a folder
	stateDir    = "/var/lib/culvert"

	identityFile = identityDir + "/identity.key"
)

// inletYAML returns the settings file of an inlet (docs/settings.md). It ends early
// beyond maxSettings.
func (r *request) inletYAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "identity: %s\nservices:\n", identityFile)
	for _, p := range r.Inlet.Ports {
		if b.Len() > maxSettings {
			break
		}
		fmt.Fprintf(&b, "  - listen: tcp://127.0.0.1:%d\n    service: %s\n", p.Number, quoted(p.Service))
		if p.Outlet != "" {
			fmt.Fprintf(&b, "    outlet: %s\n", quoted(p.Outlet))
		}
		fmt.Fprintf(&b, "    routes: %s\n", quoted(r.Inlet.Routes))
	}
	r.writeRest(&b, r.Inlet)
	return b.String()
}

// outletYAML returns the settings file of an outlet. It ends early beyond maxSettings.
func (r *request) outletYAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "identity: %s\nrelays: %s\nservices:\n", identityFile, quoted(r.Outlet.Routes))
	for _, s := range r.Outlet.Services {
		if b.Len() > maxSettings {
			break
		}
		fmt.Fprintf(&b, "  - name: %s\n    target: %s\n", quoted(s.Name), quoted("tcp://"+s.Target))
		if r.Outlet.Allow != "" {
			fmt.Fprintf(&b, "    allow: %s\n", quoted(r.Outlet.Allow))
		} else {
			fmt.Fprintf(&b, "    allow: %s\n", quoted(r.Outlet.Allowed))
		}
	}
	r.writeRest(&b, r.Outlet)
	return b.String()
}

// writeRest writes what is in both kinds of files.
func (r *request) writeRest(b *strings.Builder, s *sidecar) {
	if len(r.Authority) > 0 {
		fmt.Fprintf(b, "authority: {identifier: %s, routes: %s}\n", quoted(endOf(r.Authority[0])), quoted(r.Authority))
		fmt.Fprintf(b, "kubernetes_token: %s/token\nstate: %s\n", tokenDir, stateDir)
	}
	fmt.Fprintf(b, "metrics: 0.0.0.0:%d\n", s.Metrics)
}

// quoted returns a text, or a list of some, as YAML's double quotes take it, which
// is as JSON does (YAML 1.2, section 5.7).
func quoted(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("a string is always JSON: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}
