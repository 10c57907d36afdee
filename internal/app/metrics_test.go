package app

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
)

// metric returns the value of one counter or gauge whose labels have the given
// values.
func metric(t *testing.T, o *obs.Obs, name string, labels ...string) float64 {
	t.Helper()
	families, err := o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name || len(m.GetLabel()) != len(labels) {
				continue
			}
			found := 0
			for _, l := range m.GetLabel() {
				for _, want := range labels {
					if l.GetValue() == want {
						found++
					}
				}
			}
			if found == len(labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{})
	wantEcho(t, sys.dial(t), "hello")
	for _, o := range []*obs.Obs{sys.inlet.obs, sys.outlet.obs, sys.relay.obs} {
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
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	}
}

var descName = regexp.MustCompile(`^Desc\{fqName: "([^"]*)"`)

// registered returns the names of all metrics of a registry, of those without a
// value yet, too.
func registered(t *testing.T, r *prometheus.Registry) (names []string) {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		r.Describe(descs)
	}()
	for d := range descs {
		m := descName.FindStringSubmatch(d.String())
		if m == nil {
			t.Errorf("no name in %s", d)
			continue
		}
		names = append(names, m[1])
	}
	return names
}

// exposed returns the names of the metrics on a page.
func exposed(page string) (names []string) {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	return names
}

// All metrics of a process that has worked bear its own name, the channel's, a log's, the settings' or the build's,
// apart from those of Go and of the process that Prometheus knows everywhere.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{
		relay:  func(c *config.Relay) { c.Metrics, c.Audit = local(0), filepath.Join(t.TempDir(), "relay") },
		outlet: func(c *config.Outlet) { c.Metrics, c.Audit = local(0), filepath.Join(t.TempDir(), "outlet") },
		inlet:  func(c *config.Inlet) { c.Metrics, c.Audit = local(0), filepath.Join(t.TempDir(), "inlet") },
	})
	wantEcho(t, sys.dial(t), "hello")
	for _, tt := range []struct {
		command string
		o       *obs.Obs
		s       *obs.Server
	}{
		{"relay", sys.relay.obs, sys.relay.Endpoints()},
		{"outlet", sys.outlet.obs, sys.outlet.Endpoints()},
		{"inlet", sys.inlet.obs, sys.inlet.Endpoints()},
	} {
		code, page := get(t, tt.s.MetricsAddr(), "/metrics")
		if code != 200 {
			t.Fatalf("%s: /metrics: %d", tt.command, code)
		}
		own, names := "culvert_"+tt.command+"_", exposed(page)
		count := map[string]int{}
		for _, name := range append(names, registered(t, tt.o.Registry)...) {
			ok := false
			for _, prefix := range []string{own, "culvert_channel_", "culvert_audit_", "culvert_build_", "culvert_config_", "culvert_log_", "go_", "process_"} {
				if strings.HasPrefix(name, prefix) {
					count[prefix]++
					ok = true
				}
			}
			if !ok {
				t.Errorf("%s: %s begins with none of %s, culvert_channel_, culvert_audit_, culvert_log_, go_ and process_", tt.command, name, own)
			}
		}
		if count[own] < 8 || count["culvert_channel_"] == 0 || count["go_"] == 0 {
			t.Errorf("%s: not all metrics were found: %v in\n%s", tt.command, count, page)
		}
	}
}
