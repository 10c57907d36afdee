// Package webhook owns the mutating admission webhook of Kubernetes that gives pods
// their sidecars: its HTTPS server, the AdmissionReviews (admission.k8s.io/v1) that it
// answers, its certificate, which is read again when it changes, and the making of
// one with a certificate authority of its own.
//
// What is done to a pod is internal/inject's. It asks no API server, and needs no
// permission in the cluster.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"

	"github.com/culvert-net/culvert/internal/inject"
	"github.com/culvert-net/culvert/internal/obs"
)

// Bounds of the server. An API server waits for 10 s at most (timeoutSeconds), and
// keeps a few connections for good.
const (
	maxReview     = inject.MaxObject // bytes of one review
	maxConns      = 256
	maxReading    = 32 // reviews that are read at once
	maxDeciding   = 8  // and decoded: one of 3 MiB takes some 30
	bodyTimeout   = 5 * time.Second
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 15 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10

	// Lines about reviews: so many at once, and so many a second for good. Whoever
	// reaches the port can have them written.
	reviewLines          = 100
	reviewLinesPerSecond = 10
)

// defaultLinger is how long a server that is to end still answers: so long may API
// servers take to learn that it is gone.
const defaultLinger = 5 * time.Second

// A Config says what a [Server] serves.
type Config struct {
	Addr         string // "host:port"
	Certificate  string // PEM file of the certificate, and of those that lead to its authority
	Key          string // PEM file of its private key
	Injector     *inject.Injector
	DrainTimeout time.Duration // for reviews under way at the end, after Linger
	Linger       time.Duration // how long it still answers when it is to end; 0: 5 s
}

// A Server answers reviews.
type Server struct {
	cfg      Config
	obs      *obs.Obs
	log      *zap.Logger
	reviews  *reviewMetrics
	cert     *certificate
	reading  chan struct{}
	deciding chan struct{}
	lines    *rate.Limiter
	stopping atomic.Bool
	ln       net.Listener // nil before Listen
}

// New reads the certificate, and registers metrics and readiness. It starts nothing.
func New(cfg Config, o *obs.Obs) (*Server, error) {
	if cfg.Linger == 0 {
		cfg.Linger = defaultLinger
	}
	c, err := newCertificate(cfg.Certificate, cfg.Key, o)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, obs: o, log: o.Log, cert: c, reviews: newReviewMetrics(o.Registry),
		reading: make(chan struct{}, maxReading), deciding: make(chan struct{}, maxDeciding), lines: rate.NewLimiter(reviewLinesPerSecond, reviewLines),
	}
	o.Ready.SetFunc("certificate", func() error { return c.valid(time.Now()) })
	o.Ready.SetFunc("webhook", func() error {
		if s.stopping.Load() {
			return errors.New("this process is stopping")
		}
		return nil
	})
	return s, nil
}

// Reload reads the certificate now, and not only in a moment.
func (s *Server) Reload() { s.cert.reload(true) }

// Listen opens the listener, so that its address is known before Run.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return err
	}
	s.ln = ln
	return nil
}

// Addr returns where the server listens, once Listen was called.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close closes the listener of a Server that is not run.
func (s *Server) Close() error { return s.ln.Close() }

// Run serves until ctx ends, unless Listen was called before listening first. Then
// it is not ready any more, answers for Linger, lets what is under way end, and
// returns when all it started has ended.
func (s *Server) Run(ctx context.Context) error {
	if s.ln == nil {
		if err := s.Listen(ctx); err != nil {
			return err
		}
	}
	srv := s.server()
	serving := make(chan error, 1)
	go func() {
		serving <- srv.ServeTLS(netutil.LimitListener(s.ln, maxConns), "", "")
	}()
	s.log.Info("answering reviews", zap.Stringer("address", s.ln.Addr()))
	following, stop := context.WithCancel(context.WithoutCancel(ctx)) // while it lingers, too
	var wg sync.WaitGroup
	wg.Go(func() { s.cert.follow(following) })
	defer wg.Wait()
	defer stop()
	select {
	case err := <-serving:
		return fmt.Errorf("serving reviews: %w", err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.log.Info("stopping", zap.Duration("answering_for", s.cfg.Linger))
	linger := time.NewTimer(s.cfg.Linger)
	defer linger.Stop()
	select {
	case err := <-serving:
		return fmt.Errorf("serving reviews: %w", err)
	case <-linger.C:
	}
	s.end(srv)
	if err := <-serving; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving reviews: %w", err)
	}
	return nil
}

// end ends the server gently, and then not.
func (s *Server) end(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close() // it is over either way
	}
}

// server makes the HTTPS server, with bounds.
func (s *Server) server() *http.Server {
	errorLog, err := zap.NewStdLogAt(s.log, zapcore.DebugLevel)
	if err != nil {
		errorLog = zap.NewStdLog(s.log)
	}
	return &http.Server{
		Handler:           s.handler(),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.cert.get},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          errorLog,
	}
}
