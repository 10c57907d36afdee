package trace

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/culvert-net/culvert/internal/wait"
	"github.com/culvert-net/culvert/pkg/code"
)

const (
	requestTime = 10 * time.Second
	// tryTime is for how long a batch is tried to be sent.
	tryTime = time.Minute
	// maxPause bounds the pause between two attempts, whatever the collector says.
	maxPause = 30 * time.Second
	// maxAnswer bounds what is read of the collector's answer, in bytes.
	maxAnswer = 64 << 10
	maxCAFile = 1 << 20
)

// A client sends spans by OTLP over HTTP: a POST of the protobuf of an
// ExportTraceServiceRequest, compressed, and again after a pause where the collector
// says that it may work then (OTLP, section "OTLP/HTTP Response").
type client struct {
	url      string
	headers  http.Header
	http     *http.Client
	retrying func(err error) // is told why there is another attempt
}

func newClient(cfg *Config, retrying func(error)) (*client, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		var err error
		if secure.RootCAs, err = readRoots(cfg.CAFile); err != nil {
			return nil, err
		}
	}
	c := &client{url: cfg.Endpoint, headers: http.Header{}, retrying: retrying}
	for name, value := range cfg.Headers {
		c.headers.Set(name, value)
	}
	c.headers.Set("Content-Type", "application/x-protobuf")
	c.headers.Set("Content-Encoding", "gzip")
	c.headers.Set("User-Agent", "Culvert OTLP Exporter")
	c.http = &http.Client{
		Timeout: requestTime,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: requestTime}).DialContext,
			TLSClientConfig: secure, ForceAttemptHTTP2: true, TLSHandshakeTimeout: requestTime,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer,
		},
		// The headers, which may hold a token, go nowhere but where the settings say.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// readRoots reads certificate authorities.
func readRoots(file string) (*x509.CertPool, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the collector's certificate authorities: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	pem, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	roots := x509.NewCertPool()
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the collector's certificate authorities: %w", err)
	case len(pem) > maxCAFile:
		return nil, fmt.Errorf("%s has more than %d bytes: name a file of certificates", file, maxCAFile)
	case !roots.AppendCertsFromPEM(pem):
		return nil, fmt.Errorf("%s has no certificate: name a PEM file of those who vouch for the collector", file)
	}
	return roots, nil
}

// send returns when the collector has taken the spans, has refused them, has not
// answered for a minute, or ctx has ended. A *RejectedError says that it has taken
// them but for some.
func (c *client) send(ctx context.Context, spans *otlp.TracesData) error {
	body, err := encode(spans)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	pause := &backoff.ExponentialBackOff{InitialInterval: time.Second, Multiplier: 2, RandomizationFactor: 0.5, MaxInterval: maxPause}
	for {
		err := c.post(ctx, body)
		var again *retryError
		if !errors.As(err, &again) {
			return err
		}
		c.retrying(err)
		if !wait.Sleep(ctx, max(pause.NextBackOff(), min(again.after, maxPause))) {
			return err
		}
	}
}

// encode returns a request's body. A TracesData has the encoding of an
// ExportTraceServiceRequest (opentelemetry/proto/trace/v1/trace.proto), whose package
// needs gRPC.
func encode(spans *otlp.TracesData) ([]byte, error) {
	raw, err := proto.Marshal(spans)
	if err != nil {
		return nil, fmt.Errorf("encoding spans: %w", err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(raw); err != nil {
		return nil, fmt.Errorf("compressing spans: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compressing spans: %w", err)
	}
	return b.Bytes(), nil
}

// A retryError is a failure that may pass.
type retryError struct {
	err   error
	after time.Duration // the collector wants no other attempt before
}

// Error implements error. What is no HTTP is in an error as it came.
func (e *retryError) Error() string { return code.CutReason(code.Printable(e.err.Error())) }

// Unwrap returns what failed.
func (e *retryError) Unwrap() error { return e.err }

// post makes one request.
func (c *client) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	req.Header = c.headers.Clone()
	resp, err := c.http.Do(req)
	if err != nil {
		return &retryError{err: err}
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch taken := resp.StatusCode/100 == 2; {
	case taken && err != nil:
		return nil // what it says beside that is lost
	case taken:
		return rejected(answer)
	}
	err = fmt.Errorf("%s answers %q: check the endpoint, and the headers if it wants a token", c.url, code.CutReason(resp.Status))
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &retryError{err: err, after: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	return err
}

// retryAfter reads what a header of that name says: seconds, or a date (RFC 9110,
// section 10.2.3). 0: nothing that can be read.
func retryAfter(text string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
