package inject

import (
	"fmt"
	"strings"
	"testing"
)

// What a few bytes of YAML make endless, or very large, is refused with its place.
func TestManifestEndless(t *testing.T) {
	lists := "a0: &a0 {kind: List, items: []}\n"
	for i := range maxLists {
		lists += fmt.Sprintf("a%d: &a%d {kind: List, items: [%s]}\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 40), ","))
	}
	bomb := "a0: &a0 {a: 1}\n"
	for i := range 30 {
		bomb += fmt.Sprintf("a%d: &a%d {<<: *a%d, b: [*a%d, *a%d]}\n", i+1, i+1, i, i, i)
	}
	const pod = "apiVersion: v1\nkind: Pod\n"
	for _, tt := range []struct{ text, want string }{
		{pod + "a: &a {<<: *a}\n", "-:3:12: "},
		{pod + "a: &a\n  <<: *a\n", "-:4:7: "},
		{pod + "a: &a {<<: {<<: *a}}\n", "-:3:17: "},
		{pod + "a: &a {<<: &b {<<: *a}, c: *b}\n", "-:3:20: "},
		{pod + "a: &a [*a]\n", "-:3:8: "},
		{"# first\n---\n" + pod + "spec: &s\n  x: *s\n", "-:6:6: "},
		{"--- &r\n" + pod + "<<: *r\n", "-:4:5: "},
		{pod + "<<: [{a: 1}, {b: 2}]\n", "-:3:1: a merge key"},
		{pod + "<<: text\n", "-:3:1: a merge key"},
		{pod + "metadata:\n  a: 1\n  a: 2\n", "-:5:3: Pod: the key \"a\" is there twice"},
		{pod + bomb, "too large"},
		{pod + "a: " + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + "\n", "nested"},
		{pod + "x: &x 1\ny: *x\na: " + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + "\n", "nested"},
		{"kind: List\n" + lists + fmt.Sprintf("items: [*a%d]\n", maxLists), "more than"},
	} {
		_, _, err := injector(t).Manifest("-", []byte(tt.text))
		if err == nil || !strings.HasPrefix(err.Error(), "-:") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80q: got %.300v, want %q", tt.text, err, tt.want)
		}
	}
	if _, _, err := injector(t).Manifest("-", []byte(strings.Repeat(pod+bomb+"---\n", 100))); err == nil || strings.Count(err.Error(), "\n") != maxFaults {
		t.Errorf("many of them: got %.300v", err)
	}
}

// Merge keys bring what a mapping has not itself, and an alias of an alias' part is no
// circle.
func TestManifestMerges(t *testing.T) {
	const text = `apiVersion: v1
kind: List
items:
  - &one
    apiVersion: v1
    kind: Pod
    metadata: &metadata
      name: one
      annotations: &annotations {culvert.dev/inlet: 5432=orders-db}
    spec: {containers: [{name: app, image: app}]}
  - <<: *one
    metadata:
      <<: *metadata
      name: two
      annotations:
        <<: *annotations
        culvert.dev/wait: "true"
`
	out, changes, err := injector(t).Manifest("-", []byte(text))
	if err != nil || len(changes) != 2 || changes[1].Object != "Pod two" {
		t.Fatalf("%v, %v", changes, err)
	}
	if n := strings.Count(string(out), "--health"); n != 1 || strings.Contains(string(out), "<<") {
		t.Errorf("%d sidecars wait, want the second:\n%s", n, out)
	}
}
