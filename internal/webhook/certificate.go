package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/obs"
)

const (
	// certificateEvery is how often the files are looked at. A Secret takes up to two
	// minutes to reach a pod anyway.
	certificateEvery = 10 * time.Second
	// certificateSoon is how long before its end that is told of, remindEvery how often.
	certificateSoon = 14 * 24 * time.Hour
	remindEvery     = 24 * time.Hour
	// maxPEM bounds a file, in bytes.
	maxPEM = 256 << 10
)

// A certificate is the server's, as its files have it now.
type certificate struct {
	certFile, keyFile string
	log               *zap.Logger
	now               atomic.Pointer[tls.Certificate]
	reloads           *prometheus.CounterVec // result

	mu                sync.Mutex
	certText, keyText []byte // that are in use
	failed            string // why the files could not be taken when they were last read; "" when they could
	reminded          time.Time
}

// newCertificate reads the files.
func newCertificate(certFile, keyFile string, o *obs.Obs) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: o.Log}
	c.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "culvert_webhook_certificate_reloads_total",
		Help: "Times that a changed certificate was read, by result: ok or failed.",
	}, []string{"result"})
	o.Registry.MustRegister(c.reloads, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "culvert_webhook_certificate_expiry_timestamp_seconds",
		Help: "When the certificate in use expires, in seconds since 1970.",
	}, func() float64 { return float64(c.now.Load().Leaf.NotAfter.Unix()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "culvert_webhook_certificate_file_in_use",
		Help: "1 while the certificate is as its files have it, 0 while they cannot be taken and an older one is used.",
	}, c.inUse))
	c.reloads.WithLabelValues("ok")
	c.reloads.WithLabelValues("failed")
	if _, err := c.read(); err != nil {
		return nil, err
	}
	c.remind(time.Now())
	return c, nil
}

// get is for [tls.Config].
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil }

// inUse is 1 while the files could be taken when they were last read, else 0.
func (c *certificate) inUse() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != "" {
		return 0
	}
	return 1
}

// valid says why API servers will not take the certificate; nil if they will.
func (c *certificate) valid(now time.Time) error {
	leaf := c.now.Load().Leaf
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate in %s has expired at %s: put a new one there, which is read without a restart", c.certFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate in %s holds from %s on: look at the clock", c.certFile, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// follow reads the files when they have changed, until ctx ends.
func (c *certificate) follow(ctx context.Context) {
	t := time.NewTicker(certificateEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			c.reload(false)
			c.remind(time.Now())
		}
	}
}

// reload takes what the files have now, if that is another certificate and its key.
// A failure is told once, unless somebody has asked; what is in use stays.
func (c *certificate) reload(asked bool) {
	changed, err := c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if text := err.Error(); asked || text != c.failed {
			c.failed = text
			c.reloads.WithLabelValues("failed").Inc()
			c.log.Error("the certificate stays as it is, the files cannot be taken", zap.Error(err))
		}
		return
	}
	c.failed = ""
	if changed {
		leaf := c.now.Load().Leaf
		c.reloads.WithLabelValues("ok").Inc()
		c.log.Info("the certificate is a new one", zap.Time("not_after", leaf.NotAfter), zap.Strings("names", leaf.DNSNames))
	}
}

// read takes the files' certificate and key, and reports whether they are others than
// before.
func (c *certificate) read() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	certText, err := readPEM(c.certFile)
	if err != nil {
		return false, fmt.Errorf("certificate: %w", err)
	}
	keyText, err := readPEM(c.keyFile)
	if err != nil {
		return false, fmt.Errorf("key: %w", err)
	}
	if bytes.Equal(certText, c.certText) && bytes.Equal(keyText, c.keyText) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return false, fmt.Errorf("%s and %s: %w: write a certificate in PEM, and its own key", c.certFile, c.keyFile, err)
	}
	c.now.Store(&pair)
	c.certText, c.keyText = certText, keyText
	c.reminded = time.Time{}
	return true, nil
}

// remind tells of a certificate that expires soon, once a day while it is in use.
func (c *certificate) remind(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	notAfter := c.now.Load().Leaf.NotAfter
	if notAfter.Sub(now) >= certificateSoon || now.Sub(c.reminded) < remindEvery {
		return
	}
	c.reminded = now
	c.log.Warn("the certificate expires soon: put a new one in its place, which is read without a restart", zap.Time("not_after", notAfter), zap.String("file", c.certFile))
}

// readPEM reads a file up to its bound.
func readPEM(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(text) > maxPEM {
		err = fmt.Errorf("%s: has more than %d bytes", file, maxPEM)
	}
	return text, err
}
