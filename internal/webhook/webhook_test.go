package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/inject"
	"github.com/culvert-net/culvert/internal/obs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const serverName = "webhook.culvert.svc"

// A running is a server that answers on a loopback port.
type running struct {
	*Server
	dir  string
	log  *bytes.Buffer // read after stop
	o    *obs.Obs
	stop func() error
}

// start makes a certificate and serves with it until the test ends.
func start(t *testing.T) *running {
	t.Helper()
	return startWith(t, func(*Server) {})
}

// startWith is start with something done to the server before it runs.
func startWith(t *testing.T, prepare func(s *Server)) *running {
	t.Helper()
	r := &running{dir: t.TempDir(), log: &bytes.Buffer{}}
	if _, err := Issue(r.dir, Order{Names: []string{serverName}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	in, err := inject.New(inject.Defaults{
		Routes: []string{"tcp://relay:4000/" + strings.Repeat("b", 51) + "a"}, IdentitySecret: "inlet-identity",
		Outlets: map[string]string{"orders-db": strings.Repeat("c", 51) + "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.o, err = obs.New(obs.Config{Command: "webhook", LogOutput: r.log}); err != nil {
		t.Fatal(err)
	}
	r.Server, err = New(Config{
		Addr: "127.0.0.1:0", Certificate: filepath.Join(r.dir, ServerFile), Key: filepath.Join(r.dir, ServerKeyFile),
		Injector: in, DrainTimeout: time.Minute, Linger: time.Millisecond,
	}, r.o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	prepare(r.Server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	ended := false
	r.stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// client trusts the authority in the folder, as an API server with its caBundle does.
func (r *running) client(t *testing.T) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(r.dir, AuthorityFile))
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("no authority: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: serverName}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// ask sends a review of an object, and returns what is answered.
func (r *running) ask(t *testing.T, c *http.Client, path, object string) *response {
	t.Helper()
	review := fmt.Sprintf(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1",
	  "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop", "operation": "CREATE", "dryRun": true, "object": %s}}`, object)
	status, text := r.post(t, c, path, "application/json", review)
	var out struct {
		APIVersion, Kind string
		Response         *response
	}
	if err := json.Unmarshal(text, &out); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v: %s", status, err, text)
	}
	if out.APIVersion != "admission.k8s.io/v1" || out.Kind != "AdmissionReview" || out.Response == nil || out.Response.UID != "u-1" {
		t.Fatalf("no answer to the request u-1: %s", text)
	}
	return out.Response
}

// counted returns what a counter has for a result.
func (r *running) counted(t *testing.T, name, result string) float64 {
	t.Helper()
	families, err := r.o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func (r *running) post(t *testing.T, c *http.Client, path, kind, body string) (int, []byte) {
	t.Helper()
	resp, err := c.Post("https://"+r.Addr().String()+path, kind, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}

// podWith is a pod with the label that asks, and an annotation.
func podWith(annotation string) string {
	return `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "labels": {"culvert.dev/inject": "enabled"}, "annotations": {` + annotation + `}},
	  "spec": {"containers": [{"name": "app", "image": "app"}]}}`
}

const inletPod = `"culvert.dev/inlet": "5432=orders-db"`

func TestInject(t *testing.T) {
	r := start(t)
	c := r.client(t)
	got := r.ask(t, c, "/inject", podWith(inletPod))
	if !got.Allowed || got.PatchType != "JSONPatch" {
		t.Fatalf("got %+v, want a patch", got)
	}
	var patch []struct{ Op, Path string }
	if err := json.Unmarshal(got.Patch, &patch); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, op := range patch {
		found = found || op.Op == "add" && op.Path == "/spec/initContainers"
	}
	if !found || !bytes.Contains(got.Patch, []byte(`"culvert-inlet"`)) {
		t.Errorf("no sidecar is added: %s", got.Patch)
	}
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "fsGroup") {
		t.Errorf("warnings: %q", got.Warnings)
	}
	if n := r.counted(t, "culvert_webhook_reviews_total", resultInjected); n != 1 {
		t.Errorf("%v reviews are counted as injected, want 1", n)
	}
}

// What is refused is refused with the annotation's name.
func TestRefuse(t *testing.T) {
	r := start(t)
	c := r.client(t)
	template := func(annotation string) string {
		return `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": {"template": ` + podWith(annotation) + `}}`
	}
	for _, tt := range []struct {
		path, object string
		want         string // in the message; "": it is allowed, as it is
	}{
		{"/inject", podWith(`"culvert.dev/inlet": "5432"`), `culvert.dev/inlet: "5432": write PORT=SERVICE`},
		{"/inject", podWith(``), "culvert.dev/inlet"},
		{"/inject", strings.Replace(podWith(``), "enabled", "disabled", 1), ""},
		{"/inject", `{"apiVersion": "v1", "kind": "Secret"}`, ""},
		{"/check", template(`"culvert.dev/inlet": "5432"`), `culvert.dev/inlet: "5432": write PORT=SERVICE`},
		{"/check", template(``), "culvert.dev/inlet"},
		{"/check", template(inletPod), ""},
		{"/check", strings.Replace(template(`"culvert.dev/inlet": "5432"`), "enabled", "disabled", 1), ""},
	} {
		got := r.ask(t, c, tt.path, tt.object)
		switch {
		case len(got.Patch) != 0:
			t.Errorf("%s %s: a patch: %s", tt.path, tt.object, got.Patch)
		case tt.want == "" && !got.Allowed:
			t.Errorf("%s %s: refused: %+v", tt.path, tt.object, got.Status)
		case tt.want != "" && (got.Allowed || got.Status == nil || got.Status.Code != 400 || !strings.Contains(got.Status.Message, tt.want)):
			t.Errorf("%s %s: got %+v, want it refused for %s", tt.path, tt.object, got, tt.want)
		}
	}
}

// What is no review is told so, and what is too large is not read to its end.
func TestNoReview(t *testing.T) {
	r := start(t)
	c := r.client(t)
	for _, tt := range []struct {
		path, kind, body string
		want             int
	}{
		{"/inject", "text/plain", "{}", http.StatusUnsupportedMediaType},
		{"/inject", "application/json", "{", http.StatusBadRequest},
		{"/inject", "application/json", "{}", http.StatusBadRequest},
		{"/inject", "application/json", `{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "a", "object": {}}}`, http.StatusBadRequest},
		{"/inject", "application/json", `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "a"}}`, http.StatusBadRequest},
		{"/inject", "application/json", `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "a", "object": null}}`, http.StatusBadRequest},
		{"/inject", "application/json", strings.Repeat(" ", maxReview+1), http.StatusRequestEntityTooLarge},
		{"/elsewhere", "application/json", "{}", http.StatusNotFound},
	} {
		if status, text := r.post(t, c, tt.path, tt.kind, tt.body); status != tt.want {
			t.Errorf("%s %.80s: got %d %s, want %d", tt.path, tt.body, status, text, tt.want)
		}
	}
}

// Nothing below TLS 1.3 is spoken.
func TestOldTLS(t *testing.T) {
	r := start(t)
	c := r.client(t)
	c.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	resp, err := c.Get("https://" + r.Addr().String())
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v, want the version refused", err)
	}
}

// A new certificate is served without a restart, one that cannot be taken changes
// nothing, and while a new authority is brought to the API servers either is trusted.
func TestRenewed(t *testing.T) {
	r := start(t)
	before := r.client(t)
	serial := func(c *http.Client) string {
		t.Helper()
		c.CloseIdleConnections()
		resp, err := c.Get("https://" + r.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := serial(before)
	if _, err := Issue(r.dir, Order{Names: []string{serverName}, Renew: true}, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.Reload()
	second := serial(before)
	if second == first {
		t.Error("the old certificate is still served")
	}
	if _, err := Issue(r.dir, Order{Names: []string{serverName}, NewAuthority: true}, time.Now()); err != nil {
		t.Fatal(err)
	}
	after := r.client(t)
	if got := serial(after); got != second {
		t.Error("who trusts the new authority does not get the old certificate any more")
	}
	r.Reload()
	third := serial(after)
	if third == second {
		t.Error("the certificate of the new authority is not served")
	}
	if err := os.WriteFile(filepath.Join(r.dir, ServerFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Reload()
	if got := serial(after); got != third {
		t.Error("a file that is no certificate has changed what is served")
	}
	const reloads = "culvert_webhook_certificate_reloads_total"
	if ok, failed := r.counted(t, reloads, "ok"), r.counted(t, reloads, "failed"); ok != 2 || failed != 1 {
		t.Errorf("reloads: %v ok and %v failed, want 2 and 1", ok, failed)
	}
}

// Those who send their reviews byte by byte keep no others from an answer, large ones and
// more than there is place for included.
func TestSlow(t *testing.T) {
	r := startWith(t, func(s *Server) { s.bodyTimeout = time.Hour })
	c := r.client(t)
	const slow = maxStreams - 2
	var writers []*io.PipeWriter
	ended := make(chan struct{}, slow)
	for i := range slow {
		body, write := io.Pipe()
		writers = append(writers, write)
		if i%3 != 0 { // more than maxReading of them
			go write.Write(make([]byte, 2*smallReview)) // returns when it was read, or the pipe is closed
		}
		go func() {
			resp, err := c.Post("https://"+r.Addr().String()+"/inject", "application/json", body)
			if err == nil {
				resp.Body.Close()
			}
			ended <- struct{}{}
		}()
	}
	for len(r.gate.reading) < maxReading || len(r.gate.waiting) < slow {
		time.Sleep(time.Millisecond) // no event says that all have begun
	}
	if got := r.ask(t, r.client(t), "/inject", podWith(inletPod)); !got.Allowed {
		t.Errorf("got %+v", got)
	}
	for _, w := range writers {
		w.Close()
	}
	for range writers {
		<-ended
	}
}

// A certificate that API servers do not take any more makes the process not ready.
func TestExpired(t *testing.T) {
	r := start(t)
	if ready, states := r.o.Ready.Check(); !ready {
		t.Fatalf("not ready: %+v", states)
	}
	if _, err := Issue(r.dir, Order{Names: []string{serverName}, NewAuthority: true}, time.Now().Add(-2*serverLife)); err != nil {
		t.Fatal(err)
	}
	r.Reload()
	if s, _ := r.o.Ready.CheckOne("certificate"); s.Err == nil || !strings.Contains(s.Err.Error(), "expired") {
		t.Errorf("ready with an expired certificate: %+v", s)
	}
}

// A certificate whose end comes near while the process runs is told of, once a day.
func TestExpiresSoon(t *testing.T) {
	r := start(t)
	end := time.Now().Add(serverLife)
	for _, before := range []time.Duration{20 * 24 * time.Hour, 13 * 24 * time.Hour, 13*24*time.Hour - time.Minute, 12 * 24 * time.Hour, -time.Hour} {
		r.cert.remind(end.Add(-before))
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(r.log.String(), "expires soon"); n != 3 {
		t.Errorf("told %d times, want 3:\n%s", n, r.log)
	}
}

// Files that cannot be taken are seen in the metrics until they can be.
func TestFileInUse(t *testing.T) {
	r := start(t)
	inUse := func() float64 {
		t.Helper()
		families, err := r.o.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "culvert_webhook_certificate_file_in_use" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("no such metric")
		return 0
	}
	if got := inUse(); got != 1 {
		t.Errorf("at the start: %v, want 1", got)
	}
	file := filepath.Join(r.dir, ServerFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text string
		want float64
	}{{"nonsense", 0}, {string(text), 1}} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.Reload()
		if got := inUse(); got != tt.want {
			t.Errorf("with %.20q: %v, want %v", tt.text, got, tt.want)
		}
	}
}

// A review that is under way when the process is to end is answered.
func TestStop(t *testing.T) {
	r := start(t)
	c := r.client(t)
	body, write := io.Pipe()
	answered := make(chan error, 1)
	go func() {
		resp, err := c.Post("https://"+r.Addr().String()+"/inject", "application/json", body)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		answered <- err
	}()
	head, rest := `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "a", "object": `, podWith(inletPod)+"}}"
	if _, err := io.WriteString(write, head); err != nil { // it has arrived when somebody reads
		t.Fatal(err)
	}
	for len(r.gate.waiting) == 0 {
		time.Sleep(time.Millisecond) // no event says that the request has arrived
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	for !r.stopping.Load() {
		time.Sleep(time.Millisecond)
	}
	if ready, _ := r.o.Ready.Check(); ready {
		t.Error("ready while stopping")
	}
	if _, err := io.WriteString(write, rest); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if err := <-answered; err != nil {
		t.Errorf("the review under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
}

// A review is bytes of whoever reaches the port.
func FuzzReview(f *testing.F) {
	f.Add([]byte(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "a", "object": ` + podWith(inletPod) + `}}`))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte("{"))))
	injector, err := inject.New(inject.Defaults{IdentitySecret: "a", Routes: []string{"tcp://relay:4000/" + strings.Repeat("b", 51) + "a"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := decodeReview(body)
		if err != nil {
			return
		}
		object, err := decodeObject(in.Object)
		if err != nil {
			return
		}
		s := &Server{cfg: Config{Injector: injector}}
		s.injectPod(object)
		s.checkTemplate(object)
	})
}
