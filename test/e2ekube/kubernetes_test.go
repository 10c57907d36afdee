//go:build e2ekube

package e2ekube

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ready waits until everything that an overlay runs is there, and its job is done.
func ready(t *testing.T, workloads ...string) {
	t.Helper()
	for _, w := range workloads {
		kubectl(t, "rollout", "status", w, "--timeout="+patience.String())
	}
	kubectl(t, "wait", "--for=condition=complete", "job/report", "--timeout="+patience.String())
}

// Identities out of Secrets. What is done here happens in each cluster's life, and
// the app's requests must not notice any of it.
func TestDemo(t *testing.T) {
	o := deploy(t, "demo")
	ready(t, "deployment/relay", "statefulset/orders-db", "deployment/app")
	l := follow(t)
	l.wantUnhurt(t)

	t.Run("start order", func(t *testing.T) {
		wantSidecarFirst(t, "app", "inlet", "app")
		wantSidecarFirst(t, "report", "inlet", "report")
		wantSidecarFirst(t, "orders-db", "outlet", "postgres")
	})
	t.Run("job", wantJobDone)
	t.Run("killed relay", func(t *testing.T) {
		kubectl(t, "delete", carrier(t), "--grace-period=0", "--force")
		kubectl(t, "rollout", "status", "deployment/relay", "--timeout="+patience.String())
		l.wantUnhurt(t)
	})
	t.Run("rolling update of relays", func(t *testing.T) {
		before := relayPods(t)
		kubectl(t, "rollout", "restart", "deployment/relay")
		kubectl(t, "rollout", "status", "deployment/relay", "--timeout="+patience.String())
		eventually(t, "only new relays", func() bool {
			return !slices.ContainsFunc(relayPods(t), func(p string) bool { return slices.Contains(before, p) })
		})
		l.wantUnhurt(t)
	})
	t.Run("evicted relays", func(t *testing.T) { evict(t, l) })
	t.Run("rotated identities", func(t *testing.T) { rotate(t, o, l) })
	t.Run("rolling update of the app", func(t *testing.T) {
		kubectl(t, "rollout", "restart", "deployment/app")
		kubectl(t, "rollout", "status", "deployment/app", "--timeout="+patience.String())
		l.wantEnd(t) // it makes requests for seconds after it was told to end
		eventually(t, "one app", func() bool {
			return !strings.Contains(kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=app", "-o", "name"), "\n")
		})
		follow(t).wantUnhurt(t)
	})
	t.Run("no restarts", wantNoRestarts)
}

// Pods become members by their ServiceAccount tokens; only the relay, the outlet
// and the authority have a Secret.
func TestAuthority(t *testing.T) {
	deploy(t, "authority")
	ready(t, "statefulset/authority", "deployment/relay", "statefulset/orders-db", "deployment/app")
	l := follow(t)
	l.wantUnhurt(t)
	wantJobDone(t)

	members := map[string]int{}
	for line := range strings.Lines(kubectl(t, "exec", "authority-0", "--", "culvert", "authority", "list", "--config", "/etc/culvert/authority.yaml", "--json")) {
		var member struct {
			Attributes map[string]string `json:"attributes"`
		}
		if err := json.Unmarshal([]byte(line), &member); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if got := member.Attributes["k8s.namespace"]; got != namespace {
			t.Errorf("a member of the namespace %q: %s", got, line)
		}
		members[member.Attributes["k8s.serviceaccount"]]++
	}
	// Replicas of a relay share an identity.
	for account, want := range map[string]int{"app": 1, "report": 1, "orders-db": 1, "relay": 1} {
		if members[account] != want {
			t.Errorf("members: got %v, want %d of the service account %s", members, want, account)
		}
	}

	t.Run("another service account", func(t *testing.T) {
		kubectl(t, "patch", "deployment", "app", "-p", `{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null},"template":{"spec":{"serviceAccountName":"relay"}}}}`)
		l.wantEnd(t)
		eventually(t, "the relay's refusal in the log of the inlet", func() bool {
			out, err := output("", "kubectl", "-n", namespace, "logs", "deployment/app", "-c", "inlet")
			return err == nil && strings.Contains(out, "connect_denied")
		})
	})
}

// The API server takes every overlay as it is, volumes and all. It does so only where
// the namespace is, even when nothing is stored.
func TestOverlays(t *testing.T) {
	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--timeout="+patience.String()) })
	o := newOverlay(t, "authority") // with the demo's identities
	for _, name := range []string{"demo", "authority"} {
		kubectl(t, "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-k", filepath.Join(o.dir, name))
	}
	o.withWebhook(t)
	kubectl(t, "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-k", filepath.Join(o.dir, "wrapped"))
}

// The API server takes what the chart makes, of all that it has.
func TestChart(t *testing.T) {
	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--timeout="+patience.String()) })
	o := newOverlay(t, "authority")
	o.makeCertificate(t)
	bundle, err := os.ReadFile(filepath.Join(o.dir, "components", "webhook", "certificate", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("b", 51) + "a"
	values := fmt.Sprintf(`
identifiers: {RELAY: %[1]s, OUTLET: %[1]s, INLET: %[1]s, AUTHORITY: %[1]s}
relay: {config: {register: ["${OUTLET}"], connect: ["${INLET}"]}}
authority: {enabled: true, config: {kubernetes: {issuer: "https://kubernetes.default.svc.cluster.local", namespaces: [culvert]}}}
webhook: {enabled: true, caBundle: %[2]s}
`, id, base64.StdEncoding.EncodeToString(bundle))
	template := exec.Command("go", "run", "./helmtemplate", "../../deploy/helm")
	template.Dir = root + "/test/deploy"
	template.Stdin = strings.NewReader(values)
	template.Stderr = os.Stderr
	manifest, err := template.Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "chart.yaml")
	if err := os.WriteFile(file, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "--server-side", "--dry-run=server", "-f", file)
}

// evict asks for two relays at once, as who empties their nodes does: one may go, for
// the other the disruption budget says to come again later.
func evict(t *testing.T, l *load) {
	all := pods(t, "app.kubernetes.io/name=relay")
	if len(all) != 3 {
		t.Fatalf("%d relays, want 3", len(all))
	}
	eventually(t, "a budget of one", func() bool {
		return kubectl(t, "get", "pdb", "relay", "-o", "jsonpath={.status.disruptionsAllowed}") == "1"
	})
	for i, refused := range []bool{false, true} {
		name := all[i].Metadata.Name
		eviction := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"namespace":%q,"name":%q}}`, namespace, name)
		file := filepath.Join(t.TempDir(), "eviction.json")
		if err := os.WriteFile(file, []byte(eviction), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := output("", "kubectl", "create", "--raw", "/api/v1/namespaces/"+namespace+"/pods/"+name+"/eviction", "-f", file)
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "disruption budget") {
			t.Errorf("eviction %d: got %v, want it refused for the budget: %v", i+1, err, refused)
		}
	}
	eventually(t, "the end of "+all[0].Metadata.Name, func() bool { return !slices.Contains(relayPods(t), "pod/"+all[0].Metadata.Name) })
	kubectl(t, "rollout", "status", "deployment/relay", "--timeout="+patience.String())
	l.wantUnhurt(t)
}

// rotate replaces all three keys, and waits until the pods have taken them.
func rotate(t *testing.T, o *overlay, l *load) {
	for _, name := range []string{"relay", "outlet", "inlet"} {
		if _, err := output("", filepath.Join(bin, "culvert"), "identity", "rotate", filepath.Join(o.dir, "demo", "identities", name+".key")); err != nil {
			t.Fatal(err)
		}
	}
	since := time.Now().UTC().Format(time.RFC3339)
	o.apply(t)
	pods := append(relayPods(t), strings.Fields(kubectl(t, "get", "pods", "-l", "culvert.dev/relay-client=true", "--field-selector=status.phase=Running", "-o", "name"))...)
	for _, pod := range pods {
		eventually(t, pod+" takes its new key", func() bool {
			return strings.Contains(kubectl(t, "logs", pod, "--all-containers", "--since-time="+since), "identity has a new key")
		})
	}
	l.wantUnhurt(t)
}

func relayPods(t *testing.T) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=relay", "-o", "name"))
}

// carrier returns a relay that has joined callers to the outlet: with all of them
// the same, inlets are carried by the same one.
func carrier(t *testing.T) string {
	t.Helper()
	for _, pod := range relayPods(t) {
		metrics := kubectl(t, "get", "--raw", "/api/v1/namespaces/"+namespace+"/pods/"+strings.TrimPrefix(pod, "pod/")+":9100/proxy/metrics")
		for line := range strings.Lines(metrics) {
			var joins float64
			name, value, _ := strings.Cut(line, " ")
			if n, _ := fmt.Sscan(value, &joins); n == 1 && joins > 0 && strings.HasPrefix(name, "culvert_relay_joins_total") {
				return pod
			}
		}
	}
	t.Fatal("no relay has joined anybody")
	return ""
}

// A pod is what is read of one.
type pod struct {
	Metadata struct{ Name string }
	Status   struct {
		Phase                 string
		InitContainerStatuses []container
		ContainerStatuses     []container
	}
}

type container struct {
	Name         string
	RestartCount int
	State        struct {
		Running    struct{ StartedAt time.Time }
		Terminated struct {
			StartedAt, FinishedAt time.Time
			ExitCode              int
		}
	}
}

// started is when a container started, whether it runs or has ended.
func (c container) started() time.Time {
	if at := c.State.Running.StartedAt; !at.IsZero() {
		return at
	}
	return c.State.Terminated.StartedAt
}

// pods returns the pods of one name, or all.
func pods(t *testing.T, selector string) []pod {
	t.Helper()
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(kubectl(t, "get", "pods", "-l", selector, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) == 0 {
		t.Fatalf("no pods of %s", selector)
	}
	return list.Items
}

// the returns the container of that name.
func the(t *testing.T, list []container, name string) container {
	t.Helper()
	i := slices.IndexFunc(list, func(c container) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no container %s", name)
	}
	return list[i]
}

func wantSidecarFirst(t *testing.T, name, sidecar, program string) {
	t.Helper()
	for _, p := range pods(t, "app.kubernetes.io/name="+name) {
		first, second := the(t, p.Status.InitContainerStatuses, sidecar).started(), the(t, p.Status.ContainerStatuses, program).started()
		if first.IsZero() || second.Before(first) {
			t.Errorf("%s: %s started at %v, %s at %v, want the sidecar first", p.Metadata.Name, sidecar, first, program, second)
		}
	}
}

// The job's pod has ended, its sidecar after it and with 0.
func wantJobDone(t *testing.T) {
	all := pods(t, "app.kubernetes.io/name=report")
	if len(all) != 1 {
		t.Errorf("the job took %d pods, want 1", len(all))
	}
	for _, p := range all {
		inlet, report := the(t, p.Status.InitContainerStatuses, "inlet"), the(t, p.Status.ContainerStatuses, "report")
		if p.Status.Phase != "Succeeded" || inlet.State.Terminated.ExitCode != 0 || inlet.State.Terminated.FinishedAt.Before(report.State.Terminated.FinishedAt) {
			t.Errorf("%s: %+v, want an inlet that has ended with 0 after the report", p.Metadata.Name, p.Status)
		}
	}
}

func wantNoRestarts(t *testing.T) {
	for _, p := range pods(t, "app.kubernetes.io/part-of=culvert") {
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if c.RestartCount != 0 {
				t.Errorf("%s: %s was restarted %d times", p.Metadata.Name, c.Name, c.RestartCount)
			}
		}
	}
}
