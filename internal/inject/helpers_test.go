package inject

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// identifiers of nobody.
var (
	relayID  = strings.Repeat("b", 51) + "a"
	outletID = strings.Repeat("c", 51) + "a"
	otherID  = strings.Repeat("d", 51) + "a"
)

const aRoute = "tcp://relay:4000/"

// injector makes one with a route and a Secret, which most tests say nothing of.
func injector(t testing.TB) *Injector {
	t.Helper()
	in, err := New(Defaults{
		Routes: []string{aRoute + relayID}, IdentitySecret: "inlet-identity", Outlets: map[string]string{"orders-db": outletID},
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// podOf decodes a pod as an API server would send it, with annotations.
func podOf(t testing.TB, spec string, annotations map[string]string) map[string]any {
	t.Helper()
	pod := decode(t, `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "annotations": {}}, "spec": `+spec+`}`)
	for key, text := range annotations {
		pod["metadata"].(object)["annotations"].(object)[key] = text
	}
	return pod
}

func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var o map[string]any
	if err := d.Decode(&o); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return o
}

func encode(t testing.TB, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// patched returns an object after a patch, which went through JSON as an API server
// gets it.
func patched(t testing.TB, o map[string]any, patch []Operation) map[string]any {
	t.Helper()
	var sent []Operation
	d := json.NewDecoder(strings.NewReader(encode(t, patch)))
	d.UseNumber()
	if err := d.Decode(&sent); err != nil {
		t.Fatal(err)
	}
	n := made(o)
	if err := apply(n, sent); err != nil {
		t.Fatalf("%v\n%s", err, encode(t, patch))
	}
	v, err := value(n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return v.(object)
}

// mustInject returns the pod with what its annotations ask for.
func mustInject(t testing.TB, in *Injector, pod map[string]any) (map[string]any, *Result) {
	t.Helper()
	r, err := in.Pod(pod)
	if err != nil {
		t.Fatalf("%v\n%s", err, encode(t, pod))
	}
	return patched(t, pod, r.Patch), r
}

const plainSpec = `{"containers": [{"name": "app", "image": "app"}]}`
