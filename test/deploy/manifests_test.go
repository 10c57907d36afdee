package deploy

import (
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
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// manifests is what `kubectl apply -k` of an overlay would send, decoded
// strictly: an unknown or misspelled field is an error.
type manifests struct {
	namespaces   []corev1.Namespace
	accounts     []corev1.ServiceAccount
	services     []corev1.Service
	configMaps   []corev1.ConfigMap
	secrets      []corev1.Secret
	deployments  []appsv1.Deployment
	statefulSets []appsv1.StatefulSet
	jobs         []batchv1.Job
	budgets      []policyv1.PodDisruptionBudget
	policies     []networkingv1.NetworkPolicy
	bindings     []rbacv1.ClusterRoleBinding
	mutating     []admissionv1.MutatingWebhookConfiguration
	validating   []admissionv1.ValidatingWebhookConfiguration
	monitors     []podMonitor
}

// clusterWide are the kinds that have no namespace; never written.
var clusterWide = []string{"Namespace", "ClusterRoleBinding", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}

// Kinds by names that are short enough.
type (
	networkPolicy = networkingv1.NetworkPolicy
	policyBudget  = policyv1.PodDisruptionBudget
)

// overlays are the folders of deploy/k8s that are applied.
var overlays = []string{"demo", "authority"}

// eachOverlay runs a test on what each overlay sends.
func eachOverlay(t *testing.T, test func(t *testing.T, m *manifests)) {
	t.Helper()
	for _, name := range overlays {
		t.Run(name, func(t *testing.T) { test(t, buildManifests(t, name)) })
	}
}

// buildManifests copies deploy/k8s, makes an overlay's identities in the copy and
// builds it.
func buildManifests(t *testing.T, overlay string) *manifests {
	t.Helper()
	return buildIn(t, overlay, func(string) string { return overlay })
}

// buildIn is buildManifests with something done to the copy, that says which of its
// folders is built.
func buildIn(t *testing.T, overlay string, prepare func(dir string) string) *manifests {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-r", root+"/deploy/k8s", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range overlays {
		if err := os.RemoveAll(filepath.Join(dir, "k8s", name, "identities")); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("ISSUER", "https://kubernetes.default.svc.cluster.local") // there is no cluster to ask
	script(t, filepath.Join(dir, "k8s", overlay, "make-identities"))
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(dir, "k8s", prepare(filepath.Join(dir, "k8s"))))
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{}
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if !m.take(t, r.GetKind(), text) {
			t.Errorf("%s %s: no check knows this kind", r.GetKind(), r.GetName())
		}
		if !slices.Contains(clusterWide, r.GetKind()) && r.GetNamespace() != "culvert" {
			t.Errorf("%s %s: in namespace %q", r.GetKind(), r.GetName(), r.GetNamespace())
		}
	}
	return m
}

// take decodes an object of a kind, and reports whether the kind is known.
func (m *manifests) take(t *testing.T, kind string, text []byte) bool {
	t.Helper()
	switch kind {
	case "Namespace":
		m.namespaces = decode(t, m.namespaces, text)
	case "Service":
		m.services = decode(t, m.services, text)
	case "ConfigMap":
		m.configMaps = decode(t, m.configMaps, text)
	case "Secret":
		m.secrets = decode(t, m.secrets, text)
	case "Deployment":
		m.deployments = decode(t, m.deployments, text)
	case "StatefulSet":
		m.statefulSets = decode(t, m.statefulSets, text)
	case "ServiceAccount":
		m.accounts = decode(t, m.accounts, text)
	case "Job":
		m.jobs = decode(t, m.jobs, text)
	case "PodDisruptionBudget":
		m.budgets = decode(t, m.budgets, text)
	case "NetworkPolicy":
		m.policies = decode(t, m.policies, text)
	case "ClusterRoleBinding":
		m.bindings = decode(t, m.bindings, text)
	case "MutatingWebhookConfiguration":
		m.mutating = decode(t, m.mutating, text)
	case "ValidatingWebhookConfiguration":
		m.validating = decode(t, m.validating, text)
	case "PodMonitor":
		m.monitors = decode(t, m.monitors, text)
	default:
		return false
	}
	return true
}

// namespaceless returns the services, by their names, and the budgets without the
// namespace that kustomize has put into them.
func (m *manifests) namespaceless() *manifests {
	out := &manifests{services: slices.Clone(m.services), budgets: slices.Clone(m.budgets)}
	for i := range out.services {
		out.services[i].Namespace = ""
	}
	for i := range out.budgets {
		out.budgets[i].Namespace = ""
	}
	slices.SortFunc(out.services, func(a, b corev1.Service) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func decode[T any](t *testing.T, list []T, text []byte) []T {
	t.Helper()
	var object T
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return append(list, object)
}

// templates returns every pod template by its owner's name.
func (m *manifests) templates() map[string]corev1.PodTemplateSpec {
	templates := map[string]corev1.PodTemplateSpec{}
	for _, d := range m.deployments {
		templates[d.Name] = d.Spec.Template
	}
	for _, s := range m.statefulSets {
		templates[s.Name] = s.Spec.Template
	}
	for _, j := range m.jobs {
		templates[j.Name] = j.Spec.Template
	}
	return templates
}

// pods returns every pod's specification by its owner's name.
func (m *manifests) pods() map[string]corev1.PodSpec {
	pods := map[string]corev1.PodSpec{}
	for name, template := range m.templates() {
		pods[name] = template.Spec
	}
	return pods
}
