package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// manifests is what `kubectl apply -k deploy/k8s/demo` would send, decoded
// strictly: an unknown or misspelled field is an error.
type manifests struct {
	namespaces   []corev1.Namespace
	services     []corev1.Service
	configMaps   []corev1.ConfigMap
	secrets      []corev1.Secret
	deployments  []appsv1.Deployment
	statefulSets []appsv1.StatefulSet
}

// buildManifests copies deploy/k8s, makes the demo's identities in the copy and
// builds it.
func buildManifests(t *testing.T) *manifests {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-r", root+"/deploy/k8s", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	demo := filepath.Join(dir, "k8s", "demo")
	if err := os.RemoveAll(filepath.Join(demo, "identities")); err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(demo, "make-identities"))
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), demo)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{}
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		switch r.GetKind() {
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
		default:
			t.Errorf("%s %s: no check knows this kind", r.GetKind(), r.GetName())
		}
		if r.GetKind() != "Namespace" && r.GetNamespace() != "culvert" {
			t.Errorf("%s %s: in namespace %q", r.GetKind(), r.GetName(), r.GetNamespace())
		}
	}
	return m
}

func decode[T any](t *testing.T, list []T, text []byte) []T {
	t.Helper()
	var object T
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return append(list, object)
}

// pods returns every pod template by its owner's name.
func (m *manifests) pods() map[string]corev1.PodSpec {
	pods := map[string]corev1.PodSpec{}
	for _, d := range m.deployments {
		pods[d.Name] = d.Spec.Template.Spec
	}
	for _, s := range m.statefulSets {
		pods[s.Name] = s.Spec.Template.Spec
	}
	return pods
}

func TestKubernetesSelectors(t *testing.T) {
	m := buildManifests(t)
	labels := map[string]map[string]string{}
	for _, d := range m.deployments {
		labels[d.Name] = d.Spec.Template.Labels
		wantSelected(t, "Deployment "+d.Name, d.Spec.Selector.MatchLabels, d.Spec.Template.Labels)
	}
	for _, s := range m.statefulSets {
		labels[s.Name] = s.Spec.Template.Labels
		wantSelected(t, "StatefulSet "+s.Name, s.Spec.Selector.MatchLabels, s.Spec.Template.Labels)
	}
	if len(m.services) != 1 {
		t.Fatalf("got %d Services, want the relay's", len(m.services))
	}
	relay := m.services[0]
	wantSelected(t, "Service relay", relay.Spec.Selector, labels["relay"])
	if relay.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Error("the relay's Service is not headless, so an outlet would reach only one replica")
	}
}

func wantSelected(t *testing.T, who string, selector, labels map[string]string) {
	t.Helper()
	if len(selector) == 0 {
		t.Errorf("%s selects everything", who)
	}
	for k, v := range selector {
		if labels[k] != v {
			t.Errorf("%s selects %s=%s, its pods have %q", who, k, v, labels[k])
		}
	}
}

func TestKubernetesSidecars(t *testing.T) {
	pods := buildManifests(t).pods()
	for owner, name := range map[string]string{"orders-db": "outlet", "app": "inlet"} {
		pod := pods[owner]
		if len(pod.InitContainers) != 1 || pod.InitContainers[0].Name != name {
			t.Errorf("%s: no sidecar %s", owner, name)
			continue
		}
		c := pod.InitContainers[0]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			t.Errorf("%s: %s is not a native sidecar (restartPolicy: Always)", owner, name)
		}
	}
}

func TestKubernetesPrograms(t *testing.T) {
	m := buildManifests(t)
	seen := []string{}
	for owner, pod := range m.pods() {
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			if !strings.Contains(c.Image, "culvert") {
				continue
			}
			seen = append(seen, c.Name)
			who := owner + "/" + c.Name
			run := []string{c.Name, "--config", "/etc/culvert/" + c.Name + ".yaml"}
			if !slices.Equal(c.Command, run) {
				t.Errorf("%s: command is %q, want %q", who, c.Command, run)
			}
			wantProbes(t, who, c, run)
			m.wantMounts(t, who, pod, c)
		}
		if grace := *pod.TerminationGracePeriodSeconds; grace <= 30 {
			t.Errorf("%s: is killed after %d s, within the drain time", owner, grace)
		}
	}
	slices.Sort(seen)
	if want := []string{"inlet", "outlet", "relay"}; !slices.Equal(seen, want) {
		t.Errorf("programs: got %v, want %v", seen, want)
	}
}

// wantProbes holds that alive and ready are different questions: a sidecar whose
// relay is away must not be restarted, which would help nobody.
func wantProbes(t *testing.T, who string, c corev1.Container, run []string) {
	t.Helper()
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe} {
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != "/healthz" || p.HTTPGet.Port.StrVal != "metrics" {
			t.Errorf("%s: startup or liveness does not ask /healthz: %v", who, p)
		}
	}
	if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" && p.ContainerPort == 9100 }) {
		t.Errorf("%s: no port metrics", who)
	}
	if c.ReadinessProbe == nil || c.ReadinessProbe.Exec == nil {
		t.Errorf("%s: lacks a readiness probe by exec", who)
		return
	}
	probe(t, who, c.ReadinessProbe.Exec.Command, run)
}

// wantMounts checks that the program's config is where its command says and
// valid, and that its key is one that only it can read.
func (m *manifests) wantMounts(t *testing.T, who string, pod corev1.PodSpec, c corev1.Container) {
	t.Helper()
	volumes := map[string]corev1.VolumeSource{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v.VolumeSource
	}
	mounts := map[string]corev1.VolumeSource{}
	for _, v := range c.VolumeMounts {
		mounts[v.MountPath] = volumes[v.Name]
		if !v.ReadOnly {
			t.Errorf("%s: %s is writable", who, v.MountPath)
		}
	}
	config := mounts["/etc/culvert"].ConfigMap
	if config == nil {
		t.Errorf("%s: no ConfigMap at /etc/culvert", who)
		return
	}
	text, ok := m.configMap(t, config.Name).Data[c.Name+".yaml"]
	if !ok {
		t.Errorf("%s: ConfigMap %s lacks %s.yaml", who, config.Name, c.Name)
	}
	var env []string
	for _, from := range c.EnvFrom {
		for k, v := range m.configMap(t, from.ConfigMapRef.Name).Data {
			env = append(env, k+"="+v)
		}
	}
	checkConfig(t, c.Name+".yaml", []byte(text), env...)

	key := mounts["/run/culvert/identity"].Secret
	if key == nil {
		t.Errorf("%s: no Secret at /run/culvert/identity", who)
		return
	}
	if !strings.Contains(text, "identity: /run/culvert/identity/identity.key\n") {
		t.Errorf("%s: its config does not name the key's place", who)
	}
	if key.SecretName != c.Name+"-identity" {
		t.Errorf("%s: holds the key in %s", who, key.SecretName)
	}
	if key.DefaultMode == nil || *key.DefaultMode != 0o400 {
		t.Errorf("%s: key has mode %v, want 0400", who, key.DefaultMode)
	}
	i := slices.IndexFunc(m.secrets, func(s corev1.Secret) bool { return s.Name == key.SecretName })
	if i < 0 || !bytes.Contains(m.secrets[i].Data["identity.key"], []byte("CULVERT PRIVATE KEY")) {
		t.Errorf("%s: Secret %s holds no identity.key", who, key.SecretName)
	}
}

func (m *manifests) configMap(t *testing.T, name string) corev1.ConfigMap {
	t.Helper()
	for _, c := range m.configMaps {
		if c.Name == name {
			return c
		}
	}
	t.Errorf("no ConfigMap %s", name)
	return corev1.ConfigMap{}
}

// The restricted Pod Security Standard, and a root that nobody writes to.
func TestKubernetesRestricted(t *testing.T) {
	for owner, pod := range buildManifests(t).pods() {
		s := pod.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
			t.Errorf("%s: may run as root", owner)
			continue
		}
		if s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: no seccomp profile", owner)
		}
		if s.FSGroup == nil || *s.FSGroup != 65532 {
			t.Errorf("%s: its Secrets do not belong to the group 65532", owner)
		}
		if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
			t.Errorf("%s: mounts a token it does not use", owner)
		}
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Errorf("%s: shares the host's namespaces", owner)
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			wantRestricted(t, owner+"/"+c.Name, s, c)
		}
	}
}

func wantRestricted(t *testing.T, who string, pod *corev1.PodSecurityContext, c corev1.Container) {
	t.Helper()
	s := c.SecurityContext
	if s == nil {
		t.Errorf("%s: no security context", who)
		return
	}
	if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
		t.Errorf("%s: may gain privileges", who)
	}
	if s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s: its root is writable", who)
	}
	if s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) != 0 {
		t.Errorf("%s: keeps capabilities", who)
	}
	user := pod.RunAsUser
	if s.RunAsUser != nil {
		user = s.RunAsUser
	}
	if user == nil || *user == 0 {
		t.Errorf("%s: names no user of its own", who)
	}
	if strings.Contains(c.Image, "culvert") && user != nil && *user != 65532 {
		t.Errorf("%s: runs as %d, not as the image's user", who, *user)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
		t.Errorf("%s: no memory limit or no CPU request", who)
	}
}

func TestKubernetesNamespaceEnforces(t *testing.T) {
	m := buildManifests(t)
	if len(m.namespaces) != 1 || m.namespaces[0].Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Errorf("the namespace does not enforce the restricted standard: %+v", m.namespaces)
	}
}
