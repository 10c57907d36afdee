package inject

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/internal/config"
)

// What is wrong is said with the annotation's name, or the field's, and what to write.
func TestFaults(t *testing.T) {
	many := strings.Repeat("1=a,", maxEntries+1)
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		spec        string // "": plainSpec
		want        []string
	}{
		{"no service", map[string]string{Inlet: "5432"}, "", []string{Inlet, `"5432"`, "PORT=SERVICE"}},
		{"no port", map[string]string{Inlet: "x=orders-db"}, "", []string{Inlet, `"x" is no port`}},
		{"port 0", map[string]string{Inlet: "0=orders-db"}, "", []string{"no port"}},
		{"port with a sign", map[string]string{Inlet: "+5432=orders-db"}, "", []string{"no port"}},
		{"large port", map[string]string{Inlet: "65536=orders-db"}, "", []string{"1 to 65535"}},
		{"turned round", map[string]string{Inlet: "orders-db=5432"}, "", []string{Inlet, "write PORT=SERVICE"}},
		{"upper case", map[string]string{Inlet: "5432=Orders"}, "", []string{"no name of a service"}},
		{"same port", map[string]string{Inlet: "5432=orders-db,5432=orders-db"}, "", []string{"twice"}},
		{"empty", map[string]string{Inlet: " ,\n"}, "", []string{Inlet, "empty"}},
		{"too many", map[string]string{Inlet: many}, "", []string{"at most 64"}},
		{"too long", map[string]string{Inlet: strings.Repeat("1", MaxAnnotation+1)}, "", []string{Inlet, InletConfig}},
		{"identifier", map[string]string{Inlet: "5432=orders-db@nobody"}, "", []string{Inlet, "identity show"}},
		{"whose", map[string]string{Inlet: "5432=other-db"}, "", []string{"5432=other-db@IDENTIFIER"}},
		{"misspelt", map[string]string{"culvert.dev/inlets": "5432=orders-db"}, "", []string{"culvert.dev/inlets", "no such annotation", Inlet}},
		{"alone", map[string]string{Routes: aRoute + relayID}, "", []string{Routes, "none is asked for"}},
		{"two settings", map[string]string{Inlet: "5432=orders-db", InletConfig: "inlet"}, "", []string{InletConfig, "remove one"}},
		{"ConfigMap", map[string]string{InletConfig: "In let"}, "", []string{InletConfig, "no name of an object"}},
		{"routes with ConfigMap", map[string]string{InletConfig: "inlet", Routes: aRoute + relayID}, "", []string{Routes, "remove it"}},
		{"route", map[string]string{Inlet: "5432=orders-db", Routes: "relay:4000"}, "", []string{Routes, "tcp://HOST:PORT/IDENTIFIER"}},
		{"empty routes", map[string]string{Inlet: "5432=orders-db", Routes: " "}, "", []string{Routes, "empty"}},
		{"two authorities", map[string]string{Inlet: "5432=orders-db", Authority: aRoute + relayID + " " + aRoute + otherID}, "", []string{Authority, "one authority"}},
		{"variable", map[string]string{Inlet: "5432=orders-db@${OUTLET}"}, "", []string{Inlet, Variables}},
		{"wait", map[string]string{Inlet: "5432=orders-db", Wait: "other-db"}, "", []string{Wait, "other-db"}},
		{"wait for what", map[string]string{Inlet: "5432=orders-db", Wait: "Yes!"}, "", []string{Wait, `"true"`}},
		{"metrics", map[string]string{Inlet: "5432=orders-db", MetricsPort: "http"}, "", []string{MetricsPort, "no port"}},
		{"metrics at the end", map[string]string{Inlet: "5432=orders-db", MetricsPort: "65535"}, "", []string{MetricsPort, "second"}},
		{"quantity", map[string]string{Inlet: "5432=orders-db", MemoryLimit: "much"}, "", []string{MemoryLimit, "64Mi"}},
		{"nobody", map[string]string{Outlet: "orders-db=5432"}, "", []string{Allow, "nobody"}},
		{"expression", map[string]string{Outlet: "orders-db=5432", Allow: "peer.attr.role = 1"}, "", []string{Allow}},
		{"allowed whom", map[string]string{Outlet: "orders-db=5432", Allow: "someone"}, "", []string{Allow, "identity show"}},
		{"allow of an inlet", map[string]string{Inlet: "5432=orders-db", Allow: relayID}, "", []string{Allow, Outlet}},
		{"target", map[string]string{Outlet: "orders-db=http://x", Allow: relayID}, "", []string{Outlet, "SERVICE=PORT"}},
		{"same service", map[string]string{Outlet: "a=1,a=2", Allow: relayID}, "", []string{Outlet, "twice"}},
		{"loop by name", map[string]string{Inlet: "5432=orders-db", Outlet: "a=Localhost:5432", Allow: relayID}, "", []string{Outlet, "the inlet's"}},
		{"scrape", map[string]string{Inlet: "5432=orders-db", Scrape: "no"}, "", []string{Scrape, `"no"`, `"false"`}},
		{"loop", map[string]string{Inlet: "5432=orders-db", Outlet: "a=5432", Allow: relayID}, "", []string{Outlet, "the inlet's"}},

		{"record", map[string]string{Inlet: "5432=orders-db", Injected: "yes"}, "", []string{Injected, "before it was injected"}},
		{"port taken", map[string]string{Inlet: "5432=orders-db"}, `{"containers": [{"name": "db", "ports": [{"containerPort": 5432}]}]}`, []string{Inlet, "container db", "another port"}},
		{"metrics taken", map[string]string{Inlet: "5432=orders-db"}, `{"containers": [{"name": "exporter", "ports": [{"containerPort": 9100, "protocol": "TCP"}]}]}`, []string{MetricsPort, "container exporter"}},
		{"metrics the inlet's", map[string]string{Inlet: "9100=orders-db"}, "", []string{MetricsPort, "the inlet's"}},
		{"name taken", map[string]string{Inlet: "5432=orders-db"}, `{"containers": [{"name": "culvert-inlet"}]}`, []string{"spec.containers[0]", "rename"}},
		{"volume taken", map[string]string{Inlet: "5432=orders-db"}, `{"containers": [{"name": "a"}], "volumes": [{"name": "culvert-token"}]}`, []string{"spec.volumes[0]", "rename"}},
		{"host network", map[string]string{Inlet: "5432=orders-db"}, `{"hostNetwork": true, "containers": [{"name": "a"}]}`, []string{"spec.hostNetwork", "remove"}},
		{"Windows", map[string]string{Inlet: "5432=orders-db"}, `{"os": {"name": "windows"}, "containers": [{"name": "a"}]}`, []string{"spec.os", "Linux"}},
		{"Windows by label", map[string]string{Inlet: "5432=orders-db"}, `{"nodeSelector": {"kubernetes.io/os": "windows"}, "containers": [{"name": "a"}]}`, []string{"spec.nodeSelector", "Linux"}},
		{"no container", map[string]string{Inlet: "5432=orders-db"}, `{}`, []string{"spec.containers"}},
		{"lasting volume", map[string]string{Inlet: "5432=orders-db"}, `{"containers": [{"name": "a"}], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}`, []string{"spec.securityContext.fsGroup", `"data"`, "OnRootMismatch"}},
		{"claim of a StatefulSet", map[string]string{Inlet: "5432=orders-db"}, `{"containers": [{"name": "a", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}`, []string{"spec.securityContext.fsGroup", `"data"`}},
		{"no list", map[string]string{Inlet: "5432=orders-db"}, `{"containers": {"name": "a"}}`, []string{"spec.containers", "no list"}},
		{"no objects", map[string]string{Inlet: "5432=orders-db"}, `{"containers": ["a"]}`, []string{"spec.containers", "no list"}},
		{"two faults", map[string]string{Inlet: "5432", MemoryLimit: "much"}, "", []string{Inlet, MemoryLimit}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := podOf(t, orElse(tt.spec, plainSpec), tt.annotations)
			r, err := injector(t).Pod(pod)
			if err == nil {
				t.Fatalf("got %s, want an error", encode(t, r))
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want something about %q", err, want)
				}
			}
		})
	}
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// A pod whose sidecar nobody would know is refused.
func TestNobody(t *testing.T) {
	in, err := New(Defaults{Routes: []string{aRoute + relayID}})
	if err != nil {
		t.Fatal(err)
	}
	inlet := map[string]string{Inlet: "5432=orders-db@" + outletID}
	if _, err := in.Pod(podOf(t, plainSpec, inlet)); err == nil || !strings.Contains(err.Error(), IdentitySecret) {
		t.Errorf("an inlet without identity: got %v", err)
	}
	inlet[Authority] = "tcp://authority:4100/" + otherID
	if _, err := in.Pod(podOf(t, plainSpec, inlet)); err != nil {
		t.Errorf("an inlet whose authority knows it: got %v", err)
	}
	outlet := map[string]string{Outlet: "orders-db=5432", Allow: relayID, Authority: inlet[Authority]}
	if _, err := in.Pod(podOf(t, plainSpec, outlet)); err == nil || !strings.Contains(err.Error(), IdentitySecret) {
		t.Errorf("an outlet whose identifier nobody could know: got %v", err)
	}
}

// Defaults are checked when they are taken.
func TestNewRefuses(t *testing.T) {
	for want, d := range map[string]Defaults{
		"image":       {Image: "a b"},
		"pull policy": {PullPolicy: "Sometimes"},
		"audience":    {Audience: "a b"},
		"route":       {Routes: []string{"nowhere"}},
		"authority":   {Authority: []string{aRoute + relayID, aRoute + otherID}},
		"outlet of":   {Outlets: map[string]string{"orders-db": "nobody"}},
		"name of":     {IdentitySecret: "A"},
		"CPU":         {CPURequest: "-1"},
		"limit":       {MemoryLimit: "1 GiB"},
	} {
		if _, err := New(d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want something about %s", d, err, want)
		}
	}
}

// What annotations make is what the programs take.
func TestSettingsAreValid(t *testing.T) {
	all := map[string]string{
		Inlet:     "5432=orders-db\n6379=cache@" + otherID,
		Outlet:    "reports=8080, mail=mail.example.org:25",
		Allow:     `peer.attr["k8s.serviceaccount"] == "app" && service.matches("^r.*$")`,
		Routes:    aRoute + relayID + "  tcp://a:1/" + strings.Repeat("e", 51) + "a,tcp://b:2/" + relayID,
		Authority: "tcp://authority:4100/" + otherID,
	}
	pod, r := mustInject(t, injector(t), podOf(t, plainSpec, all))
	if want := []string{"inlet", "outlet"}; !slices.Equal(r.Sidecars, want) {
		t.Errorf("sidecars: got %q, want %q", r.Sidecars, want)
	}
	annotations, err := annotationsOf(pod)
	if err != nil {
		t.Fatal(err)
	}
	for key, kind := range map[string]config.Kind{inletSettings: config.KindInlet, outletSettings: config.KindOutlet} {
		file := filepath.Join(t.TempDir(), string(kind)+".yaml")
		if err := os.WriteFile(file, []byte(annotations[key]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Check(file, kind, nil); err != nil {
			t.Errorf("%v\n%s", err, annotations[key])
		}
	}
}

// A second time changes nothing, also where others have since changed the sidecar.
func TestTwice(t *testing.T) {
	in := injector(t)
	pod, _ := mustInject(t, in, podOf(t, plainSpec, map[string]string{Inlet: "5432=orders-db"}))
	if again, r := mustInject(t, in, pod); len(r.Patch) != 0 {
		t.Errorf("a second time: %s", encode(t, Diff(pod, again)))
	}
	sidecar := pod["spec"].(object)["initContainers"].([]any)[0].(object)
	sidecar["volumeMounts"] = append(sidecar["volumeMounts"].([]any), object{"name": "api", "mountPath": "/var/run/secrets"})
	spec := pod["spec"].(object)
	spec["serviceAccountName"] = "default"
	spec["initContainers"] = append([]any{object{"name": "mesh"}}, spec["initContainers"].([]any)...)
	if _, r := mustInject(t, in, pod); len(r.Patch) != 0 {
		t.Errorf("after what others have added: %s", encode(t, r.Patch))
	}
	spec["initContainers"] = spec["initContainers"].([]any)[:1]
	if _, r := mustInject(t, in, pod); len(r.Patch) == 0 {
		t.Error("the sidecar is gone, and is not put back")
	}
}

// Other annotations replace what was there, and none take it out.
func TestChanged(t *testing.T) {
	in := injector(t)
	original := podOf(t, `{"terminationGracePeriodSeconds": 5, "initContainers": [{"name": "first"}], "containers": [{"name": "app", "image": "app"}]}`, map[string]string{Inlet: "5432=orders-db"})
	once, _ := mustInject(t, in, original)
	set(once, Inlet, "5433=orders-db")
	got, _ := mustInject(t, in, once)
	fresh := deepCopy(original).(object)
	set(fresh, Inlet, "5433=orders-db")
	want, _ := mustInject(t, in, fresh)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("changed: got\n%s\nwant\n%s", encode(t, got), encode(t, want))
	}
	delete(got["metadata"].(object)["annotations"].(object), Inlet)
	delete(original["metadata"].(object)["annotations"].(object), Inlet)
	gone, r := mustInject(t, in, got)
	if len(r.Sidecars) != 0 || !reflect.DeepEqual(without0(gone), without0(original)) {
		t.Errorf("taken out: got\n%s\nwant\n%s", encode(t, gone), encode(t, original))
	}
}

func set(pod map[string]any, annotation, text string) {
	pod["metadata"].(object)["annotations"].(object)[annotation] = text
}

// without0 returns a pod without empty annotations.
func without0(pod map[string]any) map[string]any {
	pod = deepCopy(pod).(object)
	metadata := pod["metadata"].(object)
	if isEmpty(metadata["annotations"]) {
		delete(metadata, "annotations")
	}
	return pod
}

// A person's own time to end is kept above the sidecar's, and stays a person's.
func TestGrace(t *testing.T) {
	in := injector(t)
	for spec, want := range map[string]int64{
		plainSpec: 60,
		`{"terminationGracePeriodSeconds": 0, "containers": [{"name": "a"}]}`:    30,
		`{"terminationGracePeriodSeconds": 3600, "containers": [{"name": "a"}]}`: 3630,
	} {
		pod, _ := mustInject(t, in, podOf(t, spec, map[string]string{Inlet: "5432=orders-db"}))
		if got, _ := number(pod["spec"].(object)["terminationGracePeriodSeconds"]); got != want {
			t.Errorf("%s: got %d s, want %d", spec, got, want)
		}
		pod["spec"].(object)["terminationGracePeriodSeconds"] = num(100)
		set(pod, Inlet, "5433=orders-db")
		pod, _ = mustInject(t, in, pod)
		if got, _ := number(pod["spec"].(object)["terminationGracePeriodSeconds"]); got != 130 {
			t.Errorf("%s: after a person's change to 100 s: got %d, want 130", spec, got)
		}
	}
}

// Pods that run once wait for their service, unless they say something else.
func TestWait(t *testing.T) {
	for _, tt := range []struct {
		policy, inlet, wait string
		want                []any // arguments of the probe; nil: it is no command
	}{
		{"Always", "5432=orders-db", "", nil},
		{"Never", "5432=orders-db", "", []any{"--health", "orders-db"}},
		{"OnFailure", "5432=orders-db,1=orders-db", "", []any{"--health"}},
		{"OnFailure", "5432=orders-db", "false", nil},
		{"Always", "5432=orders-db", "true", []any{"--health"}},
		{"Always", "5432=orders-db", "orders-db", []any{"--health", "orders-db"}},
	} {
		annotations := map[string]string{Inlet: tt.inlet}
		if tt.wait != "" {
			annotations[Wait] = tt.wait
		}
		pod, _ := mustInject(t, injector(t), podOf(t, `{"restartPolicy": "`+tt.policy+`", "containers": [{"name": "a"}]}`, annotations))
		probe := pod["spec"].(object)["initContainers"].([]any)[0].(object)["startupProbe"].(object)
		var got []any
		if exec, ok := probe["exec"].(object); ok {
			got = exec["command"].([]any)[3:]
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
}

// What is done beyond the annotations is told.
func TestWarnings(t *testing.T) {
	_, r := mustInject(t, injector(t), podOf(t, `{"shareProcessNamespace": true, "containers": [{"name": "a"}]}`, map[string]string{Inlet: "80=orders-db"}))
	for _, want := range []string{"fsGroup", "shareProcessNamespace", "port 80"} {
		if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("got %q, want something about %s", r.Warnings, want)
		}
	}
}

// Workloads have their template injected, and are told of annotations that their pods
// would not get.
func TestObject(t *testing.T) {
	in := injector(t)
	template := `{"metadata": {"annotations": {"culvert.dev/inlet": "5432=orders-db"}}, "spec": ` + plainSpec + `}`
	for kind, text := range map[string]string{
		"Deployment": `{"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": ` + template + `}}`,
		"CronJob":    `{"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": ` + template + `}}}}`,
	} {
		r, err := in.Object(decode(t, text))
		if err != nil || len(r.Patch) == 0 || !strings.Contains(r.Patch[0].Path, "/template/") {
			t.Errorf("%s: got %v, %v", kind, r, err)
		}
	}
	if r, err := in.Object(decode(t, `{"apiVersion": "example.org/v1", "kind": "Deployment", "spec": {"template": `+template+`}}`)); err != nil || len(r.Patch) != 0 {
		t.Errorf("somebody else's kind: got %v, %v", r, err)
	}
	_, err := in.Object(decode(t, `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"annotations": {"culvert.dev/inlet": "5432=orders-db"}}, "spec": {"template": {}}}`))
	if err == nil || !strings.Contains(err.Error(), "spec.template.metadata.annotations") {
		t.Errorf("an annotation in the wrong place: got %v", err)
	}
	if _, err := in.Object(decode(t, `{"apiVersion": "apps/v1", "kind": "Deployment"}`)); err == nil || !strings.Contains(err.Error(), "spec") {
		t.Errorf("no template: got %v", err)
	}
}

func TestAsked(t *testing.T) {
	pod := podOf(t, plainSpec, nil)
	if Asked(pod) != nil {
		t.Error("a pod without the label")
	}
	pod["metadata"].(object)["labels"] = object{Label: "enabled"}
	if Asked(pod) == nil {
		t.Error("a pod with the label is not seen")
	}
	pod["kind"] = "Secret"
	if Asked(pod) != nil {
		t.Error("a Secret has no pods")
	}
}

// Every annotation is in docs/inject.md, and none is there that there is not.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/inject.md")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "| `culvert.dev/"); ok {
			name, _, _ = strings.Cut(name, "`")
			got[prefix+name] = true
		}
	}
	want := map[string]bool{}
	for _, key := range annotations {
		want[key] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("docs/inject.md has %v, there are %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}
