package app

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

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
