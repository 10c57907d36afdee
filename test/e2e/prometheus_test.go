//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// grafana is the folder of the dashboards and alert rules.
const grafana = "../../deploy/grafana"

// A prometheus is a server that scrapes a world's programs.
type prometheus struct {
	t    *testing.T
	addr string
	*proc
}

// prometheus starts a server that scrapes every program of the world twice a second
// and evaluates the alert rules as often, and waits until it has scraped all of them
// often enough for rates.
func (w *world) prometheus() *prometheus {
	w.t.Helper()
	dir := filepath.Join(w.dir, "prometheus")
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	giveAway(w.t, dir)
	rules, err := os.ReadFile(filepath.Join(grafana, "alerts.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	var targets []string
	for _, n := range w.nodes {
		targets = append(targets, n.metrics)
	}
	files := map[string]string{
		"alerts.yaml": string(rules),
		"prometheus.yaml": "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\nrule_files: [alerts.yaml]\nscrape_configs:\n- job_name: culvert\n  static_configs:\n  - targets: " +
			list(targets) + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	p := &prometheus{t: w.t, addr: freeAddr(w.t)}
	cmd := unprivileged(exec.Command(tool(w.t, "prometheus"), "--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--web.listen-address="+p.addr, "--log.level=warn"))
	cmd.Dir = dir
	if p.proc, err = startProc("prometheus", cmd); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		p.wantExit(w.t, 0, 20*time.Second)
		if w.t.Failed() {
			w.t.Logf("log of prometheus:\n%s", p.log.tail(40))
		}
	})
	all := fmt.Sprintf("count(count_over_time(culvert_build_info[1m]) >= 4) == %d", len(targets))
	if !eventually(patience, func() bool { n, err := p.query(all); return err == nil && n == 1 || !p.running() }) || !p.running() {
		w.t.Fatal("prometheus has not scraped all programs")
	}
	return p
}

// api asks the server, and decodes the answer's data into v.
func (p *prometheus) api(path string, query url.Values, v any) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + p.addr + "/api/v1/" + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: v}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// query returns how many series an expression has now.
func (p *prometheus) query(expr string) (series int, err error) {
	var data struct{ Result []any }
	err = p.api("query", url.Values{"query": {expr}}, &data)
	return len(data.Result), err
}

// A dashboard is what is looked at of one.
type dashboard struct {
	UID, Title string
	Panels     []struct {
		Title   string
		Targets []struct{ Expr string }
	}
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

// readDashboards returns all of them, by file.
func readDashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(grafana, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	all := map[string]dashboard{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = d
	}
	return all
}

// filled puts into a dashboard's query what Grafana would, where all is chosen.
var filled = strings.NewReplacer("$job", ".*", "$instance", ".*", "$service", ".*", "$__rate_interval", "10s")

var (
	metricName = regexp.MustCompile(`culvert_[a-z_]*(?:\([a-z|]+\)[a-z_]*)?`)
	choice     = regexp.MustCompile(`^(.*)\(([a-z|]+)\)(.*)$`)
	labelsOf   = regexp.MustCompile(`^label_values\((.*), ([a-z]+)\)$`)
)

// metricNames returns the metrics of an expression; a choice of names counts as all
// of them.
func metricNames(expr string) (names []string) {
	for _, name := range metricName.FindAllString(expr, -1) {
		m := choice.FindStringSubmatch(name)
		if m == nil {
			names = append(names, name)
			continue
		}
		for part := range strings.SplitSeq(m[2], "|") {
			names = append(names, m[1]+part+m[3])
		}
	}
	return names
}

// A world in which everything is there that dashboards show: members of an authority,
// a service by name and one of an outlet that is named, audit logs.
func (w *world) forDashboards() {
	w.t.Helper()
	audited := func(name string) string { return "audit: " + name + ".audit\n" }
	authority := w.id("authority")
	w.start("relay", "relay", "", "listen: [\"tcp://"+w.addr("relay")+"\"]\nauthorities: ["+authority+"]\n"+
		"register: peer.id == \""+authority+"\" || peer.attr.role == \"outlet\"\nconnect: target == \""+authority+"\" || peer.attr.role == \"inlet\"\n"+audited("relay")).wantReady()
	a := w.authority("authority", "relay")
	w.start("outlet", "outlet", "", "relays: "+list([]string{w.hop("relay")})+"\nservices:\n  - {name: orders-db, target: \"tcp://"+serveTCP(w.t, echo)+"\", allow: 'true'}\n"+
		audited("outlet")+a.enrolment(w.t, "outlet", "role=outlet", "service=orders-db")).wantReady()
	w.start("inlet", "inlet", "", "services:\n  - {listen: \"tcp://"+w.at("inlet", "by-name")+"\", service: orders-db, routes: "+list([]string{w.hop("relay")})+"}\n"+
		"  - {listen: \"tcp://"+w.at("inlet", "named")+"\", service: orders-db, outlet: "+w.id("outlet")+", routes: "+list([]string{w.hop("relay")})+"}\n"+
		audited("inlet")+a.enrolment(w.t, "inlet", "role=inlet")).wantReady()
}

// Prometheus scrapes the programs while they work: every metric that a dashboard or an
// alert names is there, every query of theirs is one and has an answer, and no rule fails.
func TestDashboards(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.forDashboards()
	for _, service := range []string{"by-name", "named"} {
		c := dial(t, w.at("inlet", service))
		defer c.Close()
		exchange(t, c, "select 1")
		exchangeOnce(t, w.at("inlet", service))
	}
	p := w.prometheus()
	var names []string
	if err := p.api("label/__name__/values", nil, &names); err != nil {
		t.Fatal(err)
	}
	known := func(where, expr string) {
		for _, name := range metricNames(expr) {
			if !slices.Contains(names, name) {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
	}
	queries := 0
	for file, d := range readDashboards(t) {
		for _, panel := range d.Panels {
			for _, target := range panel.Targets {
				where := file + ": " + panel.Title
				known(where, target.Expr)
				n, err := p.query(filled.Replace(target.Expr))
				if err != nil || n == 0 {
					t.Errorf("%s: %s has %d series, %v", where, target.Expr, n, err)
				}
				queries++
			}
		}
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			m := labelsOf.FindStringSubmatch(v.Definition)
			if m == nil {
				t.Errorf("%s: variable %s: %s asks for no label's values", file, v.Name, v.Definition)
				continue
			}
			known(file+": variable "+v.Name, m[1])
			var values []string
			if err := p.api("label/"+m[2]+"/values", url.Values{"match[]": {filled.Replace(m[1])}}, &values); err != nil || len(values) == 0 {
				t.Errorf("%s: variable %s has the values %v, %v", file, v.Name, values, err)
			}
		}
	}
	if queries < 50 {
		t.Errorf("%d queries were found in the dashboards", queries)
	}
	p.wantRules(known)
}

// wantRules wants the alert rules to name metrics that are known, to work, and not to
// fire: nothing is wrong.
func (p *prometheus) wantRules(known func(where, expr string)) {
	p.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct {
				Name, Query, Health, LastError, State string
			}
		}
	}
	if !eventually(patience, func() bool {
		err := p.api("rules", nil, &data)
		unknown := 0
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				if r.Health == "unknown" {
					unknown++
				}
			}
		}
		return err == nil && len(data.Groups) > 0 && unknown == 0
	}) {
		p.t.Fatal("the rules were not evaluated")
	}
	rules := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if !strings.Contains(r.Query, "culvert_webhook_") { // which does not run here: its own test asks
				known("alert "+r.Name, r.Query)
			}
			if r.Health != "ok" || r.State == "firing" {
				p.t.Errorf("alert %s: %s, %s: %s", r.Name, r.Health, r.State, r.LastError)
			}
			rules++
		}
	}
	if rules < 10 {
		p.t.Errorf("%d rules were found", rules)
	}
}

// The alert rules do what their own tests say.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.Command(tool(t, "promtool"), args...)
		cmd.Dir = grafana
		if out, errOut, code := tryCommand(t, patience, cmd); code != 0 {
			t.Errorf("promtool %s: exit code %d: %s%s", strings.Join(args, " "), code, out, errOut)
		}
	}
}
