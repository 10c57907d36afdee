package deploy

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	rendering "github.com/culvert-net/culvert/test/deploy/chart"
)

// identifier stands for that of anybody.
var identifier = strings.Repeat("b", 51) + "a"

// chartValues are what says in the chart what deploy/k8s says.
const chartValues = `
identifiers: {RELAY: ID, OUTLET: ID, INLET: ID, AUTHORITY: ID}
relay: {config: {register: ["${OUTLET}"], connect: ["${INLET}"]}}
`

// authorityValues are those with an authority.
const authorityValues = chartValues + `
authority:
  enabled: true
  config: {kubernetes: {issuer: https://kubernetes.default.svc.cluster.local, namespaces: [culvert]}}
`

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir(filepath.Join(root, "deploy/helm"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render returns the chart's files as `helm template` would, or what is wrong with
// the values.
func render(c *chart.Chart, values string) (map[string]string, error) {
	return rendering.Render(c, strings.ReplaceAll(values, "ID", identifier))
}

// buildChart renders the chart and decodes it strictly.
func buildChart(t *testing.T, values string) *manifests {
	t.Helper()
	files, err := render(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for text := range strings.SplitSeq(files[name], "\n---\n") {
			var about struct{ Kind string }
			if err := yaml.Unmarshal([]byte(text), &about); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
			if about.Kind != "" && !m.take(t, about.Kind, []byte(text)) {
				t.Errorf("%s: no check knows the kind %s", name, about.Kind)
			}
		}
	}
	return m
}

// plain takes from a pod's specification what the chart and kustomize may say
// differently: the order of volumes, and where variables and configurations lie.
func plain(pod corev1.PodSpec) corev1.PodSpec {
	byName := func(a, b corev1.Volume) int { return strings.Compare(a.Name, b.Name) }
	pod.Volumes = slices.SortedFunc(slices.Values(pod.Volumes), byName)
	for i := range pod.Volumes {
		if pod.Volumes[i].Name == "config" {
			pod.Volumes[i].ConfigMap = nil
		}
	}
	pod.InitContainers, pod.Containers = plainAll(pod.InitContainers), plainAll(pod.Containers)
	return pod
}

func plainAll(list []corev1.Container) []corev1.Container {
	list = slices.Clone(list)
	for i := range list {
		c := &list[i]
		c.EnvFrom, c.ImagePullPolicy = nil, ""
		c.VolumeMounts = slices.SortedFunc(slices.Values(c.VolumeMounts), func(a, b corev1.VolumeMount) int { return strings.Compare(a.MountPath, b.MountPath) })
	}
	return list
}

// wantSame compares what the chart says with what kustomize does.
func wantSame(t *testing.T, what string, got, want any) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return
	}
	a, _ := yaml.Marshal(got)
	b, _ := yaml.Marshal(want)
	t.Errorf("%s: the chart has\n%s\ndeploy/k8s has\n%s", what, a, b)
}

// The chart makes the relays of the base, and those and the authority of the
// overlay.
func TestHelmSame(t *testing.T) {
	for overlay, values := range map[string]string{"demo": chartValues, "authority": authorityValues} {
		t.Run(overlay, func(t *testing.T) {
			got, want := buildChart(t, values), buildManifests(t, overlay)
			wantSame(t, "services", got.namespaceless().services, want.namespaceless().services)
			wantSame(t, "disruption budgets", got.budgets, want.namespaceless().budgets)
			for name, template := range got.templates() {
				wantSame(t, name+"'s pods", plain(template.Spec), plain(want.templates()[name].Spec))
				wantSame(t, name+"'s labels", template.Labels, want.templates()[name].Labels)
				if template.Annotations["checksum/config"] == "" {
					t.Errorf("%s: its pods stay as they are when its configuration changes", name)
				}
			}
			relay := func(m *manifests) appsv1.DeploymentSpec {
				spec := m.deployments[slices.IndexFunc(m.deployments, func(d appsv1.Deployment) bool { return d.Name == "relay" })].Spec
				spec.Template = corev1.PodTemplateSpec{}
				return spec
			}
			wantSame(t, "Deployment relay", relay(got), relay(want))
			for _, name := range []string{"relay", "authority"}[:len(got.templates())] {
				config := got.configMap(t, name+"-config").Data[name+".yaml"]
				checkConfig(t, name+".yaml", []byte(config), "RELAY="+identifier, "OUTLET="+identifier, "INLET="+identifier, "AUTHORITY="+identifier)
			}
			if _, ok := got.templates()["authority"]; ok != (overlay == "authority") {
				t.Errorf("an authority: %v", ok)
			}
		})
	}
}

// A chart that depends on this one has the sidecars of the base.
func TestHelmSidecars(t *testing.T) {
	const user = `
inlet:
  {{- include "culvert.inlet" . | nindent 2 }}
outlet:
  {{- include "culvert.outlet" . | nindent 2 }}
made:
  {{- include "culvert.identity" . | nindent 2 }}
volumes:
  {{- include "culvert.volumes" (dict "context" . "config" "inlet-config" "identity" "inlet-identity") | nindent 2 }}
memory:
  {{- include "culvert.volumes" (dict "context" . "config" "inlet-config") | nindent 2 }}
`
	for overlay, values := range map[string]string{"demo": chartValues, "authority": authorityValues} {
		t.Run(overlay, func(t *testing.T) {
			parent := &chart.Chart{
				Metadata:  &chart.Metadata{APIVersion: "v2", Name: "user", Version: "1.0.0", Dependencies: []*chart.Dependency{{Name: "culvert", Version: "0.1.0"}}},
				Templates: []*chart.File{{Name: "templates/pod.yaml", Data: []byte(user)}},
			}
			parent.AddDependency(loadChart(t))
			files, err := render(parent, "culvert:\n"+strings.ReplaceAll(values, "\n", "\n  "))
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Inlet, Outlet, Made []corev1.Container
				Volumes, Memory     []corev1.Volume
			}
			if err := yaml.UnmarshalStrict([]byte(files["user/templates/pod.yaml"]), &got); err != nil {
				t.Fatalf("%v\n%s", err, files["user/templates/pod.yaml"])
			}
			want := buildManifests(t, overlay).pods()
			app := plain(want["app"])
			volumes := got.Volumes
			if overlay == "authority" {
				wantSame(t, "identity", plainAll(got.Made), app.InitContainers[:1])
				volumes = got.Memory
			}
			wantSame(t, "inlet", plainAll(got.Inlet), app.InitContainers[len(app.InitContainers)-1:])
			wantSame(t, "outlet", plainAll(got.Outlet), plain(want["orders-db"]).InitContainers)
			wantSame(t, "volumes", plain(corev1.PodSpec{Volumes: volumes}).Volumes, app.Volumes)
		})
	}
}

// What the chart does not know is refused: a misspelt value must not be a default.
func TestHelmRefuses(t *testing.T) {
	for _, c := range []struct{ values, says string }{
		{"relay: {replica: 5}", "replica"},
		{"relays: {}", "relays"},
		{"relay: {replicas: 0}", "replicas"},
		{"identifiers: {RELAY: not-one}", "RELAY"},
		{"identifiers: {'a b': ID}", "a b"},
		{"image: {repository: ''}", "repository"},
	} {
		if _, err := render(loadChart(t), c.values); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error about %s", c.values, err, c.says)
		}
	}
}

// Policies and what the operator scrapes come and go by their values.
func TestHelmSwitches(t *testing.T) {
	if m := buildChart(t, chartValues); len(m.policies) != 4 {
		t.Errorf("%d network policies, want those of the base, 4", len(m.policies))
	}
	if m := buildChart(t, chartValues+"networkPolicies: false\npodMonitor: {enabled: true}\n"); len(m.policies) != 0 {
		t.Errorf("%d network policies, want none", len(m.policies))
	}
	files, err := render(loadChart(t), chartValues+"podMonitor: {enabled: true, namespace: watch}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := files["culvert/templates/podmonitor.yaml"]; strings.Count(got, "kind: PodMonitor") != 2 || !strings.Contains(got, "kubernetes.io/metadata.name: watch") {
		t.Errorf("podmonitor.yaml: %s", got)
	}
}
