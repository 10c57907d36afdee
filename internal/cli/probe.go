package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/config"
)

// probeTimeout is less than the usual timeout of a probe that calls us, so that
// the reason is printed.
const probeTimeout = 3 * time.Second

// probe asks the running process whether it, or one service of it, is ready.
// The error is one line.
func probe(ctx context.Context, kind config.Kind, src config.Source, service string, stdout io.Writer) error {
	metrics, admin, err := config.LoadEndpoints(kind, src)
	if err != nil {
		return err
	}
	network, address, err := whereToAsk(metrics, admin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	status, text, err := ask(ctx, network, address, service)
	if err != nil {
		return fmt.Errorf("%w: is the %s running with this address for metrics or admin?", err, kind)
	}
	switch {
	case status == http.StatusOK && text == "ready\n":
		_, err := fmt.Fprintln(stdout, "ready")
		return err
	case strings.HasPrefix(text, "not ready: "):
		return errors.New(firstLine(text))
	}
	return fmt.Errorf("%s answered %d: is that the %s?", address, status, kind)
}

// whereToAsk prefers the metrics server, which every user may reach. An address
// with port 0 is another one each time, which nobody knows.
func whereToAsk(metrics config.Address, admin string) (network, address string, err error) {
	if metrics.Port != 0 {
		if ip, err := netip.ParseAddr(metrics.Host); err == nil && ip.IsUnspecified() {
			metrics.Host = "127.0.0.1"
			if ip.Is6() {
				metrics.Host = "::1"
			}
		}
		return "tcp", metrics.String(), nil
	}
	path, unix := strings.CutPrefix(admin, "unix://")
	switch {
	case unix:
		return "unix", path, nil
	case admin != "" && !strings.HasSuffix(admin, ":0"):
		return "tcp", admin, nil
	case admin != "" || !metrics.IsZero():
		return "", "", errors.New("the address for metrics or admin has port 0, so nobody knows where to ask: give it a port")
	}
	return "", "", errors.New("there is no address to ask at: set metrics or admin, as for the running process")
}

// ask returns the status and the beginning of what /readyz answers.
func ask(ctx context.Context, network, address, service string) (int, string, error) {
	u := url.URL{Scheme: "http", Host: "localhost", Path: "/readyz"}
	if service != "" {
		u.RawQuery = url.Values{"service": {service}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, "", err
	}
	transport := &http.Transport{ // no proxy: this is about this machine
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
		DisableKeepAlives: true,
	}
	resp, err := transport.RoundTrip(req) // follows no redirect
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return resp.StatusCode, string(b), err
}

// firstLine returns the first line of text and how many more there are.
func firstLine(text string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if n := len(strings.Fields(rest)); n > 0 {
		return fmt.Sprintf("%s (and %d more)", line, strings.Count(rest, "\n")+1)
	}
	return line
}
