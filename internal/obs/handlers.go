package obs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/pkg/code"
)

// maxBody bounds what a request may carry, in bytes, where nothing reads it.
const maxBody = 4 << 10

// metricsHandler serves what may face a network.
func (o *Obs) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	o.handlePublic(mux)
	return harden(bounded(mux))
}

// adminHandler serves what is for this machine only.
func (o *Obs) adminHandler(e *Endpoints, unix bool) http.Handler {
	mux := http.NewServeMux()
	o.handlePublic(mux)
	answers := make(chan struct{}, maxAnswers)
	mux.HandleFunc("GET /status", few(answers, func(w http.ResponseWriter, r *http.Request) { o.status(w, r, e.Status) }))
	if e.History != nil {
		mux.HandleFunc("GET /status/history", few(answers, func(w http.ResponseWriter, _ *http.Request) {
			o.writeJSON(w, http.StatusOK, e.History())
		}))
	}
	all := http.NewServeMux()
	all.Handle("/", bounded(mux))
	for pattern, h := range e.More {
		all.Handle(pattern, h)
	}
	return harden(onlyLocal(all, unix))
}

// status answers with what of returns, or why it cannot.
func (o *Obs) status(w http.ResponseWriter, r *http.Request, of func(url.Values) (any, error)) {
	var v any
	if of != nil {
		parameters, err := url.ParseQuery(r.URL.RawQuery)
		if err == nil {
			v, err = of(parameters)
		}
		if err != nil {
			writeText(w, http.StatusBadRequest, oneLine(err.Error())+"\n")
			return
		}
	}
	o.writeJSON(w, http.StatusOK, v)
}

// maxAnswers is how many of the answers that are large there are at a time, being made or
// on their way to who asked, and answerWait how long another one waits for its turn.
const (
	maxAnswers = 4
	answerWait = time.Second
)

// few lets as many requests through at a time as there are places, and sends others
// away that have waited for a moment.
func few(places chan struct{}, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		late := time.NewTimer(answerWait)
		defer late.Stop()
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			next(w, r)
		case <-r.Context().Done(): // nobody waits any more
		case <-late.C:
			w.Header().Set("Retry-After", "1")
			writeText(w, http.StatusServiceUnavailable, fmt.Sprintf("%d others are being answered, which is as many as there may be at a time: ask again in a moment\n", cap(places)))
		}
	}
}

// bounded bounds what requests carry.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (o *Obs) handlePublic(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", o.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		ErrorLog:            zap.NewStdLog(o.Log),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 8,
	}))
}

// A check is how /readyz shows a State in JSON.
type check struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// readyz answers 200 if everything is ready, else 503 with the reasons; with
// ?service=NAME for that service alone, and 404 if there is none.
func (o *Obs) readyz(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	ready, states := o.Ready.Check()
	if service := r.URL.Query().Get("service"); service != "" {
		s, found := o.Ready.CheckOne(ServiceCheck(service))
		if !found {
			status, s.Err = http.StatusNotFound, errors.New("there is no such service here")
		}
		ready, states = s.Err == nil, []State{s}
	}
	if !ready && status == http.StatusOK {
		status = http.StatusServiceUnavailable
	}
	checks := make([]check, len(states))
	for i, s := range states {
		checks[i] = check{Name: s.Name, Ready: s.Err == nil}
		if s.Err != nil {
			checks[i].Reason = s.Err.Error()
		}
	}
	if wantsJSON(r) {
		o.writeJSON(w, status, struct {
			Ready  bool    `json:"ready"`
			Checks []check `json:"checks"`
		}{ready, checks})
		return
	}
	writeText(w, status, readyText(checks, ready))
}

// readyText names what is not ready first, since a probe's log shows the
// beginning.
func readyText(checks []check, ready bool) string {
	if ready {
		return "ready\n"
	}
	var b strings.Builder
	for _, c := range checks {
		if !c.Ready {
			fmt.Fprintf(&b, "not ready: %s: %s\n", oneLine(c.Name), oneLine(c.Reason))
		}
	}
	return b.String()
}

// oneLine keeps text from the outside from looking like a line of ours, and
// from doing anything to a terminal. Errors that are joined stand in one line.
func oneLine(s string) string { return code.Printable(strings.ReplaceAll(s, "\n", "; ")) }

func wantsJSON(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "application/json")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) //nolint:gosec // G705: plain text, which browsers are told not to take for anything else; the client may be gone
}

func (o *Obs) writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		o.Log.Error("encoding an answer", zap.Error(err))
		writeText(w, http.StatusInternalServerError, "internal error\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client is gone: nobody to tell
}

// harden tells browsers to do nothing with the answers but
// show them.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// onlyLocal refuses what a browser on this machine could be made to send by a
// page from elsewhere. Such a page reaches a loopback by a name of its own that
// it lets point there (DNS rebinding), so that Host is that name; or by a
// request to another origin, which the browser marks. The port in Host may be
// any, for the sake of port forwarding.
func onlyLocal(next http.Handler, unix bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !unix && !localHost(r.Host):
			writeText(w, http.StatusMisdirectedRequest, "the admin server answers to localhost and loopback addresses only\n")
		case !sameOrigin(r):
			writeText(w, http.StatusForbidden, "the admin server answers no requests of other sites\n")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// localHost reports whether a Host header names this machine and nothing else.
func localHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// sameOrigin reports whether no browser sent the request, or one that shows a
// page of this server or an address typed in.
func sameOrigin(r *http.Request) bool {
	if origins := r.Header.Values("Origin"); len(origins) > 0 {
		if len(origins) != 1 || r.Host == "" || !strings.EqualFold(origins[0], "http://"+r.Host) {
			return false
		}
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return false
		}
	}
	return true
}

// Times and sizes of the servers. A scrape or probe takes milliseconds.
const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 10 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 60 * time.Second
	maxHeader       = 16 << 10
	maxConns        = 128
	shutdownTimeout = 2 * time.Second
)
