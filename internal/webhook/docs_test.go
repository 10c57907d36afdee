package webhook

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// metricRows returns the webhook's metrics as docs/metrics.md would have them, by name.
func metricRows(t *testing.T, r *running) map[string]string {
	t.Helper()
	families, err := r.o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, "culvert_webhook_") {
			continue
		}
		labels := " "
		for _, l := range f.GetMetric()[0].GetLabel() { // none has more than one
			labels = " `" + l.GetName() + "` "
		}
		all[name] = fmt.Sprintf("| `%s` | %s |%s| %s |", name, strings.ToLower(f.GetType().String()), labels, f.GetHelp())
	}
	return all
}

// docs/metrics.md has every metric of the webhook, as it is, and no other; they are as
// Prometheus wants them.
func TestMetricsDocument(t *testing.T) {
	r := start(t)
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Webhook\n")
	section, _, _ = strings.Cut(section, "\n## ")
	want := metricRows(t, r)
	documented := 0
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| `culvert_") {
			documented++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !strings.Contains(section, want[name]+"\n") {
			t.Errorf("docs/metrics.md has not\n%s", want[name])
		}
	}
	if documented != len(want) {
		t.Errorf("docs/metrics.md has %d metrics of the webhook, there are %d", documented, len(want))
	}
	families, err := r.o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "culvert_webhook_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// The alert rules name metrics that there are.
func TestAlertsNameMetrics(t *testing.T) {
	text, err := os.ReadFile("../../deploy/grafana/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	have := metricRows(t, start(t))
	names := regexp.MustCompile(`culvert_webhook_[a-z_]+`).FindAllString(string(text), -1)
	for _, name := range names {
		if have[name] == "" {
			t.Errorf("an alert asks for %s, which there is not", name)
		}
	}
	if len(names) == 0 {
		t.Error("no alert is about the webhook")
	}
}
