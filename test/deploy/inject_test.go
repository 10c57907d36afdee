package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// injected runs `culvert inject` on an object, and decodes what it prints strictly.
func injected[T any](t *testing.T, object T, args ...string) T {
	t.Helper()
	text, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(binaries, "culvert"), append([]string{"inject", "-f", "-"}, args...)...)
	cmd.Stdin = bytes.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("culvert inject: %v\n%s", err, &stderr)
	}
	var got T
	if err := yaml.UnmarshalStrict(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return got
}

// bareTemplate returns a template as who knows nothing of Culvert would write it,
// with annotations that ask for what it had: a third less time to end, too.
func bareTemplate(template corev1.PodTemplateSpec, annotations map[string]string) corev1.PodTemplateSpec {
	bare := *template.DeepCopy()
	bare.Annotations = annotations
	delete(bare.Labels, "culvert.dev/relay-client")
	bare.Spec.InitContainers = nil
	own := []string{"config", "identity", "token", "state"}
	bare.Spec.Volumes = slices.DeleteFunc(bare.Spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(own, v.Name) })
	*bare.Spec.TerminationGracePeriodSeconds -= 30
	return bare
}

// byHand returns an injected template with the names that deploy/k8s has, and with
// each container's security as it is in effect.
func byHand(template corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	out := *template.DeepCopy()
	out.Annotations = nil
	short := func(name string) string {
		name = strings.TrimPrefix(name, "culvert-")
		for _, kind := range []string{"inlet-", "outlet-"} {
			name = strings.TrimPrefix(name, kind)
		}
		return name
	}
	for i := range out.Spec.Volumes {
		out.Spec.Volumes[i].Name = short(out.Spec.Volumes[i].Name)
	}
	delete(out.Labels, "culvert.dev/scrape")
	for i := range out.Spec.InitContainers {
		c := &out.Spec.InitContainers[i]
		metricsByHand(c)
		c.Name = short(c.Name)
		for j := range c.VolumeMounts {
			c.VolumeMounts[j].Name = short(c.VolumeMounts[j].Name)
		}
		s, pod := c.SecurityContext, out.Spec.SecurityContext
		if s.RunAsUser == nil {
			s.RunAsUser, s.RunAsGroup = pod.RunAsUser, pod.RunAsGroup
		}
		s.RunAsNonRoot, s.SeccompProfile = pod.RunAsNonRoot, pod.SeccompProfile
	}
	out.Spec = plain(out.Spec)
	return out
}

// metricsByHand gives a sidecar's port the name that deploy/k8s has, where no other
// program of the pod has one that could be called so, too.
func metricsByHand(c *corev1.Container) {
	for i, p := range c.Ports {
		if p.Name == c.Name {
			c.Ports[i].Name = "metrics"
		}
	}
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe} {
		if p != nil && p.HTTPGet != nil && p.HTTPGet.Port.StrVal == c.Name {
			p.HTTPGet.Port.StrVal = "metrics"
		}
	}
}

// What is injected is what deploy/k8s has by hand.
func TestInjectSame(t *testing.T) {
	const image = "--set-image=ghcr.io/culvert-net/culvert:dev"
	inlet := map[string]string{"culvert.dev/inlet-config": "inlet-config", "culvert.dev/identity-secret": "inlet-identity", "culvert.dev/variables": "identifiers"}
	job := map[string]string{"culvert.dev/wait": "orders-db"}
	outlet := map[string]string{"culvert.dev/outlet-config": "outlet-config", "culvert.dev/identity-secret": "outlet-identity", "culvert.dev/variables": "identifiers"}
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			if overlay == "authority" {
				for _, m := range []map[string]string{inlet, outlet} {
					m["culvert.dev/authority"] = "tcp://authority:4100/" + identifier
					m["culvert.dev/variables"] = "identifiers, authority"
				}
				delete(inlet, "culvert.dev/identity-secret")
			}
			m := buildManifests(t, overlay)
			for i := range m.deployments {
				if d := m.deployments[i]; d.Name == "app" {
					bare := *d.DeepCopy()
					bare.Spec.Template = bareTemplate(d.Spec.Template, inlet)
					wantSame(t, "app", byHand(injected[appsv1.Deployment](t, bare, image).Spec.Template), byHand(d.Spec.Template))
				}
			}
			for key, text := range inlet {
				job[key] = text
			}
			if overlay == "authority" {
				delete(job, "culvert.dev/identity-secret")
			}
			for _, j := range m.jobs {
				bare := *j.DeepCopy()
				bare.Spec.Template = bareTemplate(j.Spec.Template, job)
				wantSame(t, j.Name, byHand(injected[batchv1.Job](t, bare, image).Spec.Template), byHand(j.Spec.Template))
			}
			for i := range m.statefulSets {
				if s := m.statefulSets[i]; s.Name == "orders-db" {
					bare := *s.DeepCopy()
					bare.Spec.Template = bareTemplate(s.Spec.Template, outlet)
					wantSame(t, s.Name, byHand(injected[appsv1.StatefulSet](t, bare, image).Spec.Template), byHand(s.Spec.Template))
				}
			}
		})
	}
}

// buildWebhook builds the demo with the component beside it.
func buildWebhook(t *testing.T) *manifests {
	t.Helper()
	return buildIn(t, "demo", func(dir string) string {
		script(t, filepath.Join(dir, "components", "webhook", "make-certificate"))
		more := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../demo]\ncomponents: [../components/webhook]\nnamespace: culvert\n"
		if err := os.Mkdir(filepath.Join(dir, "with-webhook"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "with-webhook", "kustomization.yaml"), []byte(more), 0o644); err != nil {
			t.Fatal(err)
		}
		return "with-webhook"
	})
}

// The webhook can be replaced and moved without a pod that cannot be made, runs
// restricted, and is no more than a program that answers.
func TestKubernetesWebhook(t *testing.T) { buildWebhook(t).wantWebhook(t, "culvert") }

// wantWebhook holds the rules for a webhook in a namespace.
func (m *manifests) wantWebhook(t *testing.T, namespace string) {
	t.Helper()
	i := slices.IndexFunc(m.deployments, func(d appsv1.Deployment) bool { return d.Name == "webhook" })
	if i < 0 {
		t.Fatal("no Deployment webhook")
	}
	d := m.deployments[i].Spec
	if *d.Replicas < 2 || d.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 || len(d.Template.Spec.TopologySpreadConstraints) == 0 {
		t.Errorf("%d replicas, updated by %+v, want 2 and none unavailable, on nodes of their own", *d.Replicas, d.Strategy.RollingUpdate)
	}
	m.wantRestricted(t)
	if *d.Template.Spec.TerminationGracePeriodSeconds <= 35 {
		t.Error("is killed within the time in which it ends")
	}
	wantProbes(t, "webhook", "webhook", d.Template.Spec.Containers[0], nil)
	for _, v := range d.Template.Spec.Volumes {
		if v.Projected != nil {
			t.Errorf("mounts the token %s, which it does not use", v.Name)
		}
		if v.Secret != nil && (v.Secret.SecretName != "webhook-certificate" || *v.Secret.DefaultMode != 0o400) {
			t.Errorf("mounts the Secret %+v", v.Secret)
		}
	}
	b := slices.IndexFunc(m.budgets, func(b policyBudget) bool { return b.Name == "webhook" })
	if b < 0 || m.budgets[b].Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("disruption budgets: %+v, want one of the webhook", m.budgets)
	}
	s := slices.IndexFunc(m.services, func(s corev1.Service) bool { return s.Name == "webhook" })
	if s < 0 || m.services[s].Spec.ClusterIP != "" || m.services[s].Spec.Ports[0].Port != 443 {
		t.Errorf("no Service that an API server could use")
	} else {
		wantSelected(t, "Service webhook", m.services[s].Spec.Selector, d.Template.Labels)
	}
	m.wantConfigurations(t, namespace)
	m.wantAlone(t, d.Template.Labels)
	wantMemoryLimit(t, d.Template.Spec.Containers[0])
	for _, name := range m.configMaps {
		if text, ok := name.Data["webhook.yaml"]; ok {
			checkConfig(t, "webhook.yaml", []byte(text), "RELAY="+identifier, "OUTLET="+identifier, "CULVERT_SIDECAR_IMAGE=culvert")
		}
	}
}

// wantAlone holds that a pod with these labels may reach nobody, not even the cluster's
// DNS: policies add up.
func (m *manifests) wantAlone(t *testing.T, of map[string]string) {
	t.Helper()
	denied := false
	for _, p := range m.policies {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		if !selector.Matches(labels.Set(of)) {
			continue
		}
		denied = denied || slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		if len(p.Spec.Egress) != 0 {
			t.Errorf("NetworkPolicy %s lets it reach %+v", p.Name, p.Spec.Egress)
		}
	}
	if !denied {
		t.Error("no policy keeps it from reaching everybody")
	}
}

// wantMemoryLimit holds that a container's program knows what memory it has.
func wantMemoryLimit(t *testing.T, c corev1.Container) {
	t.Helper()
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
	if i < 0 || c.Env[i].ValueFrom == nil || c.Env[i].ValueFrom.ResourceFieldRef == nil || c.Env[i].ValueFrom.ResourceFieldRef.Resource != "limits.memory" {
		t.Errorf("%s: its program does not know the container's limit of memory: %+v", c.Name, c.Env)
	}
	if want := resource.MustParse("384Mi"); c.Resources.Limits.Memory().Cmp(want) < 0 {
		t.Errorf("%s: has %s, less than its reviews may need", c.Name, c.Resources.Limits.Memory())
	}
}

// wantConfigurations holds what API servers are told: pods that ask are never made
// without an answer, those of the webhook's own namespace are never asked about, and
// whose certificate is trusted.
func (m *manifests) wantConfigurations(t *testing.T, namespace string) {
	t.Helper()
	if len(m.mutating) != 1 || len(m.mutating[0].Webhooks) != 1 || len(m.validating) != 1 {
		t.Fatalf("%d mutating and %d validating configurations, want one of each", len(m.mutating), len(m.validating))
	}
	h := m.mutating[0].Webhooks[0]
	if *h.FailurePolicy != admissionv1.Fail || *h.ReinvocationPolicy != admissionv1.IfNeededReinvocationPolicy || *h.TimeoutSeconds > 10 {
		t.Errorf("failure %s, reinvocation %s, %d s", *h.FailurePolicy, *h.ReinvocationPolicy, *h.TimeoutSeconds)
	}
	if h.ObjectSelector == nil || h.ObjectSelector.MatchLabels["culvert.dev/inject"] != "enabled" {
		t.Errorf("asks about pods without the label: %+v", h.ObjectSelector)
	}
	wantAsked(t, h.Name, namespace, "/inject", h.ClientConfig, h.NamespaceSelector, h.SideEffects)
	for _, h := range m.validating[0].Webhooks {
		if *h.FailurePolicy != admissionv1.Ignore || len(h.MatchConditions) != 1 {
			t.Errorf("%s: failure %s, conditions %v: it could be in somebody's way", h.Name, *h.FailurePolicy, h.MatchConditions)
		}
		wantAsked(t, h.Name, namespace, "/check", h.ClientConfig, h.NamespaceSelector, h.SideEffects)
	}
}

func wantAsked(t *testing.T, name, namespace, path string, c admissionv1.WebhookClientConfig, selector *metav1.LabelSelector, effects *admissionv1.SideEffectClass) {
	t.Helper()
	if c.Service == nil || c.Service.Name != "webhook" || c.Service.Namespace != namespace || *c.Service.Path != path {
		t.Errorf("%s: asks %+v", name, c.Service)
	}
	if !bytes.HasPrefix(c.CABundle, []byte("-----BEGIN CERTIFICATE-----")) {
		t.Errorf("%s: trusts %q", name, c.CABundle)
	}
	if *effects != admissionv1.SideEffectClassNone {
		t.Errorf("%s: side effects %s: a dry run would be refused", name, *effects)
	}
	left := metav1.LabelSelectorRequirement{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system", namespace}}
	if selector == nil || len(selector.MatchExpressions) != 1 || selector.MatchExpressions[0].String() != left.String() {
		t.Errorf("%s: asks about namespaces %v, want all but kube-system and its own", name, selector)
	}
}

// withWebhook are what the component has, with a bundle of nobody's.
const withWebhook = `
webhook:
  enabled: true
  caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t
  sidecar: {outlets: {orders-db: "${OUTLET}"}}
`

// The chart's webhook is the component's.
func TestHelmWebhook(t *testing.T) {
	got, want := buildChart(t, chartValues+withWebhook), buildWebhook(t)
	got.wantWebhook(t, "culvert")
	a, b := plain(got.pods()["webhook"]), plain(want.pods()["webhook"])
	b.Containers[0].Env = slices.DeleteFunc(b.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "CULVERT_SIDECAR_IMAGE" }) // it is in the chart's configuration
	wantSame(t, "the webhook's pods", a, b)
	wantSame(t, "budgets", got.namespaceless().budgets, want.namespaceless().budgets)
	wantSame(t, "services", got.namespaceless().services, want.namespaceless().services)
	hooks := func(m *manifests) ([]admissionv1.MutatingWebhook, []admissionv1.ValidatingWebhook) {
		mutating, validating := m.mutating[0].Webhooks, m.validating[0].Webhooks
		for i := range mutating {
			mutating[i].ClientConfig.CABundle = nil
		}
		for i := range validating {
			validating[i].ClientConfig.CABundle = nil
		}
		return mutating, validating
	}
	m1, v1 := hooks(got)
	m2, v2 := hooks(want)
	wantSame(t, "what it is asked about", m1, m2)
	wantSame(t, "what is checked early", v1, v2)
	if len(got.policies) != 6 {
		t.Errorf("%d network policies, want 6", len(got.policies))
	}
}

// Beside an authority, which members may reach, the webhook still reaches nobody.
func TestHelmWebhookAndAuthority(t *testing.T) {
	buildChart(t, authorityValues+withWebhook).wantWebhook(t, "culvert")
}

// Without a certificate that somebody trusts there is no webhook.
func TestHelmWebhookCertificate(t *testing.T) {
	if _, err := render(loadChart(t), chartValues+"webhook: {enabled: true}\n"); err == nil || !strings.Contains(err.Error(), "webhook.caBundle") {
		t.Errorf("got %v, want an error about webhook.caBundle", err)
	}
	files, err := render(loadChart(t), chartValues+"webhook: {enabled: true, certManager: true}\n")
	if err != nil {
		t.Fatal(err)
	}
	text := files["culvert/templates/webhook.yaml"]
	if strings.Count(text, "cert-manager.io/inject-ca-from: culvert/webhook") != 2 || strings.Contains(text, "caBundle") || !strings.Contains(text, "kind: Certificate") {
		t.Errorf("cert-manager has not all it needs:\n%s", text)
	}
}
