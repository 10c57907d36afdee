package config

import (
	"fmt"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// KindWebhook is that of "culvert webhook".
const KindWebhook Kind = "webhook"

// A Webhook holds the settings of the command "culvert webhook".
type Webhook struct {
	Common              // without identity, state, admin, keepalive, clock_skew and audit
	Listen      Address // where API servers send reviews
	Certificate string  // the PEM file of the server's certificate
	Key         string  // the PEM file of its private key
	Sidecar     Sidecar
}

// A Sidecar is what pods get where their annotations say nothing else. Text that is
// "" stands for the default, which internal/inject has, as it has the rules.
type Sidecar struct {
	Image           string
	ImagePullPolicy string
	Routes          []route.Route                  // to services, and where outlets register
	Outlets         map[string]identity.Identifier // by service: whose it is
	IdentitySecret  string
	Authority       []route.Route // the ways to it, which all end there
	Audience        string        // of the ServiceAccount token
	Variables       []string      // names of ConfigMaps
	CPURequest      string
	MemoryRequest   string
	MemoryLimit     string
}

// LoadWebhook reads a webhook's settings. The error is a [Faults].
func LoadWebhook(src Source) (*Webhook, error) {
	d, root := start(KindWebhook, src)
	return finish(d, d.webhook, root)
}

// webhookSettings are all flags of the webhook; never written.
var webhookSettings = []setting{
	{flag: "listen", key: "listen", usage: "answer API servers at `HOST:PORT`"},
	{flag: "certificate", key: "certificate", usage: "the server's certificate in this PEM `FILE`, read again when it changes"},
	{flag: "key", key: "key", usage: "its private key in this PEM `FILE`"},
	{flag: "metrics", key: "metrics", usage: "serve /healthz, /readyz and /metrics at `HOST:PORT`"},
	{flag: "drain-timeout", key: "drain_timeout", usage: "when stopping, wait this `TIME` for reviews to end (default 30s)"},
	{flag: "log-format", key: "log_format", usage: "console or json, as `FORMAT` (default console)"},
	{flag: "log-level", key: "log_level", usage: "debug, info, warn or error, as `LEVEL` (default info)"},
}

// webhook reads a webhook's settings.
func (d *decoder) webhook(root *value) *Webhook {
	s := d.section(root, "")
	s.hints = hintsFor(KindWebhook)
	s.hints["identity"] = "a webhook has none; identity_secret under sidecar is that of the pods"
	s.synonyms = map[string]string{"cert": "certificate", "tls_cert": "certificate", "tls_key": "key", "defaults": "sidecar"}
	c := &Webhook{}
	s.need("listen", "say where API servers reach the webhook (listen: 0.0.0.0:8443 or --listen)")
	c.Listen = s.listenAddress("listen")
	const made = "; \"culvert webhook certificate\" makes both"
	s.need("certificate", "name the file of the server's certificate (certificate: FILE or --certificate FILE)"+made)
	c.Certificate = s.filePath("certificate")
	s.need("key", "name the file of the certificate's private key (key: FILE or --key FILE)"+made)
	c.Key = s.filePath("key")
	c.Metrics = s.listenAddress("metrics")
	c.DrainTimeout = s.duration("drain_timeout", MinTimeout, MaxTimeout)
	c.LogFormat = s.choice("log_format", "console", "json")
	c.LogLevel = s.choice("log_level", "debug", "info", "warn", "error")
	if v := s.get("sidecar"); v != nil {
		c.Sidecar = d.sidecar(v)
	}
	s.finish()
	c.origins, c.file, c.info = d.origins, d.file, d.info
	c.setDefaults()
	return c
}

// sidecar reads the section of that name.
func (d *decoder) sidecar(v *value) (c Sidecar) {
	s := d.section(v, "sidecar")
	s.synonyms = map[string]string{"pull_policy": "image_pull_policy", "route": "routes", "relays": "routes", "secret": "identity_secret"}
	text := func(key string) (text string) {
		s.read(key, func(t string) error { text = t; return nil })
		return text
	}
	c.Image = text("image")
	c.ImagePullPolicy = s.choice("image_pull_policy", "Always", "IfNotPresent", "Never")
	c.Routes = s.routes("routes", nil)
	c.Outlets = s.outlets("outlets")
	c.IdentitySecret = text("identity_secret")
	c.Authority = s.routes("authority", nil)
	for i, r := range c.Authority {
		if first := c.Authority[0]; r[len(r)-1].Identifier != first[len(first)-1].Identifier {
			path := fmt.Sprintf("sidecar.authority[%d]", i)
			s.fault(s.origins[path], path, "ends at another authority than the first route: write the routes to one authority")
		}
	}
	c.Audience = text("audience")
	c.Variables = s.words("variables", func(string) error { return nil })
	c.CPURequest = text("cpu_request")
	c.MemoryRequest = text("memory_request")
	c.MemoryLimit = text("memory_limit")
	s.finish()
	return c
}

// outlets reads identifiers by the names of services.
func (s *section) outlets(key string) map[string]identity.Identifier {
	v := s.get(key)
	if v == nil {
		return nil
	}
	path := join(s.path, key)
	if v.shape != shapeMap {
		s.fault(v.at, path, "want services with the identifiers of their outlets, as orders-db: IDENTIFIER, not %s", v.shape)
		return nil
	}
	all := map[string]identity.Identifier{}
	for _, e := range v.entries {
		if e.value.shape == shapeBad {
			continue
		}
		text, err := scalarText(e.value)
		if err == nil {
			err = serviceName(e.key)
		}
		if err == nil {
			all[e.key], err = parseIdentifier(text)
		}
		if err != nil {
			s.fault(e.value.at, join(path, e.key), "%w", err)
		}
	}
	return all
}
