package inject

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// However many faults there are, so many are told of and it is said that there are more;
// each is short, whatever is in the annotation.
func TestFaultsAreBounded(t *testing.T) {
	for what, annotations := range map[string]func(i int) (key, value string){
		"misspelt": func(i int) (string, string) { return fmt.Sprintf("culvert.dev/inlet-%d", i), "5432=orders-db" },
		"long names": func(i int) (string, string) {
			return fmt.Sprintf("culvert.dev/%d%s", i, strings.Repeat("ä", 1<<10)), ""
		},
		"control codes": func(i int) (string, string) { return fmt.Sprintf("culvert.dev/%d\x1b[31m\n", i), "" },
	} {
		all := map[string]string{Inlet: "5432=orders-db"}
		for i := range 100 {
			key, value := annotations(i)
			all[key] = value
		}
		_, err := injector(t).Pod(podOf(t, plainSpec, all))
		if err == nil {
			t.Fatalf("%s: taken", what)
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != maxFaults+1 || !strings.Contains(lines[maxFaults], "more faults") {
			t.Errorf("%s: %d lines, want %d faults and that there are more: %.1000s", what, len(lines), maxFaults, err)
		}
		if len(err.Error()) > maxFaults<<10 || !utf8.ValidString(err.Error()) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %d bytes: %.1000q", what, len(err.Error()), err)
		}
	}
}

// Ports, names and volumes that are taken are no more faults than that either.
func TestConflictsAreBounded(t *testing.T) {
	containers := strings.Repeat(`{"name": "culvert-inlet", "ports": [{"containerPort": 5432}]},`, 100)
	_, err := injector(t).Pod(podOf(t, `{"containers": [`+strings.TrimSuffix(containers, ",")+`]}`, map[string]string{Inlet: "5432=orders-db"}))
	if err == nil || strings.Count(err.Error(), "\n") != maxFaults {
		t.Errorf("got %.1000v, want %d faults and that there are more", err, maxFaults)
	}
	long := `{"containers": [{"name": "` + strings.Repeat("a", 1<<20) + `", "ports": [{"containerPort": 5432}]}]}`
	if _, err := injector(t).Pod(podOf(t, long, map[string]string{Inlet: "5432=orders-db"})); err == nil || len(err.Error()) > 1<<10 {
		t.Errorf("a long name: got %d bytes", len(fmt.Sprint(err)))
	}
}

// No more annotations are read than Kubernetes takes, and none are made beyond that.
func TestAnnotationsAreBounded(t *testing.T) {
	route := func(n int) string { return strings.TrimSpace(strings.Repeat(aRoute+relayID+" ", n)) }
	var ports, services []string
	for i := range maxEntries {
		ports = append(ports, fmt.Sprintf("%d=orders-db", 1000+i))
		services = append(services, fmt.Sprintf("s%d=%d", i, 1000+i))
	}
	for _, tt := range []struct {
		what        string
		annotations map[string]string
		want        string // "": it is taken
	}{
		{"others' that are just taken", map[string]string{Inlet: "5432=orders-db", "a": strings.Repeat("a", 200<<10)}, ""},
		{"others'", map[string]string{Inlet: "5432=orders-db", "a": strings.Repeat("a", 256<<10)}, "metadata.annotations"},
		{"others' names", map[string]string{Inlet: "5432=orders-db", strings.Repeat("a", 256<<10): ""}, "metadata.annotations"},
		{"of a pod that asks for nothing", map[string]string{"a": strings.Repeat("a", 256<<10)}, "metadata.annotations"},
		{"with the settings", map[string]string{Inlet: "5432=orders-db", "a": strings.Repeat("a", 256<<10-100)}, InletConfig},
		{"settings", map[string]string{Inlet: strings.Join(ports, ","), Routes: route(2)}, ""},
		{"settings of many routes", map[string]string{Inlet: strings.Join(ports, ","), Routes: route(60)}, InletConfig},
		{"settings of a long policy", map[string]string{Outlet: strings.Join(services, ","), Allow: `peer.id == "` + strings.Repeat("a", 4<<10) + `"`}, OutletConfig},
	} {
		_, err := injector(t).Pod(podOf(t, plainSpec, tt.annotations))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: got %.1000v", tt.what, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1<<10):
			t.Errorf("%s: got %.1000v, want it refused for %s", tt.what, err, tt.want)
		}
	}
}

// A time to end that cannot be added to is nobody's to overwrite.
func TestGraceRefused(t *testing.T) {
	for _, seconds := range []string{`"10"`, "-1", "1.5", "9223372036854775807", "1e30", "{}"} {
		spec := `{"terminationGracePeriodSeconds": ` + seconds + `, "containers": [{"name": "a"}]}`
		if _, err := injector(t).Pod(podOf(t, spec, map[string]string{Inlet: "5432=orders-db"})); err == nil || !strings.Contains(err.Error(), "terminationGracePeriodSeconds") {
			t.Errorf("%s: got %v, want it refused", seconds, err)
		}
	}
}
