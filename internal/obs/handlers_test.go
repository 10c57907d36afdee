package obs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Pages reach a loopback by DNS rebinding, with a Host of their own, or across
// origins, which browsers mark. Both are refused; programs of this machine, and
// ports that are forwarded, are not.
func TestAdminAnswersLocalRequestsOnly(t *testing.T) {
	const (
		misdirected = http.StatusMisdirectedRequest
		forbidden   = http.StatusForbidden
	)
	tests := []struct {
		host    string
		headers []string
		want    int // over TCP
		unix    int // over a Unix socket, which pages cannot reach
	}{
		{"localhost:9101", nil, 200, 200},
		{"localhost", nil, 200, 200},
		{"LocalHost:1", nil, 200, 200},
		{"127.0.0.1:9101", nil, 200, 200},
		{"127.0.0.1", nil, 200, 200},
		{"127.8.7.6:9101", nil, 200, 200},
		{"[::1]:9101", nil, 200, 200},
		{"[::1]", nil, 200, 200},
		{"[::ffff:127.0.0.1]:1", nil, 200, 200},

		{"", nil, misdirected, 200},
		{"evil.example", nil, misdirected, 200},
		{"evil.example:9101", nil, misdirected, 200},
		{"localhost.evil.example:9101", nil, misdirected, 200},
		{"127.0.0.1.evil.example:9101", nil, misdirected, 200},
		{"localhost@evil.example", nil, misdirected, 200},
		{"evil.example:80:127.0.0.1", nil, misdirected, 200},
		{"10.0.0.1:9101", nil, misdirected, 200},
		{"0.0.0.0:9101", nil, misdirected, 200},
		{"[::]:9101", nil, misdirected, 200},
		{"169.254.169.254", nil, misdirected, 200},
		{"[::ffff:10.0.0.1]:1", nil, misdirected, 200},

		{"localhost:9101", []string{"Origin", "http://localhost:9101"}, 200, 200},
		{"127.0.0.1:9101", []string{"Origin", "http://127.0.0.1:9101"}, 200, 200},
		{"localhost:9101", []string{"Sec-Fetch-Site", "none"}, 200, 200},
		{"localhost:9101", []string{"Sec-Fetch-Site", "same-origin"}, 200, 200},
		{"localhost:9101", []string{"Origin", "http://evil.example"}, forbidden, forbidden},
		{"localhost:9101", []string{"Origin", "http://localhost:8080"}, forbidden, forbidden},
		{"localhost:9101", []string{"Origin", "http://127.0.0.1:9101"}, forbidden, forbidden},
		{"localhost:9101", []string{"Origin", "https://localhost:9101"}, forbidden, forbidden},
		{"localhost:9101", []string{"Origin", "null"}, forbidden, forbidden},
		{"localhost:9101", []string{"Origin", ""}, forbidden, forbidden},
		{"localhost:9101", []string{"Origin", "http://localhost:9101", "Origin", "http://evil.example"}, forbidden, forbidden},
		{"localhost:9101", []string{"Sec-Fetch-Site", "cross-site"}, forbidden, forbidden},
		{"localhost:9101", []string{"Sec-Fetch-Site", "same-site"}, forbidden, forbidden},
		{"localhost:9101", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Site", "cross-site"}, forbidden, forbidden},
		{"evil.example", []string{"Origin", "http://evil.example"}, misdirected, 200}, // the rebound page is its own origin
	}
	asked := 0
	handlers := map[bool]http.Handler{}
	o := newTestObs(t)
	for _, unix := range []bool{false, true} {
		handlers[unix] = o.adminHandler(&Endpoints{Status: shows(func() any { asked++; return "secret" })}, unix)
	}
	for _, tt := range tests {
		for unix, h := range handlers {
			for _, path := range []string{"/status", "/healthz", "/metrics"} {
				req := request(t, http.MethodGet, "http://x"+path, append(tt.headers, "Host", tt.host)...)
				req.Host = tt.host
				w := httptest.NewRecorder()
				asked = 0
				h.ServeHTTP(w, req)
				want := tt.want
				if unix {
					want = tt.unix
				}
				if w.Code != want {
					t.Errorf("unix %v: GET %s from host %q with %q: %d, want %d", unix, path, tt.host, tt.headers, w.Code, want)
				}
				if want != 200 && (asked > 0 || strings.Contains(w.Body.String(), "secret")) {
					t.Errorf("unix %v: GET %s from host %q with %q: refused, and yet the status was read: %q", unix, path, tt.host, tt.headers, w.Body)
				}
			}
		}
	}
}

// Of an absolute request line and a Host header, the line counts, as it does
// for whoever routes by it.
func TestAdminTakesTheHostOfTheRequestLine(t *testing.T) {
	s, _ := serve(t, newTestObs(t), Endpoints{Admin: "127.0.0.1:0"})
	got := exchange(t, s.AdminAddr(), "GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 421 ") {
		t.Errorf("got %q, want 421", got)
	}
}

// What may face a network tells no more than it must, and neither server does
// anything for other methods.
func TestPathsOfTheServers(t *testing.T) {
	o := newTestObs(t)
	o.Ready.Set("db", nil)
	metrics, admin := o.metricsHandler(), o.adminHandler(&Endpoints{Status: shows(func() any { return 1 })}, false)
	for _, tt := range []struct {
		method, path   string
		metrics, admin int
	}{
		{"GET", "/healthz", 200, 200},
		{"HEAD", "/healthz", 200, 200},
		{"GET", "/readyz", 200, 200},
		{"GET", "/metrics", 200, 200},
		{"GET", "/status", 404, 200},
		{"GET", "/status/", 404, 404},
		{"GET", "/", 404, 404},
		{"GET", "/debug/pprof/", 404, 404},
		{"GET", "/debug/vars", 404, 404},
		{"GET", "/console", 404, 404},
		{"POST", "/healthz", 405, 405},
		{"POST", "/metrics", 405, 405},
		{"DELETE", "/readyz", 405, 405},
		{"POST", "/status", 404, 405},
		{"PUT", "/status", 404, 405},
	} {
		for name, h := range map[string]http.Handler{"metrics": metrics, "admin": admin} {
			want := map[string]int{"metrics": tt.metrics, "admin": tt.admin}[name]
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request(t, tt.method, "http://localhost"+tt.path))
			if w.Code != want {
				t.Errorf("%s: %s %s: %d, want %d", name, tt.method, tt.path, w.Code, want)
			}
			for key, value := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
				"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cross-Origin-Resource-Policy": "same-origin",
			} {
				if got := w.Header().Get(key); got != value {
					t.Errorf("%s: %s %s: %s is %q, want %q", name, tt.method, tt.path, key, got, value)
				}
			}
			for key := range maps.Keys(w.Header()) {
				if strings.HasPrefix(key, "Access-Control-") {
					t.Errorf("%s: %s %s: answers with %s, which lets other sites read it", name, tt.method, tt.path, key)
				}
			}
		}
	}
}

// The metrics server is asked by the address that a cluster or a forwarded port
// gives it.
func TestMetricsAnswersAnyHost(t *testing.T) {
	w := httptest.NewRecorder()
	newTestObs(t).metricsHandler().ServeHTTP(w, request(t, "GET", "http://10.1.2.3:9100/healthz", "Host", "pod.cluster.example:9100"))
	if w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("got %d %q, want 200 ok", w.Code, w.Body)
	}
}

func TestReadyz(t *testing.T) {
	type result struct {
		status int
		text   string
		json   string
	}
	tests := []struct {
		name  string
		set   func(r *Ready)
		query string
		want  result
	}{
		{
			"starting", func(*Ready) {}, "",
			result{503, "not ready: process: starting\n", `{"ready":false,"checks":[{"name":"process","ready":false,"reason":"starting"}]}`},
		},
		{
			"ready", func(r *Ready) { r.Set("b", nil); r.Set("a", nil) }, "",
			result{200, "ready\n", `{"ready":true,"checks":[{"name":"a","ready":true},{"name":"b","ready":true}]}`},
		},
		{
			"one of three", func(r *Ready) { r.Set("c", errors.New("why c")); r.Set("b", nil); r.Set("a", errors.New("why a")) }, "",
			result{503, "not ready: a: why a\nnot ready: c: why c\n", `{"ready":false,"checks":[{"name":"a","ready":false,"reason":"why a"},{"name":"b","ready":true},{"name":"c","ready":false,"reason":"why c"}]}`},
		},
		{
			"its service alone", func(r *Ready) { r.Set(ServiceCheck("db"), nil); r.Set("other", errors.New("why")) }, "?service=db",
			result{200, "ready\n", `{"ready":true,"checks":[{"name":"service/db","ready":true}]}`},
		},
		{
			"its service is not", func(r *Ready) { r.Set(ServiceCheck("db"), errors.New("no route")); r.Set("other", nil) }, "?service=db",
			result{503, "not ready: service/db: no route\n", `{"ready":false,"checks":[{"name":"service/db","ready":false,"reason":"no route"}]}`},
		},
		{
			"no such service", func(r *Ready) { r.Set("other", nil) }, "?service=other",
			result{404, "not ready: service/other: there is no such service here\n", `{"ready":false,"checks":[{"name":"service/other","ready":false,"reason":"there is no such service here"}]}`},
		},
		{
			"text of a stranger", func(r *Ready) { r.Set("db", fmt.Errorf("%w\nready\x1b[2J\u202e\u009b", errors.New("first"))) }, "",
			result{503, "not ready: db: first; ready?[2J??\n", `{"ready":false,"checks":[{"name":"db","ready":false,"reason":"first\nready\u001b[2J` + "\u202e\u009b" + `"}]}`},
		},
		{
			"a name of a stranger", func(r *Ready) { r.Set("db", nil) }, "?service=" + "%0aready%0a",
			result{404, "not ready: service/; ready; : there is no such service here\n", `{"ready":false,"checks":[{"name":"service/\nready\n","ready":false,"reason":"there is no such service here"}]}`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newTestObs(t)
			tt.set(o.Ready)
			for accept, want := range map[string]string{"": tt.want.text, "application/json": tt.want.json} {
				w := httptest.NewRecorder()
				o.metricsHandler().ServeHTTP(w, request(t, "GET", "http://x/readyz"+tt.query, "Accept", accept))
				got := w.Body.String()
				if accept != "" {
					got = compact(t, got)
					want = compact(t, want)
				}
				if w.Code != tt.want.status || got != want {
					t.Errorf("Accept %q: got %d %q, want %d %q", accept, w.Code, got, tt.want.status, want)
				}
			}
		})
	}
}

// compact returns JSON without its white space.
func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStatus(t *testing.T) {
	o := newTestObs(t)
	for _, tt := range []struct {
		status func(url.Values) (any, error)
		query  string
		code   int
		want   string
	}{
		{nil, "", 200, "null\n"},
		{shows(func() any { return map[string]int{"streams": 3} }), "", 200, "{\n  \"streams\": 3\n}\n"},
		{shows(func() any { return make(chan int) }), "", 500, "internal error\n"}, // cannot be JSON
		{func(q url.Values) (any, error) { return q.Get("streams"), nil }, "?streams=5", 200, "\"5\"\n"},
		{func(url.Values) (any, error) { return nil, errors.New("want\na number") }, "?streams=x", 400, "want; a number\n"},
		{shows(func() any { return 1 }), "?streams=%zz", 400, "invalid URL escape \"%zz\"\n"},
	} {
		w := httptest.NewRecorder()
		o.adminHandler(&Endpoints{Status: tt.status}, false).ServeHTTP(w, request(t, "GET", "http://localhost/status"+tt.query))
		if w.Code != tt.code || w.Body.String() != tt.want {
			t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.code, tt.want)
		}
	}
}

// shows returns a status that any parameters will do for.
func shows(status func() any) func(url.Values) (any, error) {
	return func(url.Values) (any, error) { return status(), nil }
}

// The history stands behind the same checks as the status, where there is one.
func TestHistory(t *testing.T) {
	o := newTestObs(t)
	with := o.adminHandler(&Endpoints{History: func() any { return []int{1, 2} }}, false)
	for _, tt := range []struct {
		h    http.Handler
		host string
		code int
	}{
		{with, "localhost", 200},
		{with, "evil.example", http.StatusMisdirectedRequest},
		{o.adminHandler(&Endpoints{}, false), "localhost", 404},
		{o.metricsHandler(), "localhost", 404},
	} {
		w := httptest.NewRecorder()
		tt.h.ServeHTTP(w, request(t, "GET", "http://"+tt.host+"/status/history"))
		if w.Code != tt.code || tt.code == 200 && w.Body.String() != "[\n  1,\n  2\n]\n" {
			t.Errorf("%s: %d %q, want %d", tt.host, w.Code, w.Body, tt.code)
		}
	}
}

// A status that panics costs its request, not the process.
func TestStatusPanics(t *testing.T) {
	s, _ := serve(t, newTestObs(t), Endpoints{Admin: "127.0.0.1:0", Status: shows(func() any { panic("broken") })})
	got := exchange(t, s.AdminAddr(), "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if got != "" {
		t.Errorf("got %q, want nothing", got)
	}
	if a := get(t, s.AdminAddr(), "/healthz"); a.status != 200 {
		t.Errorf("afterwards: got %d, want 200", a.status)
	}
}

func TestMetricsPage(t *testing.T) {
	o := newTestObs(t)
	page := func() string {
		w := httptest.NewRecorder()
		o.metricsHandler().ServeHTTP(w, request(t, "GET", "http://x/metrics"))
		if w.Code != 200 {
			t.Fatalf("got %d", w.Code)
		}
		b, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := page(); !strings.Contains(got, "\nculvert_inlet_ready 0\n") || !strings.Contains(got, "\ngo_goroutines ") {
		t.Errorf("no culvert_inlet_ready 0 or no go_goroutines in:\n%s", got)
	}
	o.Ready.Set("db", nil)
	if got := page(); !strings.Contains(got, "\nculvert_inlet_ready 1\n") {
		t.Errorf("no culvert_inlet_ready 1 in:\n%s", got)
	}
}

// Further handlers stand behind the same checks, and bound bodies themselves.
func TestMoreHandlers(t *testing.T) {
	o := newTestObs(t)
	read := 0
	more := map[string]http.Handler{"/authority/": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		read = len(b)
	})}
	h := o.adminHandler(&Endpoints{More: more}, false)
	for _, tt := range []struct {
		host, origin string
		want         int
	}{{"localhost", "", 200}, {"evil.example", "", http.StatusMisdirectedRequest}, {"localhost", "http://evil.example", http.StatusForbidden}} {
		read = -1
		req := request(t, "POST", "http://"+tt.host+"/authority/x")
		if tt.origin != "" {
			req.Header.Set("Origin", tt.origin)
		}
		req.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", 2*maxBody)))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != tt.want || (read >= 0) != (tt.want == 200) || tt.want == 200 && read != 2*maxBody {
			t.Errorf("%+v: %d, and %d bytes reached the handler", tt, w.Code, read)
		}
	}
}
