// Package watch owns what a terminal shows of a running inlet, outlet, relay or
// authority: it asks the process's admin server, reads the answer, and puts it into
// text for people. It changes nothing there, and knows nothing of keys and screens.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

const (
	// maxAnswer bounds what is read of an answer, in bytes: an outlet with all its
	// channels, and as many streams as it shows, has a quarter of that.
	maxAnswer = 64 << 20
	maxReady  = 1 << 20
	// askTime bounds one question.
	askTime = 10 * time.Second
	// MaxStreams is how many streams, or joins, a process shows at most.
	MaxStreams = 10_000
)

// A Client asks one process's admin server.
type Client struct {
	network, address string
	http             http.Client
}

// NewClient returns what asks the admin server at an address, which is host:port or
// unix:///path. It connects nowhere yet.
func NewClient(admin string) *Client {
	c := &Client{network: "tcp", address: admin}
	if path, ok := strings.CutPrefix(admin, "unix://"); ok {
		c.network, c.address = "unix", path
	}
	c.http = http.Client{
		Transport: &http.Transport{ // no proxy: this is about this machine
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, c.network, c.address)
			},
			MaxIdleConns: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Address returns where the Client asks, for people.
func (c *Client) Address() string { return c.address }

// Close gives up what the Client keeps open.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// An UnreachableError says that nobody answers at the admin address.
type UnreachableError struct {
	Address string
	Err     error
}

// Error says what to look at.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("nobody answers at the admin address %s: %v: does the process run, with this address for admin?", e.Address, e.Err)
}

// Unwrap returns why.
func (e *UnreachableError) Unwrap() error { return e.Err }

// get returns the body of an answer of at most so many bytes, and its status.
func (c *Client) get(ctx context.Context, path string, query url.Values, most int64) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	u := url.URL{Scheme: "http", Host: "localhost", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the address that stands in here
		}
		return nil, 0, &UnreachableError{c.address, err}
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, 0, &UnreachableError{c.address, err}
	case int64(len(b)) > most:
		return nil, 0, fmt.Errorf("%s answers more than %d bytes: is that a Culvert?", c.address, most)
	}
	return b, resp.StatusCode, nil
}

// Raw returns what /status answers, as it comes, with that many streams or joins at
// most.
func (c *Client) Raw(ctx context.Context, streams int) (json.RawMessage, error) {
	n := strconv.Itoa(min(max(streams, 0), MaxStreams))
	b, status, err := c.get(ctx, "/status", url.Values{"streams": {n}, "joins": {n}}, maxAnswer)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("%s answers %d at /status: %s", c.address, status, said(b))
	case status != http.StatusOK:
		return nil, fmt.Errorf("%s answers %d at /status, and no status: is that the admin address of a Culvert?", c.address, status)
	}
	if err := checkJSON(b); err != nil {
		return nil, fmt.Errorf("%s answers at /status, and no status: %w: is that the admin address of a Culvert?", c.address, err)
	}
	return b, nil
}

// said returns what a refusal says, as far as it can be shown.
func said(b []byte) string {
	return code.Printable(code.CutReason(strings.TrimSpace(string(b))))
}

// Status returns what /status answers.
func (c *Client) Status(ctx context.Context, streams int) (*Status, error) {
	b, err := c.Raw(ctx, streams)
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// A Readiness is what /readyz says.
type Readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// A Check is one thing that is ready, or not.
type Check struct {
	Name   Text `json:"name"`
	Ready  bool `json:"ready"`
	Reason Text `json:"reason"`
}

// Ready asks whether the process is ready.
func (c *Client) Ready(ctx context.Context) (*Readiness, error) {
	b, status, err := c.get(ctx, "/readyz", nil, maxReady)
	if err != nil {
		return nil, err
	}
	var r Readiness
	if (status != http.StatusOK && status != http.StatusServiceUnavailable) || checkJSON(b) != nil || json.Unmarshal(b, &r) != nil {
		return nil, fmt.Errorf("%s answers %d at /readyz, and not who is ready: is that the admin address of a Culvert?", c.address, status)
	}
	return &r, nil
}
