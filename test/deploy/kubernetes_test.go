package deploy

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func TestKubernetesSelectors(t *testing.T) {
	eachOverlay(t, func(t *testing.T, m *manifests) {
		templates := m.templates()
		for _, d := range m.deployments {
			wantSelected(t, "Deployment "+d.Name, d.Spec.Selector.MatchLabels, d.Spec.Template.Labels)
		}
		for _, s := range m.statefulSets {
			wantSelected(t, "StatefulSet "+s.Name, s.Spec.Selector.MatchLabels, s.Spec.Template.Labels)
		}
		for _, s := range m.services {
			wantSelected(t, "Service "+s.Name, s.Spec.Selector, templates[s.Name].Labels)
			if s.Spec.ClusterIP != corev1.ClusterIPNone {
				t.Errorf("Service %s is not headless, so an outlet would reach only one replica", s.Name)
			}
		}
		for _, b := range m.budgets {
			wantSelected(t, "PodDisruptionBudget "+b.Name, b.Spec.Selector.MatchLabels, templates[b.Name].Labels)
		}
	})
}

// Relays can be replaced, moved and updated one at a time, with others there.
func TestKubernetesRelays(t *testing.T) {
	eachOverlay(t, func(t *testing.T, m *manifests) {
		i := slices.IndexFunc(m.deployments, func(d appsv1.Deployment) bool { return d.Name == "relay" })
		if i < 0 {
			t.Fatal("no Deployment relay")
		}
		d := m.deployments[i].Spec
		if *d.Replicas != 3 || d.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
			t.Errorf("%d replicas, updated by %+v, want 3, none unavailable", *d.Replicas, d.Strategy.RollingUpdate)
		}
		if d.MinReadySeconds <= 10 {
			t.Errorf("the next relay is replaced after %d s, before outlets have found the last", d.MinReadySeconds)
		}
		if len(d.Template.Spec.TopologySpreadConstraints) == 0 {
			t.Error("all relays may run on one node")
		}
		if len(m.budgets) != 1 || m.budgets[0].Spec.MaxUnavailable.IntValue() != 1 {
			t.Errorf("disruption budgets: %+v, want one, that lets one relay go", m.budgets)
		}
	})
}

// Nobody speaks to anybody unless a policy says so, and each policy is of pods that
// are there.
func TestKubernetesNetworkPolicies(t *testing.T) {
	eachOverlay(t, func(t *testing.T, m *manifests) {
		denied := false
		for _, p := range m.policies {
			everybody := len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions) == 0
			denied = denied || everybody && len(p.Spec.PolicyTypes) == 2 && len(p.Spec.Ingress)+len(p.Spec.Egress) == 0
			if everybody {
				continue
			}
			selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(slices.Collect(maps.Values(m.templates())), func(pod corev1.PodTemplateSpec) bool {
				return selector.Matches(labels.Set(pod.Labels))
			}) {
				t.Errorf("NetworkPolicy %s is of no pod", p.Name)
			}
		}
		if !denied {
			t.Error("no policy denies everything")
		}
	})
}

// Each pod has a service account of its own, which is there.
func TestKubernetesAccounts(t *testing.T) {
	eachOverlay(t, func(t *testing.T, m *manifests) {
		for owner, pod := range m.pods() {
			if pod.ServiceAccountName != owner || !slices.ContainsFunc(m.accounts, func(a corev1.ServiceAccount) bool { return a.Name == owner }) {
				t.Errorf("%s: runs as the service account %q of %d", owner, pod.ServiceAccountName, len(m.accounts))
			}
		}
	})
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
	eachOverlay(t, func(t *testing.T, m *manifests) {
		pods := m.pods()
		for owner, name := range map[string]string{"orders-db": "outlet", "app": "inlet", "report": "inlet"} {
			init := pods[owner].InitContainers
			if len(init) == 0 || init[len(init)-1].Name != name {
				t.Errorf("%s: no sidecar %s, behind what prepares it", owner, name)
				continue
			}
			c := init[len(init)-1]
			if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				t.Errorf("%s: %s is not a native sidecar (restartPolicy: Always)", owner, name)
			}
			if c.ReadinessProbe != nil {
				t.Errorf("%s: a relay's trouble takes the pod out of its Service", owner)
			}
		}
	})
}

func TestKubernetesPrograms(t *testing.T) {
	for overlay, want := range map[string][]string{
		"demo":      {"inlet", "inlet", "outlet", "relay"},
		"authority": {"authority", "inlet", "inlet", "outlet", "relay"},
	} {
		m := buildManifests(t, overlay)
		seen := []string{}
		for owner, pod := range m.pods() {
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				if !strings.Contains(c.Image, "culvert") || c.Name == "identity" {
					continue
				}
				seen = append(seen, c.Name)
				who := overlay + ": " + owner + "/" + c.Name
				run := []string{c.Name, "--config", "/etc/culvert/" + c.Name + ".yaml"}
				if c.Name == "authority" {
					run = append([]string{"culvert"}, run...)
				}
				if !slices.Equal(c.Command, run) {
					t.Errorf("%s: command is %q, want %q", who, c.Command, run)
				}
				wantProbes(t, who, owner, c, run)
				m.wantMounts(t, who, pod, c)
			}
			if grace := *pod.TerminationGracePeriodSeconds; grace <= 30 {
				t.Errorf("%s: is killed after %d s, within the drain time", owner, grace)
			}
		}
		slices.Sort(seen)
		if !slices.Equal(seen, want) {
			t.Errorf("%s: programs: got %v, want %v", overlay, seen, want)
		}
	}
}

// wantProbes holds that alive and ready are different questions: a sidecar whose
// relay is away must not be restarted, which would help nobody. A job alone, whose
// one try should not be in vain, starts when its service can be reached.
func wantProbes(t *testing.T, who, owner string, c corev1.Container, run []string) {
	t.Helper()
	alive := []*corev1.Probe{c.StartupProbe, c.LivenessProbe}
	if owner == "report" {
		alive = alive[1:]
		if c.StartupProbe == nil || c.StartupProbe.Exec == nil {
			t.Errorf("%s: the job does not wait for its service", who)
		} else {
			probe(t, who, c.StartupProbe.Exec.Command[:len(run)+1], run)
		}
	}
	for _, p := range alive {
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != "/healthz" || p.HTTPGet.Port.StrVal != "metrics" {
			t.Errorf("%s: startup or liveness does not ask /healthz: %v", who, p)
		}
	}
	if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" && p.ContainerPort == 9100 }) {
		t.Errorf("%s: no port metrics", who)
	}
	if c.Name != "relay" && c.Name != "authority" && c.Name != "webhook" {
		return
	}
	if p := c.ReadinessProbe; p == nil || p.HTTPGet == nil || p.HTTPGet.Path != "/readyz" || p.HTTPGet.Port.StrVal != "metrics" {
		t.Errorf("%s: readiness does not ask /readyz: %v", who, p)
	}
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
		if writable := v.MountPath == "/var/lib/culvert" || v.MountPath == "/tmp"; v.ReadOnly == writable {
			t.Errorf("%s: %s is read-only: %v", who, v.MountPath, v.ReadOnly)
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

	if made := mounts["/run/culvert/identity"].EmptyDir; made != nil && c.Name == "inlet" {
		wantMade(t, who, pod, made)
		return
	}
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

// wantMade checks that an identity that is made in the pod is made once, in memory,
// and comes with a token that is for the authority alone.
func wantMade(t *testing.T, who string, pod corev1.PodSpec, folder *corev1.EmptyDirVolumeSource) {
	t.Helper()
	if folder.Medium != corev1.StorageMediumMemory {
		t.Errorf("%s: its key is written to a disk", who)
	}
	want := []string{"culvert", "identity", "new", "-o", "/run/culvert/identity/identity.key", "--if-missing"}
	if got := pod.InitContainers[0].Command; !slices.Equal(got, want) {
		t.Errorf("%s: its identity is made by %q, want %q", who, got, want)
	}
	for _, v := range pod.Volumes {
		if v.Projected == nil {
			continue
		}
		if token := v.Projected.Sources[0].ServiceAccountToken; token == nil || token.Audience != "culvert" || *token.ExpirationSeconds != 600 {
			t.Errorf("%s: token %+v, want one for culvert, for 10 min", who, token)
		}
		return
	}
	t.Errorf("%s: no token", who)
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
	eachOverlay(t, func(t *testing.T, m *manifests) { m.wantRestricted(t) })
}

func (m *manifests) wantRestricted(t *testing.T) {
	t.Helper()
	for owner, pod := range m.pods() {
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
	m := buildManifests(t, "demo")
	if len(m.namespaces) != 1 || m.namespaces[0].Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Errorf("the namespace does not enforce the restricted standard: %+v", m.namespaces)
	}
}

// What the Prometheus operator scrapes are ports that the pods have, and a policy
// lets it.
func TestKubernetesPodMonitor(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-r", root+"/deploy/k8s/components/podmonitor", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("components: [podmonitor]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, r := range resources.Resources() {
		kinds = append(kinds, r.GetKind())
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		switch r.GetKind() {
		case "NetworkPolicy":
			policies := decode(t, []networkingv1.NetworkPolicy(nil), text)
			if port := policies[0].Spec.Ingress[0].Ports[0].Port; port.IntValue() != 9100 {
				t.Errorf("lets Prometheus reach port %v, want 9100", port)
			}
		case "PodMonitor":
			want := []string{"port: metrics"}
			if r.GetName() == "culvert-injected" { // docs/inject.md
				want = []string{"port: culvert-inlet", "port: culvert-outlet", "any: true", `culvert.dev/scrape: "true"`}
			}
			for _, line := range want {
				if !bytes.Contains(text, []byte(line)) {
					t.Errorf("%s lacks %q:\n%s", r.GetName(), line, text)
				}
			}
		}
	}
	slices.Sort(kinds)
	if want := []string{"NetworkPolicy", "PodMonitor", "PodMonitor"}; !slices.Equal(kinds, want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
}
