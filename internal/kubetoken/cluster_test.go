//go:build e2ekube

package kubetoken

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
)

// kubectl runs a command on the cluster that KUBECONFIG names, and returns what
// it prints.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("kubectl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// A token is bound to a pod that exists, and need not run.
const clusterPod = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: api}
---
apiVersion: v1
kind: Pod
metadata: {name: api-0}
spec:
  serviceAccountName: api
  automountServiceAccountToken: false
  nodeSelector: {culvert-test: nowhere}
  containers: [{name: none, image: "localhost/none:1"}]
`

// A server is where a kubeconfig's cluster is.
type server struct {
	Cluster struct {
		Server string `json:"server"`
		CAData string `json:"certificate-authority-data"`
		CAFile string `json:"certificate-authority"`
	} `json:"cluster"`
}

// apiServer returns the URL of the API server and a file of its authorities.
func apiServer(t *testing.T) (url, caFile string) {
	t.Helper()
	var c struct {
		Clusters []server `json:"clusters"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, "", "config", "view", "--raw", "--minify", "-o", "json")), &c); err != nil || len(c.Clusters) != 1 {
		t.Fatalf("reading the kubeconfig: %d clusters, %v", len(c.Clusters), err)
	}
	cluster := c.Clusters[0].Cluster
	if cluster.CAData == "" {
		return cluster.Server, cluster.CAFile
	}
	ca, err := base64.StdEncoding.DecodeString(cluster.CAData)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Server, write(t, ca)
}

// Tokens of a real API server, made as the kubelet asks for them, and its keys,
// read as an authority reads them.
func TestCluster(t *testing.T) {
	namespace := fmt.Sprintf("culvert-token-%d", time.Now().UnixNano())
	kubectl(t, "", "create", "namespace", namespace)
	t.Cleanup(func() { kubectl(t, "", "delete", "namespace", namespace, "--wait=false") })
	kubectl(t, clusterPod, "-n", namespace, "apply", "-f", "-")
	token := func(args ...string) string {
		return kubectl(t, "", append([]string{"-n", namespace, "create", "token", "api"}, args...)...)
	}
	bound := []string{"--bound-object-kind", "Pod", "--bound-object-name", "api-0"}
	good := token(append(bound, "--audience", testAudience)...)

	var about struct {
		Issuer string `json:"issuer"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, "", "get", "--raw", "/.well-known/openid-configuration")), &about); err != nil {
		t.Fatal(err)
	}
	url, caFile := apiServer(t)
	byURL := Config{
		Issuer: about.Issuer, Audience: testAudience, JWKSURL: url + "/openid/v1/jwks",
		CAFile: caFile, BearerTokenFile: write(t, []byte(token())),
	}
	byFile := Config{Issuer: about.Issuer, Audience: testAudience, KeysFile: write(t, []byte(kubectl(t, "", "get", "--raw", "/openid/v1/jwks")))}
	uid := kubectl(t, "", "-n", namespace, "get", "pod", "api-0", "-o", "jsonpath={.metadata.uid}")
	want := credential.Attributes{AttrNamespace: namespace, AttrServiceAccount: "api", AttrPod: "api-0"}
	for name, c := range map[string]Config{"URL": byURL, "file": byFile} {
		t.Run(name, func(t *testing.T) {
			v := start(t, c, nil)
			subject, attrs, err := v.Verify(t.Context(), good)
			if err != nil || !maps.Equal(attrs, want) {
				t.Fatalf("got %v, %v, want %v", attrs, err, want)
			}
			if want := fmt.Sprintf("%s#pod/%s/api-0/%s", about.Issuer, namespace, uid); subject != want {
				t.Errorf("got the subject %q, want %q", subject, want)
			}
			refused(t, v, token(bound...), code.TokenRefused, "for the audience")
			refused(t, v, token("--audience", testAudience), code.TokenRefused, "not bound to a pod")
			refused(t, v, token(append(bound, "--audience", testAudience, "--audience", "other")...), code.TokenRefused, "for 2 audiences")
		})
	}
}
