package app

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// registries returns the metrics of one process of each kind: members of an authority,
// with an audit log, traces and a service by name, so that there are all that there can be.
func registries(t *testing.T) map[config.Kind]*obs.Obs {
	t.Helper()
	_, id := newIdentity(t)
	way := route.Route{{Host: "127.0.0.1", Port: 1, Identifier: id}}
	ticket, err := credential.NewTicket(id, []string{way.String()})
	if err != nil {
		t.Fatal(err)
	}
	trust := config.Trust{Ticket: &ticket, TicketRoutes: []route.Route{way}}
	tracing := config.Tracing{Endpoint: "http://127.0.0.1:1"}
	all := map[config.Kind]*obs.Obs{}
	common := func(kind config.Kind) config.Common {
		key, _ := newIdentity(t)
		o, _ := newObs(t, string(kind))
		all[kind] = o
		return config.Common{Identity: key, Audit: filepath.Join(t.TempDir(), "audit"), State: filepath.Join(t.TempDir(), "state")}
	}
	made := func(kind config.Kind, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	_, err = NewRelay(&config.Relay{Common: common(config.KindRelay), Trust: trust, Listen: []config.Address{local(0)}}, all[config.KindRelay])
	made(config.KindRelay, err)
	_, err = NewOutlet(&config.Outlet{
		Common: common(config.KindOutlet), Trust: trust, Tracing: tracing, Relays: []route.Route{way},
		Services: []config.OutletService{{Name: "db", Target: local(1), Allow: policy.List(id)}},
	}, all[config.KindOutlet])
	made(config.KindOutlet, err)
	_, err = NewInlet(&config.Inlet{
		Common: common(config.KindInlet), Trust: trust, Tracing: tracing,
		Services: []config.InletService{{Listen: local(0), Service: "db", Routes: []route.Route{way}}, {Listen: local(0), Service: "other", Outlet: id, Routes: []route.Route{way}}},
	}, all[config.KindInlet])
	made(config.KindInlet, err)
	_, err = NewAuthority(&config.Authority{Common: common(config.KindAuthority), Store: filepath.Join(t.TempDir(), "store"), Relays: []route.Route{way}}, all[config.KindAuthority])
	made(config.KindAuthority, err)
	return all
}

// A documentedMetric is a metric as its row in docs/metrics.md has it.
type documentedMetric struct{ kind, labels, help string }

func (d documentedMetric) row(name string) string {
	labels := d.labels
	if labels != "" {
		labels = "`" + strings.ReplaceAll(labels, ",", "`, `") + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", name, d.kind, labels, d.help)
}

var (
	descForm    = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}\}$`)
	constLabel  = regexp.MustCompile(`([a-z_]+)="`)
	metricsRow  = regexp.MustCompile("^\\| `([a-z_]+)` \\| ([a-z]+) \\| ([`a-z_, ]*) ?\\| (.+) \\|$")
	metricsHead = "## "
)

// described returns what a registry has, apart from the metrics of Go and of the process
// that Prometheus knows everywhere.
func described(t *testing.T, o *obs.Obs) map[string]documentedMetric {
	t.Helper()
	kinds := map[string]string{} // of those that have a value
	families, err := o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	all := map[string]documentedMetric{}
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		o.Registry.Describe(descs)
	}()
	for d := range descs {
		m := descForm.FindStringSubmatch(d.String())
		if m == nil {
			t.Errorf("cannot read %s", d)
			continue
		}
		if !strings.HasPrefix(m[1], "culvert_") {
			continue
		}
		var labels []string
		for _, l := range constLabel.FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		if m[4] != "" {
			labels = append(labels, strings.Split(m[4], ",")...)
		}
		kind := kinds[m[1]]
		if kind == "" {
			t.Errorf("%s is not shown from the start: nobody can ask for its rate, or see that it is none", m[1])
		}
		help, err := strconv.Unquote(m[2])
		if err != nil {
			t.Error(err)
		}
		all[m[1]] = documentedMetric{kind, strings.Join(labels, ","), help}
	}
	return all
}

// metricsDocument returns the rows of docs/metrics.md by heading and name.
func metricsDocument(t *testing.T) map[string]map[string]documentedMetric {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]documentedMetric{}
	heading := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if h, is := strings.CutPrefix(line, metricsHead); is {
			heading = h
			all[heading] = map[string]documentedMetric{}
			continue
		}
		if m := metricsRow.FindStringSubmatch(line); m != nil {
			labels := strings.ReplaceAll(strings.Trim(strings.TrimSpace(m[3]), "`"), "`, `", ",")
			all[heading][m[1]] = documentedMetric{m[2], labels, m[4]}
		}
	}
	return all
}

// docs/metrics.md has every metric of every program, with its type, its labels and what
// its help says, and no other.
func TestMetricsDocument(t *testing.T) {
	const everywhere, channels, members, traces = "All four programs", "Channels: inlet, outlet, authority", "Credentials: inlet, outlet, relay", "Traces: inlet, outlet"
	document := metricsDocument(t)
	for kind, o := range registries(t) {
		in := map[config.Kind][]string{
			config.KindInlet: {everywhere, channels, members, traces, "Inlet"}, config.KindOutlet: {everywhere, channels, members, traces, "Outlet"},
			config.KindRelay: {everywhere, members, "Relay"}, config.KindAuthority: {everywhere, channels, "Authority"},
		}[kind]
		want := map[string]documentedMetric{}
		for _, heading := range in {
			for name, d := range document[heading] {
				want[strings.ReplaceAll(name, "culvert_program_", "culvert_"+string(kind)+"_")] = d
			}
		}
		got := described(t, o)
		for _, name := range slices.Sorted(maps.Keys(got)) {
			if want[name] != got[name] {
				t.Errorf("%s: docs/metrics.md has not\n%s\nbut %+v", kind, got[name].row(name), want[name])
			}
		}
		for name := range want {
			if _, is := got[name]; !is {
				t.Errorf("%s: docs/metrics.md has %s, which there is not", kind, name)
			}
		}
	}
}

// The metrics of all programs are as Prometheus wants them, and bear the program's own
// name or that of what they are about.
func TestMetricsLint(t *testing.T) {
	for kind, o := range registries(t) {
		families, err := o.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "culvert_") {
				t.Errorf("%s: %s: %s", kind, p.Metric, p.Text)
			}
		}
		for name := range described(t, o) {
			about := strings.SplitN(name, "_", 3)[1]
			if !slices.Contains([]string{string(kind), "channel", "audit", "config", "log", "tracing", "build"}, about) {
				t.Errorf("%s: %s has neither the program's name nor channel, audit, config, log, tracing or build in its own", kind, name)
			}
		}
	}
}
