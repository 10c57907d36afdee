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

// Bounds of the server, beside those of its gate. An API server keeps a connection or two
// for each webhook of a configuration, and sends reviews side by side on it.
const (
	// maxReview bounds the bytes of one review. etcd takes objects of 1.5 MiB, in a
	// shorter form than JSON; real pods have some 10 KiB. The review of an update has the
	// object twice: a template beyond 1 MiB is not looked at early (failurePolicy Ignore),
	// and its pods are when they are made.
	maxReview = 2 << 20

	maxConns      = 128
	bodyTimeout   = 5 * time.Second
	headerTimeout = 5 * time.Second
	readTimeout   = maxPatience + bodyTimeout // a body is read when there is a place for it
	writeTimeout  = readTimeout + 5*time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 4 << 10

	// What HTTP/2 takes on beside. A stream's buffer is no smaller than what a client may
	// send before it has heard of it (RFC 9113, section 6.9.2). A connection's has room for
	// all of its streams', or those that wait for their place could keep from those that
	// have one what they have still to read.
	maxStreams   = 32       // at once on one connection
	streamBuffer = 64 << 10 // bytes of a body that nobody has read
	frameBuffer  = 16 << 10 // bytes of one frame, the least that may be

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
	gate     *gate
	lines    *rate.Limiter
	stopping atomic.Bool
	ln       net.Listener // nil before Listen

	bodyTimeout time.Duration // bodyTimeout, but in tests
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
		gate: newGate(), lines: newLines(), bodyTimeout: bodyTimeout,
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

// newLines bounds the lines about reviews.
func newLines() *rate.Limiter { return rate.NewLimiter(reviewLinesPerSecond, reviewLines) }

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
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: frameBuffer,
			MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: maxStreams * streamBuffer,
		},
		ErrorLog: errorLog,
	}
}
