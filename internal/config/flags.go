package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// A setting is a flag and the environment variable beside it, and the key of
// the file that they stand for.
type setting struct {
	flag  string
	key   string // of the file's top, or of the only item of services if inService
	usage string // the word in backquotes names the value

	repeated  bool // a list
	policy    bool // a list of identifiers, or an expression alone
	inService bool
	section   string // of the file's top, that key belongs to; "": none
}

// variable returns the name of the setting's environment variable.
func (s setting) variable() string {
	return "CULVERT_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
}

const configFlag, configVariable = "config", "CULVERT_CONFIG"

// commonSettings and the tables below are never written.
var commonSettings = []setting{
	{flag: "identity", key: "identity", usage: "the private identity `FILE`"},
	{flag: "state", key: "state", usage: "keep what was seen of others' identities in this `FOLDER`, over restarts"},
	{flag: "metrics", key: "metrics", usage: "serve /healthz, /readyz and /metrics at `HOST:PORT`"},
	{flag: "admin", key: "admin", usage: "serve these and /status at a loopback's `HOST:PORT`, or unix:///path"},
	{flag: "drain-timeout", key: "drain_timeout", usage: "when stopping, wait this `TIME` for streams to end (default 30s)"},
	{flag: "keepalive", key: "keepalive", usage: "ping a peer that was sent nothing for this `TIME` (1s to 30s, default 5s)"},
	{flag: "clock-skew", key: "clock_skew", usage: "let the clocks of others be off by this `TIME` (1s to 30m, default 5m)"},
	{flag: "log-format", key: "log_format", usage: "console or json, as `FORMAT` (default console)"},
	{flag: "log-level", key: "log_level", usage: "debug, info, warn or error, as `LEVEL` (default info)"},
	{flag: "audit", key: "audit", usage: "write a line for each decision to this `FILE`, or to stdout or stderr"},
	{flag: "audit-failure", key: "audit_failure", usage: "while it cannot be written continue or deny, as `CHOICE` (default continue)"},
	{flag: "sandbox", key: "sandbox", usage: "on: the process opens nothing but its own files, where the system has Landlock; off: `CHOICE` (default on)"},
}

// trustSettings are those about credentials, which inlets, outlets and relays have.
var trustSettings = []setting{
	{flag: "authority", key: "authorities", repeated: true, usage: "the `IDENTIFIER` of an authority whose credentials count; repeat for several"},
	{flag: "ticket", key: "ticket", usage: "enrol by this `TICKET` at the first start; better in a file, where nobody else sees it"},
	{flag: "ticket-file", key: "ticket_file", usage: "enrol at the first start by the ticket in this `FILE`, which only its owner may read"},
	{flag: "kubernetes-token", key: "kubernetes_token", usage: "enrol and renew by the projected service account token in this `FILE`"},
}

// tracingSettings are those about traces, which inlets and outlets have.
var tracingSettings = []setting{
	{flag: "tracing-endpoint", section: tracingSection, key: "endpoint", usage: "send traces of connections to the OTLP collector at this `URL`, https://host:4318"},
	{flag: "tracing-sample", section: tracingSection, key: "sample", usage: "record this `SHARE` of the traces that begin here (0 to 1, default 0.01)"},
	{flag: "tracing-headers-file", section: tracingSection, key: "headers_file", usage: "send the headers in this `FILE`, which only its owner may read, with each request: lines of NAME: VALUE"},
	{flag: "tracing-ca-file", section: tracingSection, key: "ca_file", usage: "the certificate authorities in this `FILE` vouch for the collector (default: those of the system)"},
}

// channelSettings are those about channels, which inlets, outlets and authorities have.
var channelSettings = []setting{
	{flag: "name", key: "name", usage: "the process's `NAME`: one that starts later under the same identity and name takes its place at once"},
	{flag: "grace", key: "grace", usage: "keep streams for this `TIME` while the network is down (default 60s)"},
	{flag: "buffers", key: "buffers", usage: "hold at most this `SIZE` of bytes for sending again, all channels together (default 256MiB)"},
}

var kindSettings = map[Kind][]setting{
	KindInlet: slices.Concat([]setting{
		{flag: "listen", key: "listen", inService: true, usage: "accept plain TCP at `HOST:PORT`, or a unix socket's clients at unix:///path"},
		{flag: "service", key: "service", inService: true, usage: "the service's `NAME` at the outlet"},
		{flag: "outlet", key: "outlet", inService: true, usage: "the outlet's `IDENTIFIER`; without, the service is any outlet's whose credential says that it offers it"},
		{flag: "route", key: "routes", inService: true, repeated: true, usage: "a `ROUTE` to it, tcp://host:port/IDENTIFIER with hops joined by commas; repeat for alternatives, best first"},
	}, channelSettings, []setting{
		{flag: "connect-timeout", key: "connect_timeout", usage: "a client waits up to this `TIME` for a channel (default 10s)"},
		{flag: "rekey", key: "rekey", usage: "renew a channel's keys after this `TIME`, give or take a tenth (1s to 24h, default 1h)"},
	}, tracingSettings),
	KindOutlet: slices.Concat([]setting{
		{flag: "relay", key: "relays", repeated: true, usage: "register at the last hop of this `ROUTE`, tcp://host:port/IDENTIFIER; repeat for several"},
		{flag: "listen", key: "listen", repeated: true, usage: "accept inlets directly at `HOST:PORT`; repeat for several"},
		{flag: "service", key: "services", repeated: true, usage: "offer a service, `NAME=HOST:PORT`, or NAME=tls://HOST:PORT or NAME=unix:///path; repeat for several"},
		{flag: "allow", key: "allow", repeated: true, policy: true, inService: true, usage: "the `IDENTIFIER` of an inlet that may use the services; repeat for several, or give one expression"},
	}, channelSettings, []setting{
		{flag: "dial-timeout", key: "dial_timeout", usage: "give up dialling a target after this `TIME` (default 10s)"},
	}, tracingSettings),
	KindRelay: {
		{flag: "listen", key: "listen", repeated: true, usage: "accept callers at `HOST:PORT`; repeat for several"},
		{flag: "register", key: "register", repeated: true, policy: true, usage: "the `IDENTIFIER` of an outlet that may register; repeat for several, or give one expression"},
		{flag: "connect", key: "connect", repeated: true, policy: true, usage: "the `IDENTIFIER` of a caller that may be connected; repeat for several, or give one expression"},
		{flag: "extend", key: "extend", repeated: true, usage: "those who may register or connect may be carried on to `HOST:PORT`; repeat for several"},
		{flag: "dial-timeout", key: "dial_timeout", usage: "give up dialling the next relay after this `TIME` (up to 4s, default 2.5s)"},
	},
	KindAuthority: slices.Concat([]setting{
		{flag: "store", key: "store", usage: "the `FILE` of members, tickets and revocations; made if it is not there"},
		{flag: "relay", key: "relays", repeated: true, usage: "register at the last hop of this `ROUTE`, tcp://host:port/IDENTIFIER; repeat for several"},
		{flag: "listen", key: "listen", repeated: true, usage: "accept members directly at `HOST:PORT`; repeat for several"},
		{flag: "route", key: "routes", repeated: true, usage: "a `ROUTE` by which members reach the authority, for tickets; repeat for several (default: those of --relay)"},
		{flag: "credential-lifetime", key: "credential_lifetime", usage: "credentials hold for this `TIME` (1m to 24h, default 1h)"},
		{flag: "forget-members-after", key: "forget_members_after", usage: "forget a member that was enrolled by a ticket and has not renewed for this `TIME` (24h to 87600h, default 2160h, 90 days)"},
		{flag: "list-lifetime", key: "list_lifetime", usage: "promise a newer revocation list within this `TIME`; who has none by then trusts no credential (10s to 720h, default: no promise)"},
	}, channelSettings),
}

// settingsOf returns the settings of a kind, its own first.
func settingsOf(kind Kind) []setting {
	switch kind {
	case KindInlet, KindOutlet, KindRelay:
		return slices.Concat(kindSettings[kind], trustSettings, commonSettings)
	case KindWebhook:
		return webhookSettings
	}
	return slices.Concat(kindSettings[kind], commonSettings)
}

// Flags returns a new set of the kind's flags, --config among them. Their
// values are checked by the Load functions, so that all faults are found.
func Flags(kind Kind) *pflag.FlagSet {
	fs := pflag.NewFlagSet(string(kind), pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Var(&given{}, configFlag, "read settings from this YAML `FILE`")
	for _, s := range settingsOf(kind) {
		fs.Var(&given{repeated: s.repeated}, s.flag, s.usage)
	}
	return fs
}

// A given is a flag's values in the order of the command line.
type given struct {
	texts    []string
	repeated bool
}

func (g *given) String() string     { return strings.Join(g.texts, " ") }
func (g *given) Type() string       { return "text" }
func (g *given) Set(s string) error { g.texts = append(g.texts, s); return nil }

// fromFlag returns the values of a flag, or nil if it was not given.
func fromFlag(fs *pflag.FlagSet, name string) []string {
	if fs == nil {
		return nil
	}
	f := fs.Lookup(name)
	if f == nil || !f.Changed {
		return nil
	}
	if g, ok := f.Value.(*given); ok {
		return g.texts
	}
	return nil // another flag of that name, which is none of ours
}

// A Source is where settings come from.
type Source struct {
	Flags   *pflag.FlagSet // what Flags returned, parsed; or a set that it was added to; nil for none
	Environ []string       // as os.Environ returns it
}

// overlay returns what flags and variables say, by flag; of both, the flag.
func (d *decoder) overlay(src Source, env *environ) map[string]*value {
	over := map[string]*value{}
	for _, s := range settingsOf(d.kind) {
		texts, at := fromFlag(src.Flags, s.flag), Origin{Name: "--" + s.flag}
		if texts == nil {
			texts, at = fromVariable(env, s), Origin{Name: s.variable()}
		}
		switch {
		case texts == nil:
		case s.repeated:
			over[s.flag] = listValue(texts, at)
		case len(texts) > 1:
			d.fault(at, join(s.section, s.key), "given %d times: give it once", len(texts))
			over[s.flag] = &value{shape: shapeBad, at: at}
		default:
			over[s.flag] = &value{shape: shapeText, text: texts[0], at: at}
		}
	}
	return over
}

// fromVariable returns the values in a setting's environment variable. One that
// is empty counts as not set, since that is how compose files leave one out.
func fromVariable(env *environ, s setting) []string {
	text, _ := env.lookup(s.variable())
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil
	case s.policy && !likeIdentifiers(strings.Fields(text)):
		return []string{text}
	case s.repeated:
		return strings.Fields(text)
	}
	return []string{text}
}

func listValue(texts []string, at Origin) *value {
	v := &value{shape: shapeList, at: at}
	for _, text := range texts {
		v.items = append(v.items, &value{shape: shapeText, text: text, at: at})
	}
	return v
}

// set puts a value in place of a key's, or adds the key.
func (v *value) set(key string, to *value) {
	if e := v.get(key); e != nil {
		e.at, e.value = to.at, to
		return
	}
	v.entries = append(v.entries, entry{key: key, at: to.at, value: to})
}

// merge puts what flags and variables say over what the file says.
func (d *decoder) merge(root *value, over map[string]*value) {
	if d.kind == KindOutlet {
		d.mergeOutletServices(root, over)
	}
	for _, s := range settingsOf(d.kind) {
		v := over[s.flag]
		switch {
		case v == nil:
		case s.inService:
			if item := d.onlyService(root, v.at, s.key); item != nil {
				item.set(s.key, v)
			}
		case s.section != "":
			root.inside(s.section, v.at).set(s.key, v)
		default:
			root.set(s.key, v)
		}
	}
}

// inside returns the section with that key, a new one if there is none. What is no
// section will be reported with the file.
func (v *value) inside(key string, at Origin) *value {
	e := v.get(key)
	if e == nil || e.value.shape == shapeNull {
		v.set(key, &value{shape: shapeMap, at: at})
		e = v.get(key)
	}
	if e.value.shape != shapeMap {
		return &value{shape: shapeMap}
	}
	return e.value
}

// onlyService returns the one service that flags and variables speak of: the
// file's, if it has just one, or a new one, if it has none. With several it
// reports the one at the given place and returns nil.
func (d *decoder) onlyService(root *value, at Origin, key string) *value {
	services := root.get("services")
	if services == nil || services.value.shape == shapeNull || services.value.shape == shapeList && len(services.value.items) == 0 {
		if d.kind == KindOutlet {
			d.fault(at, key, "there is no service to allow it for: add --service NAME=HOST:PORT")
			return nil
		}
		root.set("services", &value{shape: shapeList, items: []*value{{shape: shapeMap, at: Origin{}}}})
		services = root.get("services")
	}
	items := services.value.items
	switch {
	case services.value.shape != shapeList || len(items) == 1 && items[0].shape != shapeMap:
		return nil // will be reported with the file
	case len(items) == 1:
		return items[0]
	}
	d.fault(at, key, "the file has %d services, so it is not clear which one is meant: write it there", len(items))
	return nil
}

// mergeOutletServices turns --service and --allow into services, which take the
// place of all those in the file.
func (d *decoder) mergeOutletServices(root *value, over map[string]*value) {
	given, allow := over["service"], over["allow"]
	if given == nil {
		return
	}
	list := &value{shape: shapeList, at: given.at}
	for _, item := range given.items {
		v, err := serviceValue(item)
		if err != nil {
			d.fault(item.at, "services", "%w", err)
			v = &value{shape: shapeBad, at: item.at}
		} else if allow != nil {
			v.set("allow", allow)
		}
		list.items = append(list.items, v)
	}
	root.set("services", list)
	delete(over, "service")
	delete(over, "allow")
}

// serviceValue reads NAME=HOST:PORT.
func serviceValue(v *value) (*value, error) {
	name, target, ok := strings.Cut(v.text, "=")
	if !ok {
		return nil, fmt.Errorf("%s: want NAME=HOST:PORT", quote(v.text))
	}
	if name == "" || target == "" {
		return nil, errors.New(quote(v.text) + ": neither the name nor the target may be empty: want NAME=HOST:PORT")
	}
	service := &value{shape: shapeMap, at: v.at}
	service.set("name", &value{shape: shapeText, text: name, at: v.at})
	service.set("target", &value{shape: shapeText, text: target, at: v.at})
	return service, nil
}

// strayVariables reports environment variables that are probably misspelt ones
// of this kind. One that means something to another kind, that a file refers
// to, that is near to nothing (Kubernetes sets CULVERT_SERVICE_HOST for a
// Service of that name), or that is empty is left alone.
func (d *decoder) strayVariables(env *environ) {
	known := []string{configVariable}
	for _, s := range settingsOf(d.kind) {
		known = append(known, s.variable())
	}
	all := slices.Clone(known)
	for _, k := range kinds {
		for _, s := range settingsOf(k.kind) {
			all = append(all, s.variable())
		}
	}
	var stray []string
	for name, text := range env.vars {
		if strings.HasPrefix(name, "CULVERT_") && strings.TrimSpace(text) != "" && !env.used[name] && !slices.Contains(all, name) {
			stray = append(stray, name)
		}
	}
	slices.Sort(stray)
	for _, name := range stray {
		for _, k := range known {
			if distance(strings.TrimPrefix(name, "CULVERT_"), strings.TrimPrefix(k, "CULVERT_")) == 1 {
				d.fault(Origin{Name: name}, "", "unknown variable (did you mean %s?): rename or remove it", k)
				break
			}
		}
	}
}
