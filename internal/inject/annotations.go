package inject

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A request is what a pod's annotations, and the defaults behind them, ask for.
type request struct {
	Inlet, Outlet *sidecar // nil: none

	IdentitySecret string   // "": the pod makes its identity
	Authority      []string // routes to it; empty: the pod is no member
	Audience       string
	Variables      []string
	Wait           string // "true", "false", a service's name, or "" for what suits the pod
	Scrape         bool
	Image          string
	PullPolicy     string
	CPURequest     string
	MemoryRequest  string
	MemoryLimit    string
}

// A sidecar is an inlet or an outlet that is asked for.
type sidecar struct {
	ConfigMap string // whose settings are used; "": those that follow
	Ports     []port
	Services  []service
	Routes    []string
	Allow     string // an expression, or "" for the identifiers
	Allowed   []string
	Metrics   uint16
}

// A port is one that an inlet listens at.
type port struct {
	Number          uint16
	Service, Outlet string // Outlet "": any that proves to offer it
}

// A service is one that an outlet offers.
type service struct{ Name, Target string }

// read reads annotations; nil is returned if there is none that asks for a sidecar.
func (in *Injector) read(all map[string]string) (*request, error) {
	f := &faults{}
	unknown(all, f)
	asked := func(key string) bool { _, ok := all[key]; return ok }
	if !slices.ContainsFunc([]string{Inlet, InletConfig, Outlet, OutletConfig}, asked) {
		for _, key := range annotations {
			if asked(key) {
				f.addf(key, "says more about a sidecar, and none is asked for: write %s or %s, too", Inlet, Outlet)
			}
		}
		return nil, f.join()
	}
	r := in.common(all, f)
	in.readInlet(r, all, f)
	in.readOutlet(r, all, f)
	in.metrics(r, all, f)
	in.identity(r, f)
	r.fits(all, f)
	if err := f.join(); err != nil {
		return nil, err
	}
	return r, nil
}

// unknown reports misspelt annotations of this project, and those that are too long.
func unknown(all map[string]string, f *faults) {
	own := []string{Injected, inletSettings, outletSettings}
	for _, key := range sortedKeys(all) {
		if !strings.HasPrefix(key, prefix) || slices.Contains(own, key) {
			continue
		}
		if !slices.Contains(annotations, key) {
			f.addf(plain(key), "there is no such annotation: write one of %s", strings.Join(annotations, ", "))
		} else if len(all[key]) > MaxAnnotation {
			f.addf(key, "has %d bytes, at most %d are read: put the settings into a ConfigMap, and name that in %s or %s", len(all[key]), MaxAnnotation, InletConfig, OutletConfig)
			delete(all, key)
		}
	}
}

// common reads what inlet and outlet have in common.
func (in *Injector) common(all map[string]string, f *faults) *request {
	d := &in.defaults
	r := &request{
		IdentitySecret: d.IdentitySecret, Authority: d.Authority, Audience: d.Audience, Variables: d.Variables,
		Scrape: true,
		Image:  d.Image, PullPolicy: d.PullPolicy, CPURequest: d.CPURequest, MemoryRequest: d.MemoryRequest, MemoryLimit: d.MemoryLimit,
	}
	text := func(key string, to *string, check func(string) error) {
		if value, ok := all[key]; ok {
			*to = strings.TrimSpace(value)
			f.add(key, check(*to))
		}
	}
	text(IdentitySecret, &r.IdentitySecret, checkName)
	text(CPURequest, &r.CPURequest, checkQuantity)
	text(MemoryRequest, &r.MemoryRequest, checkQuantity)
	text(MemoryLimit, &r.MemoryLimit, checkQuantity)
	text(Wait, &r.Wait, func(s string) error {
		if err := checkService(s); err != nil {
			return errors.New(`write "true" to wait until every service of the sidecar can be reached, "false", or the name of one service`)
		}
		return nil
	})
	if value, ok := all[Scrape]; ok {
		if value = strings.TrimSpace(value); value != "true" && value != "false" {
			f.addf(Scrape, `%s: write "true", or "false" for a pod whose sidecars Prometheus is not to scrape`, show(value))
		}
		r.Scrape = value == "true"
	}
	if value, ok := all[Authority]; ok {
		routes, err := parseAuthority(value)
		f.add(Authority, err)
		r.Authority = routes
	}
	if value, ok := all[Variables]; ok {
		names, err := parseNames(value)
		f.add(Variables, err)
		r.Variables = names
	}
	return r
}

// readInlet reads the annotations about an inlet.
func (in *Injector) readInlet(r *request, all map[string]string, f *faults) {
	value, ports := all[Inlet]
	configMap, config := all[InletConfig]
	switch {
	case ports && config:
		f.addf(InletConfig, "the settings are in this ConfigMap, or made of %s: remove one of the two", Inlet)
	case config:
		r.Inlet = &sidecar{ConfigMap: strings.TrimSpace(configMap)}
		f.add(InletConfig, checkName(r.Inlet.ConfigMap))
	case ports:
		list, err := parseInlet(value)
		f.add(Inlet, err)
		for i, p := range list {
			if p.Outlet == "" {
				list[i].Outlet = in.defaults.Outlets[p.Service]
			}
			if err == nil && list[i].Outlet == "" && len(r.Authority) == 0 {
				f.addf(Inlet, "whose the service %s is, is not known: write %d=%s@IDENTIFIER with that of its outlet", p.Service, p.Number, p.Service)
			}
		}
		r.Inlet = &sidecar{Ports: list, Routes: in.routes(all, f)}
	}
}

// readOutlet reads the annotations about an outlet.
func (in *Injector) readOutlet(r *request, all map[string]string, f *faults) {
	value, services := all[Outlet]
	configMap, config := all[OutletConfig]
	allow, allowed := all[Allow]
	switch {
	case services && config:
		f.addf(OutletConfig, "the settings are in this ConfigMap, or made of %s: remove one of the two", Outlet)
		return
	case config:
		r.Outlet = &sidecar{ConfigMap: strings.TrimSpace(configMap)}
		f.add(OutletConfig, checkName(r.Outlet.ConfigMap))
	case services:
		list, err := parseOutlet(value)
		f.add(Outlet, err)
		r.Outlet = &sidecar{Services: list, Routes: in.routes(all, f)}
		if !allowed {
			f.addf(Allow, "missing, and without it nobody may use the outlet's services: write the identifiers of the inlets that may, or an expression like %s", `peer.attr["k8s.serviceaccount"] == "app"`)
			return
		}
		r.Outlet.Allow, r.Outlet.Allowed, err = parseAllow(allow)
		f.add(Allow, err)
		return
	}
	if allowed {
		f.addf(Allow, "says who may use services, and they are not made of %s: write it there, or in the outlet's own settings", Outlet)
	}
}

// routes returns the annotation's routes, or the default ones.
func (in *Injector) routes(all map[string]string, f *faults) []string {
	value, ok := all[Routes]
	if !ok {
		if len(in.defaults.Routes) == 0 {
			addOnce(f, Routes, errors.New("missing: write how to get there, like tcp://relay:4000/IDENTIFIER"))
		}
		return in.defaults.Routes
	}
	list, err := parseRoutes(value)
	if err == nil && len(list) == 0 {
		err = errors.New("is empty: write how to get there, like tcp://relay:4000/IDENTIFIER")
	}
	addOnce(f, Routes, err)
	return list
}

// addOnce adds a fault of an annotation that is read for inlet and outlet.
func addOnce(f *faults, where string, err error) {
	if err != nil && !slices.ContainsFunc(f.list, func(e error) bool { return e.Error() == where+": "+err.Error() }) {
		f.add(where, err)
	}
}

// metrics gives each sidecar its port for probes.
func (in *Injector) metrics(r *request, all map[string]string, f *faults) {
	first := uint16(9100)
	if value, ok := all[MetricsPort]; ok {
		n, err := parsePort(strings.TrimSpace(value))
		if err == nil && n > 65534 {
			err = errors.New("leaves no port for a second sidecar: write one below 65535")
		}
		f.add(MetricsPort, err)
		first = n
	}
	if r.Inlet != nil {
		r.Inlet.Metrics = first
		first++
	}
	if r.Outlet != nil {
		r.Outlet.Metrics = first
	}
}

// identity reports a pod of which nobody could know who it is.
func (in *Injector) identity(r *request, f *faults) {
	switch {
	case r.IdentitySecret == "" && len(r.Authority) == 0:
		f.addf(IdentitySecret, "missing: write the name of the Secret that has the sidecar's identity.key, or the way to an authority that knows the pod by its token in %s", Authority)
	case r.IdentitySecret == "" && r.Outlet != nil:
		f.addf(IdentitySecret, "missing, and an outlet is found by its identifier, which has to stay the same: write the name of the Secret that has its identity.key")
	}
}

// fits reports what is said of something that is not there.
func (r *request) fits(all map[string]string, f *faults) {
	if _, ok := all[Wait]; ok && r.Inlet == nil {
		f.addf(Wait, "is of services that an inlet reaches, and the pod has none: remove it")
	}
	if in := r.Inlet; in != nil && in.ConfigMap == "" && r.Wait != "" && r.Wait != "true" && r.Wait != "false" &&
		!slices.ContainsFunc(in.Ports, func(p port) bool { return p.Service == r.Wait }) {
		f.addf(Wait, "there is no service %s in %s: write one that is there, \"true\" or \"false\"", show(r.Wait), Inlet)
	}
	if _, ok := all[Routes]; ok && (r.Inlet == nil || r.Inlet.ConfigMap != "") && (r.Outlet == nil || r.Outlet.ConfigMap != "") {
		f.addf(Routes, "the settings are in a ConfigMap, which has routes of its own: remove it")
	}
	if len(r.Variables) > 0 {
		return
	}
	for _, key := range []string{Inlet, Outlet, Allow, Routes, Authority} {
		if strings.Contains(all[key], "${") {
			f.addf(key, "names a variable, and there are none: write the ConfigMap that has them in %s, or the value itself", Variables)
		}
	}
}

// entries splits a list at commas and line ends.
func entries(value, example string) ([]string, error) {
	var list []string
	for _, e := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '\n' }) {
		if e = strings.TrimSpace(e); e != "" {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("is empty: write %s", example)
	}
	if len(list) > maxEntries {
		return nil, fmt.Errorf("has %d entries, at most %d are taken", len(list), maxEntries)
	}
	return list, nil
}

// parseInlet reads PORT=SERVICE or PORT=SERVICE@OUTLET, each port once.
func parseInlet(value string) (ports []port, err error) {
	const example = "PORT=SERVICE, like 5432=orders-db"
	list, err := entries(value, example)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		number, rest, ok := strings.Cut(e, "=")
		if !ok {
			return nil, fmt.Errorf("%s: write %s", show(e), example)
		}
		name, outlet, named := strings.Cut(strings.TrimSpace(rest), "@")
		p := port{Service: name, Outlet: outlet}
		p.Number, err = parsePort(strings.TrimSpace(number))
		if err == nil {
			err = checkService(name)
		}
		if err == nil && named {
			err = checkIdentifier(outlet)
		}
		if err == nil && slices.ContainsFunc(ports, func(q port) bool { return q.Number == p.Number }) {
			err = fmt.Errorf("port %d is there twice: remove one, or choose another port", p.Number)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w; write %s", show(e), err, example)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// parseOutlet reads NAME=PORT or NAME=HOST:PORT, each name once.
func parseOutlet(value string) (services []service, err error) {
	const example = "SERVICE=PORT, like orders-db=5432, or SERVICE=HOST:PORT"
	list, err := entries(value, example)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		name, target, ok := strings.Cut(e, "=")
		if !ok {
			return nil, fmt.Errorf("%s: write %s", show(e), example)
		}
		s := service{Name: strings.TrimSpace(name)}
		s.Target, err = parseTarget(strings.TrimSpace(target))
		err = errors.Join(checkService(s.Name), err)
		if err == nil && slices.ContainsFunc(services, func(o service) bool { return o.Name == s.Name }) {
			err = errors.New("this service is there twice: remove one, or give it another name")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w; write %s", show(e), err, example)
		}
		services = append(services, s)
	}
	return services, nil
}

// parseTarget returns HOST:PORT, on the loopback where only a port is said.
func parseTarget(text string) (string, error) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		host, number = "127.0.0.1", text
	}
	p, err := parsePort(number)
	if err != nil {
		return "", err
	}
	target := net.JoinHostPort(host, strconv.Itoa(int(p)))
	if _, _, err := route.ParseAddress("tcp://" + target); err != nil {
		return "", err
	}
	return target, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '+' {
		return 0, fmt.Errorf("%s is no port: want a number from 1 to 65535", show(text))
	}
	return uint16(n), nil
}

// parseRoutes reads routes between white space.
func parseRoutes(value string) ([]string, error) {
	list := strings.Fields(value)
	if len(list) > maxEntries {
		return nil, fmt.Errorf("has %d routes, at most %d are taken", len(list), maxEntries)
	}
	for _, text := range list {
		if strings.Contains(text, "${") {
			continue
		}
		if _, err := route.Parse(text); err != nil {
			return nil, fmt.Errorf("%w: write tcp://HOST:PORT/IDENTIFIER, several separated by spaces", err)
		}
	}
	return list, nil
}

// parseAuthority reads routes that end at the same authority.
func parseAuthority(value string) ([]string, error) {
	list, err := parseRoutes(value)
	for _, text := range list {
		if err == nil && endOf(text) != endOf(list[0]) {
			err = fmt.Errorf("the routes end at %s and at %s: write those of one authority", show(endOf(list[0])), show(endOf(text)))
		}
	}
	return list, err
}

// endOf returns the identifier, or the variable, of a route's last hop.
func endOf(route string) string { return route[strings.LastIndexByte(route, '/')+1:] }

// parseNames reads names of objects.
func parseNames(value string) ([]string, error) {
	list := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	if len(list) > maxEntries {
		return nil, fmt.Errorf("has %d names, at most %d are taken", len(list), maxEntries)
	}
	for _, n := range list {
		if err := checkName(n); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// parseAllow reads identifiers, or else one expression.
func parseAllow(value string) (expression string, ids []string, err error) {
	words := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	switch {
	case len(words) == 0:
		return "", nil, errors.New("is empty, and nobody could use the outlet's services: write identifiers of inlets, or an expression")
	case len(words) <= maxEntries && !slices.ContainsFunc(words, func(w string) bool { return checkIdentifier(w) != nil }):
		return "", words, nil
	case len(words) == 1 && value != "true" && value != "false":
		return "", nil, checkIdentifier(words[0])
	}
	value = doubled(strings.TrimSpace(value))
	// A variable may stand for a part of it; the outlet compiles it then.
	if !strings.Contains(value, "${") {
		_, err = policy.Compile(policy.Open, strings.ReplaceAll(value, "$$", "$"))
	}
	return value, nil, err
}

// doubled returns a text in which each dollar sign that begins no variable is
// doubled, as settings files want it.
func doubled(text string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(text, "$")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		b.WriteByte('$')
		if !strings.HasPrefix(after, "{") {
			b.WriteByte('$')
			after = strings.TrimPrefix(after, "$")
		}
		text = after
	}
}

// checkIdentifier takes an identifier, or a variable that stands for one.
func checkIdentifier(text string) error {
	if strings.HasPrefix(text, "${") && strings.HasSuffix(text, "}") {
		return nil
	}
	if _, err := identity.ParseIdentifier(text); err != nil {
		return fmt.Errorf("%w: \"culvert identity show FILE\" prints it", err)
	}
	return nil
}

// checkService takes the name of a service, a DNS label.
func checkService(text string) error {
	label := len(text) <= 63 && text != "" && text[0] != '-' && text[len(text)-1] != '-'
	for _, r := range text {
		label = label && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}
	if !label {
		return fmt.Errorf("%s is no name of a service: up to 63 of a to z, 0 to 9 and, inside, hyphens", show(text))
	}
	return nil
}
