package inject

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anything draws JSON values.
func anything(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		most := 5
		if depth == 0 {
			most = 3
		}
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]any{nil, true, false}).Draw(t, "constant")
		case 1:
			return num(rapid.Int64().Draw(t, "number"))
		case 2, 3:
			return rapid.String().Draw(t, "text")
		case 4:
			list := []any{}
			return append(list, rapid.SliceOfN(anything(depth-1), 0, 4).Draw(t, "list")...)
		}
		return any(drawObject(t, depth-1))
	})
}

func drawObject(t *rapid.T, depth int) object {
	keys := rapid.SampledFrom([]string{"a", "b", "/", "~", "~1", "", "name", "a/b"})
	return rapid.MapOfN(keys, anything(depth), 0, 4).Draw(t, "object")
}

// apply(diff(a, b), a) is b.
func TestPatchesMakeTheOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := drawObject(rt, 4), drawObject(rt, 4)
		if got := patched(t, a, Diff(a, b)); !reflect.DeepEqual(got, b) {
			rt.Fatalf("from %s\ngot  %s\nwant %s\nby %s", encode(t, a), encode(t, got), encode(t, b), encode(t, Diff(a, b)))
		}
	})
}

// drawPod draws a pod that can be injected, with fields that nobody knows.
func drawPod(t *rapid.T) object {
	container := func(name string) object {
		c := drawObject(t, 2)
		c["name"] = name
		return c
	}
	spec := drawObject(t, 2)
	spec["containers"] = []any{container("app")}
	if rapid.Bool().Draw(t, "init") {
		spec["initContainers"] = []any{container("first"), container("second")}
	}
	if rapid.Bool().Draw(t, "grace") {
		spec["terminationGracePeriodSeconds"] = num(rapid.Int64Range(0, 1<<31).Draw(t, "seconds"))
	}
	if rapid.Bool().Draw(t, "security") {
		spec["securityContext"] = object{"runAsUser": num(1000), "later": drawObject(t, 1)}
	}
	if rapid.Bool().Draw(t, "volumes") {
		spec["volumes"] = []any{object{"name": "tmp", "emptyDir": object{}}}
	}
	spec["restartPolicy"] = rapid.SampledFrom([]any{"Always", "Never", nil}).Draw(t, "policy")
	metadata := drawObject(t, 2)
	metadata["labels"] = object{"app": "x"}
	metadata["annotations"] = drawAnnotations(t)
	return object{"metadata": metadata, "spec": spec, "status": drawObject(t, 2)}
}

func drawAnnotations(t *rapid.T) object {
	all := object{"example.org/other": rapid.String().Draw(t, "other"), Inlet: fmt.Sprintf("%d=orders-db", rapid.IntRange(1, 9000).Draw(t, "port"))}
	if rapid.Bool().Draw(t, "outlet") {
		all[Outlet], all[Allow] = "mail=mail.example.org:25", relayID
	}
	if rapid.Bool().Draw(t, "authority") {
		all[Authority] = "tcp://authority:4100/" + otherID
	}
	return all
}

// A second time changes nothing; and what was there is there again when the
// annotations go: whatever the pod has, nothing of it is lost.
func TestIdempotentAndReversible(t *testing.T) {
	in := injector(t)
	rapid.Check(t, func(rt *rapid.T) {
		pod := drawPod(rt)
		kept := deepCopy(pod)
		once, _ := mustInject(t, in, pod)
		if !reflect.DeepEqual(pod, kept) {
			rt.Fatal("the pod that was given has changed")
		}
		if _, r := mustInject(t, in, once); len(r.Patch) != 0 {
			rt.Fatalf("a second time: %s", encode(t, r.Patch))
		}
		for _, key := range annotations {
			delete(once["metadata"].(object)["annotations"].(object), key)
			delete(pod["metadata"].(object)["annotations"].(object), key)
		}
		if got, _ := mustInject(t, in, once); !reflect.DeepEqual(got, pod) {
			rt.Fatalf("got\n%s\nwant\n%s", encode(t, got), encode(t, pod))
		}
	})
}

// Annotations are people's: whatever they hold, the answer is a pod that the same
// annotations leave alone, or a fault with a place.
func FuzzAnnotations(f *testing.F) {
	f.Add("5432=orders-db", "orders-db=5432", relayID, aRoute+relayID, "tcp://a:1/"+otherID, "vars", "true", "9100")
	f.Add("1=a@${A},\n2=b", "", "peer.id != ''", "${R}", "", "a,b c", "orders-db", "")
	f.Fuzz(func(t *testing.T, inlet, outlet, allow, routes, authority, variables, wait, metrics string) {
		all := map[string]string{}
		for key, text := range map[string]string{
			Inlet: inlet, Outlet: outlet, Allow: allow, Routes: routes, Authority: authority, Variables: variables, Wait: wait, MetricsPort: metrics,
		} {
			if text != "" {
				all[key] = strings.ToValidUTF8(text, "?")
			}
		}
		in := injector(t)
		pod := podOf(t, plainSpec, all)
		r, err := in.Pod(pod)
		if err != nil {
			if !strings.Contains(err.Error(), ": ") {
				t.Errorf("no place: %v", err)
			}
			return
		}
		once := patched(t, pod, r.Patch)
		if again, err := in.Pod(once); err != nil || len(again.Patch) != 0 {
			t.Errorf("a second time: %v, %v", again, err)
		}
	})
}

// Manifests are files of anybody's: nothing hangs or panics, and what is printed is
// left alone the second time.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(manifestYAML))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"culvert.dev/inlet":"1=orders-db"}},"spec":{"containers":[{"name":"a"}]}}]}`))
	f.Add([]byte("a: &a [*a]\n---\n<<: {kind: Pod}\n"))
	f.Add([]byte("apiVersion: v1\nkind: Pod\na: &a {<<: *a}\n"))
	f.Add([]byte("apiVersion: v1\nkind: Pod\nb: &b {c: 1}\nmetadata: {annotations: {<<: *b, culvert.dev/inlet: 1=orders-db}}\nspec: {containers: [{name: a}]}\n"))
	f.Add([]byte("kind: List\nitems: &i\n- {kind: List, items: *i}\n- {apiVersion: v1, kind: Pod}\n"))
	f.Fuzz(func(t *testing.T, manifest []byte) {
		in := injector(t)
		out, changes, err := in.Manifest("-", manifest)
		if err != nil {
			return
		}
		if len(changes) == 0 {
			if string(out) != string(manifest) {
				t.Errorf("nothing was done, and the text is another:\n%q\n%q", manifest, out)
			}
			return
		}
		again, changes, err := in.Manifest("-", out)
		if err != nil || len(changes) != 0 || string(again) != string(out) {
			t.Errorf("a second time: %v, %v\n%s", changes, err, out)
		}
	})
}
