package inject

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// bothSidecars asks for an inlet and an outlet.
func bothSidecars() map[string]string {
	return map[string]string{Inlet: "5432=orders-db", Outlet: "reports=8080", Allow: relayID, Authority: "tcp://authority:4100/" + otherID}
}

// sidecarsOf returns the sidecars that were injected, by name.
func sidecarsOf(pod map[string]any) map[string]object {
	all := map[string]object{}
	for _, c := range pod["spec"].(object)["initContainers"].([]any) {
		all[nameOf(c)] = c.(object)
	}
	return all
}

// An inlet and an outlet in one pod have nothing of each other's: not the port of their
// metrics nor its name, not their settings nor their state.
func TestBothSidecars(t *testing.T) {
	all := bothSidecars()
	all[MetricsPort] = "9400"
	pod, _ := mustInject(t, injector(t), podOf(t, plainSpec, all))
	sidecars := sidecarsOf(pod)
	for name, want := range map[string]string{inletName: "9400", outletName: "9401"} {
		got := sidecars[name]["ports"]
		if port := []any{object{"name": name, "containerPort": num(mustInt(t, want))}}; !reflect.DeepEqual(got, port) {
			t.Errorf("%s: ports %v, want %v", name, got, port)
		}
		for _, probe := range []string{"startupProbe", "livenessProbe"} {
			if got := sidecars[name][probe].(object)["httpGet"].(object)["port"]; got != name {
				t.Errorf("%s: %s asks the port %v", name, probe, got)
			}
		}
	}
	volumes := map[string][]any{} // by path: of both
	for _, c := range sidecars {
		for _, m := range c["volumeMounts"].([]any) {
			path := m.(object)["mountPath"].(string)
			volumes[path] = append(volumes[path], nameOf(m))
		}
	}
	for _, path := range []string{configDir, stateDir} {
		if v := volumes[path]; len(v) != 2 || v[0] == v[1] {
			t.Errorf("%s is of the volumes %v, want one of each", path, v)
		}
	}
}

func mustInt(t *testing.T, text string) (n int64) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Names of ports are valid (IANA_SVC_NAME: 15 characters at most), and an application's own
// port "metrics" stays the only one of that name.
func TestPortNames(t *testing.T) {
	spec := `{"containers": [{"name": "app", "image": "app", "ports": [{"name": "metrics", "containerPort": 8080}]}]}`
	pod, _ := mustInject(t, injector(t), podOf(t, spec, bothSidecars()))
	var names []string
	for name, c := range sidecarsOf(pod) {
		for _, p := range c["ports"].([]any) {
			if n := nameOf(p); len(n) > 15 || n == "metrics" || slices.Contains(names, n) {
				t.Errorf("%s: a port %q beside %q", name, n, names)
			}
			names = append(names, nameOf(p))
		}
	}
}

// Prometheus finds the pod by a label, which goes when it is not wanted, and which a person
// may set otherwise.
func TestScrape(t *testing.T) {
	in := injector(t)
	original := podOf(t, plainSpec, map[string]string{Inlet: "5432=orders-db"})
	labels := func(pod map[string]any) object {
		l, _ := pod["metadata"].(object)["labels"].(object)
		return l
	}
	pod, _ := mustInject(t, in, original)
	if want := (object{relayClient: "true", Scrape: "true"}); !reflect.DeepEqual(labels(pod), want) {
		t.Errorf("labels %v, want %v", labels(pod), want)
	}
	set(pod, Scrape, "false")
	pod, _ = mustInject(t, in, pod)
	if want := (object{relayClient: "true"}); !reflect.DeepEqual(labels(pod), want) {
		t.Errorf("not to be scraped: labels %v, want %v", labels(pod), want)
	}
	set(pod, Scrape, "true")
	if pod, _ = mustInject(t, in, pod); labels(pod)[Scrape] != "true" {
		t.Errorf("to be scraped again: labels %v", labels(pod))
	}
	original["metadata"].(object)["labels"] = object{Scrape: "later"}
	pod, _ = mustInject(t, in, original)
	if _, r := mustInject(t, in, pod); labels(pod)[Scrape] != "later" || len(r.Patch) != 0 {
		t.Errorf("a person's own label: got %v, and then %v", labels(pod), r.Patch)
	}
	delete(pod["metadata"].(object)["annotations"].(object), Inlet)
	if pod, _ = mustInject(t, in, pod); !reflect.DeepEqual(labels(pod), object{Scrape: "later"}) {
		t.Errorf("taken out: labels %v", labels(pod))
	}
}

// Labels that a pod's record names and that are nobody's of this package stay.
func TestRecordOfOthersLabels(t *testing.T) {
	pod := podOf(t, plainSpec, map[string]string{Injected: `{"hash":"","labels":["app"]}`})
	pod["metadata"].(object)["labels"] = object{"app": "x"}
	if got, _ := mustInject(t, injector(t), pod); got["metadata"].(object)["labels"].(object)["app"] != "x" {
		t.Errorf("got %s", encode(t, got))
	}
}
