package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// A podMonitor is the Prometheus operator's, as far as it is used here: what else there
// is in one is an error.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector          metav1.LabelSelector
		NamespaceSelector struct {
			Any bool
		}
		PodMetricsEndpoints []struct {
			Port        string
			Relabelings []struct {
				Action, Regex string
				SourceLabels  []string
			}
		}
	}
}

// matches reports whether a selector is of a pod with those labels.
func matches(t *testing.T, s metav1.LabelSelector, pod map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(pod))
}

// scrapes returns the containers of a pod that the monitor has scraped. The pod is in
// the monitor's namespace unless it is elsewhere.
func (p *podMonitor) scrapes(t *testing.T, pod corev1.PodTemplateSpec, elsewhere bool) (names []string) {
	t.Helper()
	if !matches(t, p.Spec.Selector, pod.Labels) || elsewhere && !p.Spec.NamespaceSelector.Any {
		return nil
	}
	for _, e := range p.Spec.PodMetricsEndpoints {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			kept := slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool { return port.Name == e.Port })
			for _, r := range e.Relabelings {
				if r.Action != "keep" || !slices.Equal(r.SourceLabels, []string{"__meta_kubernetes_pod_container_name"}) {
					t.Fatalf("PodMonitor %s: no check knows the relabelling %+v", p.Name, r)
				}
				kept = kept && regexp.MustCompile("^(?:"+r.Regex+")$").MatchString(c.Name)
			}
			if kept {
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// wantScraped wants each program of the pod to be scraped once and nothing else of it,
// and in the monitors' namespace a policy that lets the scraper in.
func (m *manifests) wantScraped(t *testing.T, who string, pod corev1.PodTemplateSpec, elsewhere bool) {
	t.Helper()
	var scraped, programs []string
	for i := range m.monitors {
		scraped = append(scraped, m.monitors[i].scrapes(t, pod, elsewhere)...)
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if strings.Contains(c.Image, "culvert") && !strings.HasSuffix(c.Name, "identity") {
			programs = append(programs, c.Name)
		}
	}
	slices.Sort(scraped)
	slices.Sort(programs)
	if !slices.Equal(scraped, programs) || len(programs) == 0 {
		t.Errorf("%s: the monitors have %v scraped, want each of %v once", who, scraped, programs)
	}
	if elsewhere {
		return
	}
	for _, p := range m.policies {
		for _, in := range p.Spec.Ingress {
			if len(in.From) == 1 && in.From[0].NamespaceSelector != nil && in.From[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] == "monitoring" &&
				in.Ports[0].Port.IntValue() == 9100 && matches(t, p.Spec.PodSelector, pod.Labels) {
				return
			}
		}
	}
	t.Errorf("%s: no policy lets Prometheus in", who)
}

// buildMonitored builds an overlay with the component podmonitor, and those beside it.
func buildMonitored(t *testing.T, overlay string, components ...string) *manifests {
	t.Helper()
	return buildIn(t, overlay, func(dir string) string {
		if slices.Contains(components, "webhook") {
			script(t, filepath.Join(dir, "components", "webhook", "make-certificate"))
		}
		text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../" + overlay + "]\nnamespace: culvert\ncomponents:\n"
		for _, name := range append(components, "podmonitor") {
			text += "  - ../components/" + name + "\n"
		}
		if err := os.Mkdir(filepath.Join(dir, "monitored"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "monitored", "kustomization.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "monitored"
	})
}

// Every program that runs in a pod of an overlay is scraped, once: relay, outlet,
// inlets, authority and webhook.
func TestKubernetesScraped(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			m := buildMonitored(t, overlay, "webhook")
			templates := m.templates()
			for _, owner := range append([]string{"relay", "orders-db", "app", "report", "webhook"}, map[string][]string{"authority": {"authority"}}[overlay]...) {
				if _, is := templates[owner]; !is {
					t.Errorf("no pods of %s", owner)
				}
			}
			for owner, pod := range templates {
				m.wantScraped(t, owner, pod, false)
			}
		})
	}
}

// What the webhook and culvert inject add to pods of other namespaces is scraped, too, and
// what stands beside it is not.
func TestInjectedScraped(t *testing.T) {
	m := buildMonitored(t, "demo")
	i := slices.IndexFunc(m.deployments, func(d appsv1.Deployment) bool { return d.Name == "app" })
	bare := *m.deployments[i].DeepCopy()
	bare.Spec.Template = bareTemplate(bare.Spec.Template, map[string]string{
		"culvert.dev/inlet-config": "inlet-config", "culvert.dev/identity-secret": "inlet-identity",
	})
	bare.Spec.Template.Labels = map[string]string{"app.kubernetes.io/name": "app", "app.kubernetes.io/part-of": "shop"}
	bare.Spec.Selector.MatchLabels = map[string]string{"app.kubernetes.io/name": "app"}
	bare.Spec.Template.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "metrics", ContainerPort: 8080}}
	got := injected[appsv1.Deployment](t, bare, "--set-image=ghcr.io/culvert-net/culvert:dev")
	m.wantScraped(t, "an injected pod of another namespace", got.Spec.Template, true)
}

// The chart has the same programs scraped, and the sidecars of charts that depend on it.
func TestHelmScraped(t *testing.T) {
	for name, values := range map[string]string{"demo": chartValues, "authority": authorityValues} {
		t.Run(name, func(t *testing.T) {
			values += "podMonitor: {enabled: true}\n"
			m := buildChart(t, values)
			for owner, pod := range m.templates() {
				m.wantScraped(t, owner, pod, false)
			}
			pod := sidecars(t, values)
			pod.Labels = map[string]string{"app": "web", "culvert.dev/relay-client": "true"}
			m.wantScraped(t, "a pod of another chart", pod, false)
			m.wantScraped(t, "a pod of another chart and namespace", pod, true)
			if name == "authority" {
				i := slices.IndexFunc(m.policies, func(p networkPolicy) bool { return p.Name == "sidecars-to-authority" })
				if i < 0 || !matches(t, m.policies[i].Spec.PodSelector, pod.Labels) {
					t.Error("a pod of another chart may not reach the authority, whose member it is")
				}
			}
			for _, p := range m.policies {
				if strings.HasPrefix(p.Name, "metrics") && !slices.ContainsFunc(append(slices.Collect(maps.Values(m.templates())), pod), func(pod corev1.PodTemplateSpec) bool {
					return matches(t, p.Spec.PodSelector, pod.Labels)
				}) {
					t.Errorf("NetworkPolicy %s is of no pod", p.Name)
				}
			}
		})
	}
	if m := buildChart(t, chartValues); len(m.monitors) != 0 {
		t.Errorf("%d PodMonitors where none is wanted", len(m.monitors))
	}
	if m := buildChart(t, chartValues+"podMonitor: {enabled: true, namespace: watch}\n"); len(m.monitors) < 2 || !slices.ContainsFunc(m.policies, func(p networkPolicy) bool {
		return p.Name == "metrics" && p.Spec.Ingress[0].From[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] == "watch"
	}) {
		t.Error("the namespace that may scrape is not the one of the values")
	}
}

// sidecars returns a pod of a chart that depends on this one, with an inlet and an outlet,
// and a container of its own.
func sidecars(t *testing.T, values string) corev1.PodTemplateSpec {
	t.Helper()
	const user = `
initContainers:
  {{- include "culvert.inlet" . | nindent 2 }}
  {{- include "culvert.outlet" . | nindent 2 }}
containers:
  - {name: web, image: web, ports: [{name: metrics, containerPort: 8080}]}
`
	parent := &chart.Chart{
		Metadata:  &chart.Metadata{APIVersion: "v2", Name: "user", Version: "1.0.0", Dependencies: []*chart.Dependency{{Name: "culvert", Version: "0.1.0"}}},
		Templates: []*chart.File{{Name: "templates/pod.yaml", Data: []byte(user)}},
	}
	parent.AddDependency(loadChart(t))
	files, err := render(parent, "culvert:\n  "+strings.ReplaceAll(strings.TrimSpace(values), "\n", "\n  "))
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.PodTemplateSpec
	if err := yaml.UnmarshalStrict([]byte(files["user/templates/pod.yaml"]), &pod.Spec); err != nil {
		t.Fatalf("%v\n%s", err, files["user/templates/pod.yaml"])
	}
	return pod
}

// What an operator looks at in a pod is there: the console and culvert status, on the
// pod's loopback alone, or of an authority, which does more there, at a socket.
func TestKubernetesAdmin(t *testing.T) {
	eachOverlay(t, func(t *testing.T, m *manifests) {
		for owner, pod := range m.pods() {
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				if !strings.Contains(c.Image, "culvert") || c.Name == "identity" {
					continue
				}
				want := "admin: 127.0.0.1:9101\n"
				if c.Name == "authority" {
					want = "admin: unix:///tmp/authority.sock\n"
				}
				if !slices.ContainsFunc(m.configMaps, func(config corev1.ConfigMap) bool { return strings.Contains(config.Data[c.Name+".yaml"], want) }) {
					t.Errorf("%s/%s: its settings lack %s", owner, c.Name, want)
				}
			}
		}
	})
	if text := buildChart(t, chartValues).configMap(t, "relay-config").Data["relay.yaml"]; !strings.Contains(text, "admin: 127.0.0.1:9101\n") {
		t.Errorf("the chart's relay has\n%s", text)
	}
}
