package obs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/netutil"
)

// Endpoints say where to serve what.
type Endpoints struct {
	Metrics string // host:port; "": nowhere
	Admin   string // host:port of a loopback, or unix:///path; "": nowhere

	// Names of the two settings for an error, such as "--metrics" or "metrics
	// in relay.yaml:7:10".
	MetricsWhere, AdminWhere string

	// Status returns what /status shows, as JSON, to one who asks with those
	// parameters; nil: null. An error is a parameter that cannot be, and is the answer.
	Status func(parameters url.Values) (any, error)
	// History returns what /status/history shows, as JSON; nil: there is none.
	History func() any

	// More are further handlers of the admin server, by pattern. They bound what
	// requests carry, and say who may ask: every user of this machine reaches a
	// loopback.
	More map[string]http.Handler
	// AdminTLS is how the admin server speaks TLS with those who begin with it;
	// nil: with nobody. Handlers see from Request.TLS whether it does.
	AdminTLS *tls.Config
}

// A Server holds the listeners of the endpoints, open since Listen. Either
// Serve or Close must be called.
type Server struct {
	parts []part
}

// A part is a listener and what serves it.
type part struct {
	name   string
	ln     net.Listener // as opened, for its address
	srv    *http.Server
	secure *tls.Config // nil: it speaks no TLS
}

// Listen opens the endpoints' listeners, so that an address that cannot be had
// is an error at the start. Serve then serves them.
func (o *Obs) Listen(ctx context.Context, e Endpoints) (*Server, error) {
	s := &Server{}
	if e.Metrics != "" {
		ln, err := listenTCP(ctx, e.Metrics)
		if err != nil {
			return nil, listenError("metrics", e.MetricsWhere, err)
		}
		s.parts = append(s.parts, part{name: "metrics", ln: ln, srv: o.server(o.metricsHandler())})
	}
	if e.Admin != "" {
		path, unix := strings.CutPrefix(e.Admin, "unix://")
		lns, err := listenAdmin(ctx, e.Admin, path, unix)
		if err != nil {
			return nil, errors.Join(listenError("admin", e.AdminWhere, err), s.Close())
		}
		for _, ln := range lns {
			s.parts = append(s.parts, part{"admin", ln, o.server(showSecured(o.adminHandler(&e, unix))), e.AdminTLS})
		}
	}
	return s, nil
}

// Serve opens the endpoints and serves them until ctx ends; see [Obs.Listen]
// and [Server.Serve].
func (o *Obs) Serve(ctx context.Context, e Endpoints) error {
	s, err := o.Listen(ctx, e)
	if err != nil {
		return err
	}
	return s.Serve(ctx)
}

func listenError(name, where string, err error) error {
	if where == "" {
		where = "--" + name
	}
	return fmt.Errorf("%w: %s address (%s): choose another, or stop the program that has this one", err, name, where)
}

func listenTCP(ctx context.Context, addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host == "" { // the caller checked this; listening wide by mistake is not worth trusting it
		return nil, fmt.Errorf("listen tcp %s: the address has no host", addr)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

// listenAdmin listens at a loopback or a socket only its owner can use.
func listenAdmin(ctx context.Context, addr, path string, unix bool) ([]net.Listener, error) {
	if !unix {
		return listenLoopback(ctx, addr)
	}
	ln, err := listenUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	return []net.Listener{ln}, nil
}

// listenLoopback listens at every address that the host has, at the same port:
// where one were left, another user of this machine could answer there in this
// process's name.
func listenLoopback(ctx context.Context, addr string) ([]net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host == "" {
		return nil, fmt.Errorf("listen tcp %s: the address has no host", addr)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("listen tcp %s: %w", addr, err)
	}
	slices.SortFunc(ips, func(a, b netip.Addr) int { return a.Unmap().Compare(b.Unmap()) }) // IPv4 first
	for _, ip := range ips {
		if !ip.Unmap().IsLoopback() {
			return nil, fmt.Errorf("listen tcp %s: %s is no loopback address", addr, ip)
		}
	}
	const attempts = 10
	for n := 1; ; n++ {
		lns, err := listenEach(ctx, ips, port)
		// A port that was free at one address may be taken at the next.
		if err == nil || port != "0" || n == attempts {
			return lns, err
		}
	}
}

// listenEach listens at all of the addresses that this machine has, or at none. Port
// 0 is one for all.
func listenEach(ctx context.Context, ips []netip.Addr, port string) (lns []net.Listener, err error) {
	for _, ip := range ips {
		ln, failed := listenTCP(ctx, net.JoinHostPort(ip.Unmap().String(), port))
		switch {
		case failed == nil:
			lns = append(lns, ln)
			_, port, _ = net.SplitHostPort(ln.Addr().String())
		case errors.Is(failed, syscall.EADDRNOTAVAIL) || errors.Is(failed, syscall.EAFNOSUPPORT):
			err = failed // nobody else can listen there either
		default:
			for _, ln := range lns {
				_ = ln.Close() // nothing has come by it
			}
			return nil, failed
		}
	}
	if len(lns) == 0 {
		return nil, err
	}
	return lns, nil
}

// listenUnix takes the place of a socket that a dead process left behind, of
// nothing else.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			_ = c.Close() // only to see whether somebody answers
			return nil, fmt.Errorf("listen unix %s: another process listens there", path)
		}
		if refused(err) {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("removing a socket that a dead process left: %w", err)
			}
		}
	}
	lc := net.ListenConfig{Control: private}
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	// Where private can do nothing the socket has been open, by the umask's
	// leave, for a moment.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("keeping others from the socket: %w", err), ln.Close())
	}
	return ln, nil
}

// server makes an HTTP server with bounds.
func (o *Obs) server(h http.Handler) *http.Server {
	errorLog, err := zap.NewStdLogAt(o.Log, zapcore.DebugLevel)
	if err != nil {
		errorLog = zap.NewStdLog(o.Log)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          errorLog,
		ConnContext:       withConn,
	}
}

// MetricsAddr returns where the metrics are served, nil if nowhere.
func (s *Server) MetricsAddr() net.Addr { return s.addr("metrics") }

// AdminAddr returns where the admin server listens, nil if nowhere.
func (s *Server) AdminAddr() net.Addr { return s.addr("admin") }

func (s *Server) addr(name string) net.Addr {
	for _, p := range s.parts {
		if p.name == name {
			return p.ln.Addr()
		}
	}
	return nil
}

// Serve serves until ctx ends, then lets requests under way end for a moment,
// and returns when all it started has ended: nil, or the first server's error,
// which ends the other too. Without endpoints it waits for ctx.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(s.parts))
	var wg sync.WaitGroup
	for i, p := range s.parts {
		wg.Go(func() {
			defer cancel()
			errs[i] = p.serve(ctx)
		})
	}
	<-ctx.Done()
	wg.Wait()
	return errors.Join(errs...)
}

// serve runs one server until ctx ends.
func (p part) serve(ctx context.Context) error {
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-done:
		}
		p.stop()
	}()
	ln := netutil.LimitListener(p.ln, maxConns)
	if p.secure != nil {
		ln = &secureListener{ln, p.secure}
	}
	err := p.srv.Serve(ln)
	close(done)
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the %s endpoint: %w", p.name, err)
}

// stop ends the server gently, and then not.
func (p part) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if p.srv.Shutdown(ctx) != nil {
		_ = p.srv.Close() // it is over either way
	}
}

// Close closes the listeners of a Server that is not served.
func (s *Server) Close() error {
	var errs []error
	for _, p := range s.parts {
		errs = append(errs, p.ln.Close())
	}
	return errors.Join(errs...)
}
