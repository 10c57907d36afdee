//go:build e2ekube

package e2ekube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shop is a namespace that has nothing of Culvert's but what the webhook gives.
const shop = "culvert-e2e-shop"

// withWebhook puts the webhook's component into an overlay, and its certificate.
func (o *overlay) withWebhook(t *testing.T) {
	t.Helper()
	o.makeCertificate(t)
	file := filepath.Join(o.dir, "wrapped", "kustomization.yaml")
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const more = `  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: webhook}
      spec: {template: {spec: {containers: [{name: webhook, env: [{name: CULVERT_SIDECAR_IMAGE, value: "localhost/culvert:e2e"}]}]}}}
namespace: culvert
components: [../components/webhook]
`
	if _, err := f.WriteString(more); err != nil {
		t.Fatal(err)
	}
}

// makeCertificate makes the webhook's certificate, or another one.
func (o *overlay) makeCertificate(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(o.dir, "components", "webhook", "make-certificate"), args...)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make-certificate: %v\n%s", err, out)
	}
}

// What is in the shop: an app and a job that know a database on their loopback, as
// who knows nothing of Culvert writes them, with a label and annotations.
const (
	asks = `
        labels: {app.kubernetes.io/name: %[1]s, culvert.dev/inject: enabled}
        annotations: {culvert.dev/inlet: "%[2]s", culvert.dev/identity-secret: inlet-identity}`
	podSpec = `
        automountServiceAccountToken: false
        securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
        containers:
          - name: %[1]s
            image: localhost/culvert-standin:e2e
            command: [%[2]s]
            securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}`
)

// shopApp returns a Deployment.
func shopApp(inlet string) string {
	return `apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: app}}
  template:
      metadata:` + fmt.Sprintf(asks, "app", inlet) + `
      spec:` + fmt.Sprintf(podSpec, "app", "sh") + "\n"
}

// shopJob returns a Job.
func shopJob(name string) string {
	return `apiVersion: batch/v1
kind: Job
metadata: {name: ` + name + `}
spec:
  backoffLimit: 0
  template:
      metadata:` + fmt.Sprintf(asks, name, "5432=orders-db") + `
      spec:
        restartPolicy: Never` + fmt.Sprintf(podSpec, name, "psql") + "\n"
}

// shopPod returns a Pod, that asks for a sidecar or not.
func shopPod(name, inlet string, asking bool) string {
	text := `apiVersion: v1
kind: Pod
metadata:
        name: ` + name + fmt.Sprintf(asks, name, inlet) + `
spec:` + fmt.Sprintf(podSpec, name, "postgres") + "\n"
	if !asking {
		text = strings.Replace(text, ", culvert.dev/inject: enabled", "", 1)
	}
	return text
}

// shopApply applies a manifest in the shop.
func shopApply(t *testing.T, manifest string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	return output("", append([]string{"kubectl", "-n", shop, "apply", "--server-side", "-o", "yaml", "-f", file}, args...)...)
}

// The webhook gives pods of another namespace their sidecars, and what happens to it
// in a cluster's life leaves no pod without one.
func TestWebhook(t *testing.T) {
	o := newOverlay(t, "demo")
	o.withWebhook(t)
	openShop(t, o)
	o.deploy(t)
	ready(t, "deployment/relay", "statefulset/orders-db", "deployment/webhook")

	t.Run("app", func(t *testing.T) {
		if _, err := shopApply(t, shopApp("5432=orders-db")); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", shop, "rollout", "status", "deployment/app", "--timeout="+patience.String())
		followIn(t, shop).wantUnhurt(t)
	})
	t.Run("job", func(t *testing.T) {
		if _, err := shopApply(t, shopJob("report")); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", shop, "wait", "--for=condition=complete", "job/report", "--timeout="+patience.String())
	})
	t.Run("refused", wantRefused)
	t.Run("killed", func(t *testing.T) {
		for _, pod := range strings.Fields(kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=webhook", "-o", "name"))[:1] {
			kubectl(t, "delete", pod, "--grace-period=0", "--force", "--wait=false")
		}
		eventually(t, "an answer", func() bool { // of the one that is left, or of the next
			out, err := shopApply(t, shopPod("one", "5432=orders-db", true), "--dry-run=server")
			return err == nil && strings.Contains(out, "culvert-inlet")
		})
		kubectl(t, "rollout", "status", "deployment/webhook", "--timeout="+patience.String())
	})
	t.Run("rolling update", wantAnswered)
	t.Run("another certificate", func(t *testing.T) { wantRenewed(t, o) })
	t.Run("away", wantNoneWithout)
	t.Run("manifests", func(t *testing.T) { wantInjectedTaken(t) })
}

// openShop makes the namespace, under the restricted standard, and the inlet's
// identity in it.
func openShop(t *testing.T, o *overlay) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			for _, args := range [][]string{{"get", "pods,jobs,events", "-o", "wide"}, {"logs", "-l", "culvert.dev/inject=enabled", "--all-containers", "--tail=30"}} {
				out, err := output("", append([]string{"kubectl", "-n", shop}, args...)...)
				t.Logf("%v: %v\n%s", args, err, out)
			}
		}
		for _, what := range []string{"namespace/" + shop, "mutatingwebhookconfiguration/culvert", "validatingwebhookconfiguration/culvert"} {
			if _, err := output("", "kubectl", "delete", what, "--ignore-not-found", "--timeout=3m"); err != nil {
				t.Error(err)
			}
		}
	})
	kubectl(t, "create", "namespace", shop)
	kubectl(t, "label", "namespace", shop, "pod-security.kubernetes.io/enforce=restricted")
	kubectl(t, "-n", shop, "create", "secret", "generic", "inlet-identity", "--from-file=identity.key="+filepath.Join(o.dir, "demo", "identities", "inlet.key"))
}

// A misspelt annotation is kubectl's answer, for pods and for what makes them.
func wantRefused(t *testing.T) {
	const want = `culvert.dev/inlet: "orders-db=5432": "orders-db" is no port: want a number from 1 to 65535; write PORT=SERVICE, like 5432=orders-db`
	for what, manifest := range map[string]string{"pod": shopPod("bad", "orders-db=5432", true), "deployment": strings.Replace(shopApp("orders-db=5432"), "name: app}\nspec", "name: bad}\nspec", 1)} {
		if _, err := shopApply(t, manifest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	if out, err := shopApply(t, shopPod("own", "5432=orders-db", false), "--dry-run=server"); err != nil || strings.Contains(out, "culvert-inlet") {
		t.Errorf("a pod without the label: %v\n%s", err, out)
	}
}

// While the webhook is updated, each pod that is made gets its sidecar.
func wantAnswered(t *testing.T) {
	kubectl(t, "rollout", "restart", "deployment/webhook")
	done := make(chan error, 1)
	go func() {
		_, err := output("", "kubectl", "-n", namespace, "rollout", "status", "deployment/webhook", "--timeout="+patience.String())
		done <- err
	}()
	pods := 0
	for {
		out, err := shopApply(t, shopPod("one", "5432=orders-db", true), "--dry-run=server")
		if err != nil || !strings.Contains(out, "culvert-inlet") {
			t.Fatalf("pod %d: %v\n%s", pods, err, out)
		}
		pods++
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d pods were made meanwhile, each with its sidecar", pods)
			return
		default:
		}
	}
}

// wantRenewed replaces authority and certificate, which the webhook takes without a
// restart, and API servers in whatever order they come.
func wantRenewed(t *testing.T, o *overlay) {
	var names []string
	eventually(t, "two webhooks, and none that ends", func() bool {
		names = strings.Fields(kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=webhook", "-o", "name"))
		return len(names) == 2
	})
	since := time.Now().UTC().Format(time.RFC3339)
	o.makeCertificate(t, "--new-authority")
	o.apply(t)
	for _, pod := range names {
		eventually(t, pod+" takes its new certificate", func() bool {
			out, err := shopApply(t, shopPod("one", "5432=orders-db", true), "--dry-run=server")
			if err != nil || !strings.Contains(out, "culvert-inlet") {
				t.Fatalf("meanwhile: %v\n%s", err, out)
			}
			return strings.Contains(kubectl(t, "logs", pod, "--since-time="+since), "the certificate is a new one")
		})
	}
	for _, p := range pods(t, "app.kubernetes.io/name=webhook") {
		if c := the(t, p.Status.ContainerStatuses, "webhook"); c.RestartCount != 0 {
			t.Errorf("%s was restarted %d times", p.Metadata.Name, c.RestartCount)
		}
	}
}

// While there is no webhook, no pod that asks for a sidecar is made, and all others
// are; when it is back, those that were to be are made.
func wantNoneWithout(t *testing.T) {
	kubectl(t, "scale", "deployment/webhook", "--replicas=0")
	kubectl(t, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=webhook", "--timeout="+patience.String())
	if _, err := shopApply(t, shopPod("one", "5432=orders-db", true), "--dry-run=server"); err == nil || !strings.Contains(err.Error(), "inject.culvert.dev") {
		t.Errorf("a pod that asks: got %v, want it refused", err)
	}
	if _, err := shopApply(t, shopPod("own", "5432=orders-db", false), "--dry-run=server"); err != nil {
		t.Errorf("a pod that does not ask: %v", err)
	}
	if _, err := shopApply(t, shopJob("later")); err != nil {
		t.Errorf("a job that asks: %v", err)
	}
	kubectl(t, "scale", "deployment/webhook", "--replicas=2")
	kubectl(t, "-n", shop, "wait", "--for=condition=complete", "job/later", "--timeout="+patience.String())
}

// What `culvert inject` prints is what the API server takes, and the webhook leaves
// as it is.
func wantInjectedTaken(t *testing.T) {
	cmd := exec.Command(filepath.Join(bin, "culvert"), "inject", "-f", "-", "--route", "tcp://relay.culvert.svc:4000/"+strings.Repeat("b", 51)+"a", "--outlet", "orders-db="+strings.Repeat("b", 51)+"a")
	cmd.Stdin = strings.NewReader(shopApp("5432=orders-db") + "---\n" + shopJob("report-2"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := shopApply(t, string(out), "--dry-run=server", "--force-conflicts")
	if err != nil || strings.Count(taken, "name: culvert-inlet\n") != 4 { // of two pods, each a container and its port
		t.Errorf("%v\n%s\nof\n%s", err, taken, out)
	}
}
