package inject

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the files of testdata that are wanted")

const manifestYAML = `# a service, which stays as it is
apiVersion: v1
kind: Service
metadata: {name: app,   labels: {a: 'b'}}
--- # the app
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app # its name
spec:
  template:
    metadata:
      annotations: {culvert.dev/inlet: "5432=orders-db"}
    spec:
      containers:
        - name: app
          image: app:1 # pinned
`

// Each file of testdata becomes the one beside it, and that stays as it is.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			manifest, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := injector(t)
			got, _, err := in.Manifest(file, manifest)
			if err != nil {
				t.Fatal(err)
			}
			wanted := strings.Replace(file, ".in.", ".want.", 1)
			if *update {
				if err := os.WriteFile(wanted, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wanted)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got\n%s\nwant (go test -run TestGolden -update, if it is right)\n%s", got, want)
			}
			again, changes, err := in.Manifest(wanted, got)
			if err != nil || len(changes) != 0 || string(again) != string(got) {
				t.Errorf("a second time: %v, %v", changes, err)
			}
		})
	}
}

// What is not concerned stays byte for byte; comments and order stay everywhere.
func TestManifestKeeps(t *testing.T) {
	out, changes, err := injector(t).Manifest("app.yaml", []byte(manifestYAML))
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != 1 || changes[0].Object != "Deployment app" {
		t.Errorf("changes: %+v", changes)
	}
	before, _, _ := strings.Cut(manifestYAML, "--- # the app\n")
	if !strings.HasPrefix(string(out), before+"--- # the app\n") {
		t.Errorf("the Service is another:\n%s", out)
	}
	for _, want := range []string{"# its name", "# pinned", "culvert-inlet"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
}

// Whatever else is in a stream stays as it is.
func TestManifestPassesOn(t *testing.T) {
	for _, text := range []string{
		"", "\n", "---\n", "---\n---\n# nothing\n", "%YAML 1.1\n---\nkind: ConfigMap\n...\n---\n",
		"kind: ConfigMap\r\ndata: {a: |\r\n", // of no kind that is looked at, but no YAML either
		"{\"kind\": \"Secret\",\t\"a\": 1.50}\n\n{}\n", "apiVersion: v1\nkind: Pod\nspec: {containers: []}\n",
		"a: &x {b: 1}\nc: *x\n", "text\n", "- 1\n",
	} {
		out, changes, err := injector(t).Manifest("-", []byte(text))
		if strings.Contains(text, "|\r\n") {
			if err == nil {
				t.Errorf("%q is no YAML, and was taken", text)
			}
			continue
		}
		if err != nil || len(changes) != 0 || string(out) != text {
			t.Errorf("%q: got %q, %v, %v", text, out, changes, err)
		}
	}
}

// A fault is told with the file, the line where its object begins and its name, all
// at once, and nothing is printed.
func TestManifestFaults(t *testing.T) {
	bad := strings.ReplaceAll(manifestYAML, "5432=orders-db", "5432")
	out, _, err := injector(t).Manifest("app.yaml", []byte(bad+"---\n"+bad))
	if err == nil || out != nil {
		t.Fatalf("got %s, %v", out, err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "app.yaml:6: Deployment app: culvert.dev/inlet: ") || !strings.HasPrefix(lines[1], "app.yaml:24: ") {
		t.Errorf("got %q", lines)
	}
	for text, want := range map[string]string{
		"kind: [": "-:1:", `{"a": `: "in the middle", "{]": "line 1",
		"apiVersion: v1\nkind: Pod\nkind: Pod\n":                                          "twice",
		"apiVersion: v1\nkind: Pod\nspec: &s\n  x: *s\n":                                  "",
		strings.Repeat("#", MaxManifest+1):                                                "more than",
		"apiVersion: v1\nkind: Pod\n<<: [{a: 1}, {b: 2}]\nx: &a 1\ny: *a\n":               "merge key",
		"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {culvert.dev/inlet: 5432}}\n": "in quotes",
	} {
		if _, _, err := injector(t).Manifest("-", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want something about %q", text, err, want)
		}
	}
}

// An alias is one place of several: a change of one is none of the others, and what a
// few bytes can make endless is refused.
func TestManifestAliases(t *testing.T) {
	const shared = `apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {name: one, annotations: {culvert.dev/inlet: 5432=orders-db}}
    spec: &spec
      containers: [{name: app}]
  - apiVersion: v1
    kind: Pod
    metadata: {name: two}
    spec: *spec
`
	out, changes, err := injector(t).Manifest("-", []byte(shared))
	if err != nil || len(changes) != 1 {
		t.Fatalf("%v, %v", changes, err)
	}
	var got struct {
		Items []struct {
			Spec struct {
				InitContainers []any `yaml:"initContainers"`
			}
		}
	}
	if err := yaml.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(got.Items) != 2 || len(got.Items[0].Spec.InitContainers) != 1 || len(got.Items[1].Spec.InitContainers) != 0 {
		t.Errorf("want a sidecar in the first pod only:\n%s", out)
	}
	bomb := "apiVersion: v1\nkind: Pod\na0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n"
	for i := range 9 {
		name := string(rune('0' + i))
		next := string(rune('1' + i))
		bomb += "a" + next + ": &a" + next + " [*a" + name + ", *a" + name + ", *a" + name + ", *a" + name + ", *a" + name + ", *a" + name + ", *a" + name + ", *a" + name + "]\n"
	}
	if _, _, err := injector(t).Manifest("-", []byte(bomb)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a bomb: got %v", err)
	}
}

// JSON stays JSON, with its numbers as they are.
func TestManifestJSON(t *testing.T) {
	const list = `{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "annotations": {"culvert.dev/inlet": "5432=orders-db"}},
   "spec": {"containers": [{"name": "app", "x": 12345678901234567890, "y": 1.50, "z": "\ud83d\ude00 <&>"}]}}]}
`
	out, changes, err := injector(t).Manifest("-", []byte(list))
	if err != nil || len(changes) != 1 || !json.Valid(out) {
		t.Fatalf("%v, %v\n%s", changes, err, out)
	}
	for _, want := range []string{"12345678901234567890", "1.50", "\U0001F600 <&>", `"culvert-inlet"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("lacks %s:\n%s", want, out)
		}
	}
}
