package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
)

// answers starts a server that answers in one way, and returns its address.
func answers(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// probeWith runs a probe with arguments and returns what it prints and its error.
func probeWith(t *testing.T, service string, args ...string) (string, error) {
	t.Helper()
	flags := config.Flags(config.KindInlet)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := probe(t.Context(), config.KindInlet, config.Source{Flags: flags}, service, &out)
	return out.String(), err
}

func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		want   string // the error; "": ready. ADDR stands for the address
	}{
		{"ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ready\n") }, ""},
		{"not ready", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			fmt.Fprint(w, "not ready: service/a: no route\n")
		}, "not ready: service/a: no route"},
		{"two reasons", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			fmt.Fprint(w, "not ready: a: why\nnot ready: b: why\nnot ready: c: why\n")
		}, "not ready: a: why (and 2 more)"},
		{"a page of somebody's", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome") }, "ADDR answered 200: is that the inlet?"},
		{"a page that says ready", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); fmt.Fprint(w, "ready\n") }, "ADDR answered 404: is that the inlet?"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" {
				fmt.Fprint(w, "ready\n")
				return
			}
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}, "ADDR answered 302: is that the inlet?"},
		{"without an end", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("ready\n", 1000)); err != nil {
					return
				}
			}
		}, "ADDR answered 200: is that the inlet?"},
		{"not HTTP", func(w http.ResponseWriter, _ *http.Request) {
			nc, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprint(nc, "* OK IMAP4 ready\r\n")
			nc.Close()
		}, "is the inlet running with this address for metrics or admin?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := answers(t, tt.handle)
			out, err := probeWith(t, "", "--metrics", addr)
			if tt.want == "" {
				if err != nil || out != "ready\n" {
					t.Errorf("got %q, %v; want ready", out, err)
				}
				return
			}
			if err == nil || !strings.HasSuffix(err.Error(), strings.ReplaceAll(tt.want, "ADDR", addr)) || strings.Contains(err.Error(), "\n") || out != "" {
				t.Errorf("got %q, %v; want one line that ends with %q", out, err, tt.want)
			}
		})
	}
}

// The service's name is asked for as it is, by a name of this machine.
func TestProbeAsksForTheService(t *testing.T) {
	var got string
	addr := answers(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.Host + " " + r.URL.Path + " " + r.URL.Query().Get("service")
		fmt.Fprint(w, "ready\n")
	})
	for _, service := range []string{"", "orders-db", "a&b=c d/%"} {
		_, err := probeWith(t, service, "--admin", addr)
		if want := "GET localhost /readyz " + service; err != nil || got != want {
			t.Errorf("asked %q, %v; want %q", got, err, want)
		}
	}
}

// A process that does not answer fails its probe before the prober loses its
// patience.
func TestProbeEndsInTime(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // the kernel accepts, nobody answers
	watch := testenv.Start(t)
	_, err = probeWith(t, "", "--metrics", ln.Addr().String())
	if took := watch.Took(); err == nil || took > probeTimeout+2*time.Second {
		t.Errorf("after %v: %v, want an error after %v", took, err, probeTimeout)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ask(ctx, "tcp", ln.Addr().String(), ""); err == nil {
		t.Error("an ended context does not end the question")
	}
}

func TestProbeAsksAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if len(path) > 100 {
		t.Skip("the temporary folder's name is too long for a socket")
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ready\n") })}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	out, err := probeWith(t, "", "--admin", "unix://"+path)
	if err != nil || out != "ready\n" {
		t.Errorf("got %q, %v; want ready", out, err)
	}
	s.Close()
	<-done
}

func TestWhereToAsk(t *testing.T) {
	address := func(host string, port uint16) config.Address { return config.Address{Host: host, Port: port} }
	for _, tt := range []struct {
		metrics config.Address
		admin   string
		want    string // network and address, or a part of the error
	}{
		{address("127.0.0.1", 9100), "", "tcp 127.0.0.1:9100"},
		{address("0.0.0.0", 9100), "", "tcp 127.0.0.1:9100"},
		{address("::", 9100), "", "tcp [::1]:9100"},
		{address("10.1.2.3", 9100), "", "tcp 10.1.2.3:9100"},
		{address("metrics.example", 9100), "127.0.0.1:9101", "tcp metrics.example:9100"},
		{config.Address{}, "127.0.0.1:9101", "tcp 127.0.0.1:9101"},
		{config.Address{}, "unix:///run/a.sock", "unix /run/a.sock"},
		{config.Address{}, "unix:///run/a:0", "unix /run/a:0"},
		{address("127.0.0.1", 0), "unix:///run/a.sock", "unix /run/a.sock"},
		{address("127.0.0.1", 0), "localhost:9101", "tcp localhost:9101"},
		{address("127.0.0.1", 0), "", "has port 0"},
		{config.Address{}, "127.0.0.1:0", "has port 0"},
		{address("127.0.0.1", 0), "127.0.0.1:0", "has port 0"},
		{config.Address{}, "", "there is no address to ask at"},
	} {
		network, addr, err := whereToAsk(tt.metrics, tt.admin)
		got := network + " " + addr
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != tt.want || err != nil && !strings.Contains(got, tt.want) {
			t.Errorf("metrics %v, admin %q: %q, want %q", tt.metrics, tt.admin, got, tt.want)
		}
	}
}

func TestFirstLine(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "one": "one", "one\n": "one", "one\ntwo\n": "one (and 1 more)", "one\n\n": "one",
		fmt.Sprint("one\n", "two\n", "three"): "one (and 2 more)",
	} {
		if got := firstLine(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
