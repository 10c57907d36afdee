//go:build e2e && linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const tokenAudience = "culvert"

// A cluster is what an authority sees of a Kubernetes: its issuer's documents, by
// HTTPS, and the tokens that its kubelets write.
type cluster struct {
	w      *world
	url    string
	caFile string
	signer jose.Signer
}

func (w *world) cluster() *cluster {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		w.t.Fatal(err)
	}
	keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: string(jose.ES256), Use: "sig"}}}
	mux := http.NewServeMux()
	s := httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	w.t.Cleanup(s.Close)
	for path, document := range map[string]any{
		"/.well-known/openid-configuration": map[string]string{"issuer": s.URL, "jwks_uri": s.URL + "/openid/v1/jwks"},
		"/openid/v1/jwks":                   keys,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(document) })
	}
	c := &cluster{w: w, url: s.URL, caFile: filepath.Join(w.dir, "cluster-ca.pem"), signer: signer}
	if err := os.WriteFile(c.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// token is one as the kubelet projects it into a pod.
func (c *cluster) token(namespace, account, pod string, lifetime time.Duration) string {
	c.w.t.Helper()
	now := time.Now()
	payload, err := json.Marshal(map[string]any{
		"iss": c.url, "aud": []string{tokenAudience}, "sub": "system:serviceaccount:" + namespace + ":" + account,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": namespace, "serviceaccount": map[string]string{"name": account, "uid": "uid-of-" + account},
			"pod": map[string]string{"name": pod, "uid": "uid-of-" + pod},
		},
	})
	if err != nil {
		c.w.t.Fatal(err)
	}
	jws, err := c.signer.Sign(payload)
	if err != nil {
		c.w.t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		c.w.t.Fatal(err)
	}
	return text
}

// project writes a pod's token where a program is told to find it, as a whole, as
// the kubelet does.
func (c *cluster) project(token, pod string) (file string) {
	c.w.t.Helper()
	file = filepath.Join(c.w.dir, "token-"+pod)
	if err := os.WriteFile(file+".new", []byte(token), 0o644); err != nil {
		c.w.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		c.w.t.Fatal(err)
	}
	return file
}

// Pods become members by what the cluster says of them, with no secret handed out,
// and are let in by it; a token of another namespace, of another cluster or for
// somebody else gets nothing. A member renews with the token that its pod has then.
func TestKubernetesEnrolment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, stranger := w.cluster(), w.cluster()
	authority := w.id("authority")
	w.start("relay", "relay", "", "listen: [\"tcp://"+w.addr("relay")+"\"]\nauthorities: ["+authority+"]\n"+
		"register: peer.id == \""+authority+"\" || peer.attr[\"k8s.serviceaccount\"] == \"orders\"\n"+
		"connect: target == \""+authority+"\" || peer.attr[\"k8s.namespace\"] == \"shop\"\n").wantReady()
	a := w.start("culvert authority", "authority", "", fmt.Sprintf("store: %s\nrelays: %s\ncredential_lifetime: 1m\n"+
		"kubernetes: {issuer: %q, audience: %s, ca_file: %s, namespaces: [shop, bank]}\n",
		filepath.Join(w.dir, "authority.db"), list([]string{w.hop("relay")}), c.url, tokenAudience, c.caFile)).wantReady()
	member := func(pod, token string) string {
		return fmt.Sprintf("%sauthority: {identifier: %s, routes: %s}\nkubernetes_token: %s\n",
			w.state(pod), authority, list([]string{w.hop("relay")}), c.project(token, pod))
	}
	w.start("outlet", "orders-0", "", "relays: "+list([]string{w.hop("relay")})+"\nservices:\n  - name: echo\n    target: tcp://"+serveTCP(t, echo)+
		"\n    allow: peer.attr[\"k8s.namespace\"] == \"shop\" && peer.attr[\"k8s.pod\"].startsWith(\"api-\")\n"+
		member("orders-0", c.token("shop", "orders", "orders-0", time.Hour))).wantReady()
	inlet := func(pod, token, more string) *node {
		return w.start("inlet", pod, "", more+"services:\n  - listen: tcp://"+w.at(pod, "echo")+"\n    service: echo\n    outlet: "+w.id("orders-0")+
			"\n    routes: "+list([]string{w.hop("relay")})+"\n"+member(pod, token))
	}
	api := inlet("api-0", c.token("shop", "api", "api-0", time.Hour), "").wantReady()
	conn := dial(t, w.at("api-0", "echo"))
	exchange(t, conn, "enrolled")

	outside := map[string]*node{}
	for pod, token := range map[string]string{
		"web-0":   c.token("shop", "web", "web-0", time.Hour),        // a member, but not one that may use the service
		"bank-0":  c.token("bank", "api", "api-0", time.Hour),        // a member, but not of the namespace
		"spy-0":   c.token("spies", "api", "api-0", time.Hour),       // of no namespace that may enrol
		"alien-0": stranger.token("shop", "api", "api-0", time.Hour), // of another cluster
		"late-0":  c.token("shop", "api", "api-1", -time.Hour),       // expired
	} {
		outside[pod] = inlet(pod, token, "connect_timeout: 3s\n")
	}
	var asking sync.WaitGroup
	for pod := range outside {
		addr := w.at(pod, "echo")
		asking.Go(func() {
			if err := tryEcho(addr, "let me in"); err == nil {
				t.Errorf("%s gets a stream", pod)
			}
		})
	}
	asking.Wait()
	for _, pod := range []string{"spy-0", "alien-0", "late-0"} {
		outside[pod].wantNotReady(patience, "token_refused")
	}
	if members := a.mustAt("authority", "list", "--json"); strings.Contains(members, w.id("spy-0")) || strings.Contains(members, w.id("alien-0")) {
		t.Errorf("those that were refused are members: %s", members)
	}
	for _, n := range w.nodes {
		if strings.Contains(n.log.String(), "eyJ") {
			t.Errorf("the log of %s has a token", n.name)
		}
	}

	if testing.Short() {
		return
	}
	before := api.metric("culvert_channel_credential_expires_timestamp_seconds")
	c.project(c.token("shop", "api", "api-0", time.Hour), "api-0")
	if !eventually(time.Minute, func() bool { return api.metric("culvert_channel_credential_expires_timestamp_seconds") > before }) {
		t.Error("the pod's credential was not renewed")
	}
	exchange(t, conn, "renewed")
}
