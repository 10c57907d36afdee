package config

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// loadKubernetes reads a file's section kubernetes.
func loadKubernetes(t *testing.T, text string) (*Kubernetes, error) {
	t.Helper()
	root, faults := parseYAML("/etc/culvert/authority.yaml", []byte(text))
	if len(faults) > 0 {
		t.Fatalf("%s\n%v", text, faults)
	}
	d := &decoder{file: "/etc/culvert/authority.yaml", text: text, origins: map[string]Origin{}}
	k := d.kubernetes(root.get("kubernetes").value, "kubernetes")
	if len(d.faults) > 0 {
		return nil, d.faults.sorted()
	}
	return k, nil
}

func TestKubernetes(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Kubernetes
	}{
		{`
kubernetes:
  issuer: https://oidc.example/cluster
  audience: culvert
`, Kubernetes{Issuer: "https://oidc.example/cluster", Audience: "culvert"}},
		{`
kubernetes:
  issuer: https://kubernetes.default.svc.cluster.local
  audience: culvert
  jwks_url: https://10.0.0.1:6443/openid/v1/jwks
  ca_file: kube/ca.crt
  bearer_token_file: /var/run/token
  clock_skew: 30s
  algorithms: [ES256, RS256]
  namespaces: [shop, bank-2]
  allow_without_pod: true
`, Kubernetes{
			Issuer: "https://kubernetes.default.svc.cluster.local", Audience: "culvert", JWKSURL: "https://10.0.0.1:6443/openid/v1/jwks",
			CAFile: "/etc/culvert/kube/ca.crt", BearerTokenFile: "/var/run/token", ClockSkew: 30 * time.Second,
			Algorithms: []string{"ES256", "RS256"}, Namespaces: []string{"shop", "bank-2"}, AllowWithoutPod: true,
		}},
		{`
kubernetes: {issuer: kubernetes, audience: culvert, keys_file: sa.pub, allow_without_pod: false}
`, Kubernetes{Issuer: "kubernetes", Audience: "culvert", KeysFile: "/etc/culvert/sa.pub"}},
	} {
		got, err := loadKubernetes(t, tt.text)
		if err != nil || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%s\ngot %+v, %v\nwant %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestKubernetesFaults(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", `
kubernetes: {}
`, `
:2:13: kubernetes.issuer: missing: say whose tokens count (issuer: https://…); "kubectl get --raw /.well-known/openid-configuration" prints it
:2:13: kubernetes.audience: missing: say what tokens have to be made for (audience: culvert); pods' projected volumes name the same`},
		{"no section", `
kubernetes: true
`, `
:2:13: kubernetes: want keys with values, not a boolean`},
		{"misspelt", `
kubernetes:
  isuer: https://k
  audiences: [culvert]
  skew: 5m
  kubernetes_token: /f
`, `
:3:3: kubernetes.isuer: unknown key (did you mean "issuer"?)
:4:3: kubernetes.audiences: unknown key (did you mean "audience"?)
:5:3: kubernetes.skew: unknown key (did you mean "clock_skew"?)
:6:3: kubernetes.kubernetes_token: unknown key (it belongs in the file of the inlet, outlet or relay that enrols)`},
		{"http", `
kubernetes:
  issuer: http://k
  audience: culvert
`, `
:3:11: kubernetes.issuer: "http://k": want https://, since whoever can change the keys on their way can make tokens; or say where its keys are (jwks_url or keys_file)`},
		{"no URLs", `
kubernetes:
  issuer: "kubernetes#pod"
  audience: "two words"
  jwks_url: "https://user:secret@k/keys"
`, `
:3:11: kubernetes.issuer: "kubernetes#pod" has a fragment, which no issuer has
:4:13: kubernetes.audience: "two words" holds a space, or other characters than those of ASCII that can be seen
:5:13: kubernetes.jwks_url: want a URL without user, query and fragment`},
		{"no host", `
kubernetes: {issuer: k, audience: culvert, jwks_url: "https:///keys"}
`, `
:2:54: kubernetes.jwks_url: "https:///keys" names no host`},
		{"long", `
kubernetes: {issuer: k, audience: ` + strings.Repeat("a", 600) + `, keys_file: f}
`, `
:2:35: kubernetes.audience: has 600 characters: at most 512 fit`},
		{"two ways", `
kubernetes:
  issuer: k
  audience: culvert
  jwks_url: https://k/keys
  keys_file: f
  ca_file: g
  bearer_token_file: h
`, `
:5:13: kubernetes.jwks_url: has no use beside keys_file, from which the keys are read: remove one of the two
:7:12: kubernetes.ca_file: has no use beside keys_file, from which the keys are read: remove one of the two
:8:22: kubernetes.bearer_token_file: has no use beside keys_file, from which the keys are read: remove one of the two`},
		{"values", `
kubernetes:
  issuer: https://k
  audience: 5
  clock_skew: 1h
  algorithms: [RS256, none, HS256, RS256]
  namespaces: [Shop, a.b, "*", a, a]
  allow_without_pod: yes
`, `
:4:13: kubernetes.audience: want text, not a number: write it in quotes, "5", if it is meant
:5:15: kubernetes.clock_skew: 1h is out of range: want 1s to 10m
:6:23: kubernetes.algorithms[1]: "none": want some of RS256, RS384, RS512, ES256, ES384, ES512
:6:29: kubernetes.algorithms[2]: "HS256": want some of RS256, RS384, RS512, ES256, ES384, ES512
:6:36: kubernetes.algorithms[3]: RS256 is in the list twice: remove one
:7:16: kubernetes.namespaces[0]: "Shop": write the name in lower case
:7:22: kubernetes.namespaces[1]: "a.b" has '.' at position 2: a name has a to z, 0 to 9 and, inside, hyphens
:7:27: kubernetes.namespaces[2]: "*" has '*' at position 1: a name has a to z, 0 to 9 and, inside, hyphens
:7:35: kubernetes.namespaces[4]: a is in the list twice: remove one
:8:22: kubernetes.allow_without_pod: want true or false`},
		{"empty lists", `
kubernetes: {issuer: "https://k", audience: culvert, algorithms: [], namespaces: [], allow_without_pod: [true]}
`, `
:2:66: kubernetes.algorithms: is empty: nothing could be accepted: write at least one, or remove the key
:2:82: kubernetes.namespaces: is empty: no pod could be accepted: write at least one, or remove the key for all
:2:105: kubernetes.allow_without_pod: want true or false`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := loadKubernetes(t, tt.text)
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("got %+v, %v, want Faults", got, err)
			}
			if g, w := strings.ReplaceAll("\n"+err.Error(), "/etc/culvert/authority.yaml", ""), tt.want; g != w {
				t.Errorf("got:%s\nwant:%s", g, w)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows a URL's password: %v", err)
			}
		})
	}
}

// What docs/kubernetes-enrollment.md shows of an authority's file can be used.
func TestKubernetesDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/kubernetes-enrollment.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		if !strings.HasPrefix(m[1], "# authority.yaml\n") {
			continue
		}
		n++
		if _, err := loadKubernetes(t, m[1]); err != nil {
			t.Errorf("%s\n%v", m[1], err)
		}
	}
	if n < 3 {
		t.Errorf("found %d examples", n)
	}
}
