package kubetoken

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Bounds of what is read from files and servers.
const (
	maxHeaderLen = 64 << 10 // bytes of a response's header
	maxBearerLen = 16 << 10 // bytes of a bearer token
)

// source returns the func that reads the keys of a valid Config.
func source(c Config) func(context.Context) ([]key, error) {
	if c.KeysFile != "" {
		return func(context.Context) ([]key, error) { return loadFile(c.KeysFile) }
	}
	return (&remote{c.Issuer, c.JWKSURL, c.CAFile, c.BearerTokenFile}).load
}

func loadFile(path string) ([]key, error) {
	data, err := readFile(path, maxKeysLen)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// readFile reads a file that is neither endless nor waited for. A mounted
// Secret, which is a symbolic link, is followed.
func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("more than %d bytes: is it the right file?", most)}
	}
	return data, err
}

// A remote reads keys over https.
type remote struct {
	issuer, jwksURL    string // jwksURL is "" if the issuer tells it
	caFile, bearerFile string // or ""
}

// load reads the keys. Each time it makes connections of its own and leaves
// none behind, so that new certificate authorities count and old ones do not.
func (r *remote) load(ctx context.Context) ([]key, error) {
	client, err := r.client()
	if err != nil {
		return nil, err
	}
	bearer, err := r.bearer()
	if err != nil {
		return nil, err
	}
	where := r.jwksURL
	if where == "" {
		if where, err = r.discover(ctx, client, bearer); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		if !sameOrigin(where, r.issuer) {
			bearer = "" // it is for the issuer, and not for whom that names
		}
	}
	data, err := get(ctx, client, where, bearer)
	if err != nil {
		return nil, err
	}
	keys, err := parseSet(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return keys, nil
}

func (r *remote) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.caFile != "" {
		data, err := readFile(r.caFile, maxKeysLen)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s: no certificate in PEM", r.caFile)
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        config,
			ForceAttemptHTTP2:      true,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaderLen,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       loadTimeout,
	}, nil
}

// bearer returns the token to show, "" for none. No error shows it.
func (r *remote) bearer() (string, error) {
	if r.bearerFile == "" {
		return "", nil
	}
	data, err := readFile(r.bearerFile, maxBearerLen)
	if err != nil {
		return "", err
	}
	bearer := strings.TrimSpace(string(data))
	if bearer == "" || strings.ContainsFunc(bearer, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("%s: not a bearer token: it is empty, or holds other characters than visible ASCII", r.bearerFile)
	}
	return bearer, nil
}

// discover returns the URL of the keys (OpenID Connect Discovery, section 4).
func (r *remote) discover(ctx context.Context, client *http.Client, bearer string) (string, error) {
	where := strings.TrimSuffix(r.issuer, "/") + "/.well-known/openid-configuration"
	data, err := get(ctx, client, where, bearer)
	if err != nil {
		return "", err
	}
	var d struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return "", fmt.Errorf("%s: not the JSON of OpenID Connect Discovery", where)
	}
	if d.Issuer != r.issuer {
		return "", fmt.Errorf("%s: the issuer there is %s, want %s, to the byte", where, shown(d.Issuer), r.issuer)
	}
	if _, err := parseURL(d.JWKSURI); err != nil {
		return "", fmt.Errorf("%s: jwks_uri: %w", where, err)
	}
	return d.JWKSURI, nil
}

// sameOrigin reports whether two https URLs are of one server.
func sameOrigin(a, b string) bool {
	origin := func(s string) string {
		u, err := parseURL(s)
		if err != nil {
			return ""
		}
		port := u.Port()
		if port == "" {
			port = "443"
		}
		return strings.ToLower(u.Hostname()) + " " + port
	}
	return origin(a) != "" && origin(a) == origin(b)
}

// get returns what is at a URL, if it is there and nowhere else. Errors name the
// URL, and show nothing of the answer but its status.
func get(ctx context.Context, client *http.Client, where, bearer string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, explain(err))
	}
	defer resp.Body.Close()
	if err := checkStatus(resp.StatusCode, bearer != ""); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxKeysLen+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: reading the answer: %w", where, explain(err))
	case len(data) > maxKeysLen:
		return nil, fmt.Errorf("%s: the answer has more than %d bytes", where, maxKeysLen)
	}
	return data, nil
}

func checkStatus(status int, bearer bool) error {
	switch {
	case status == http.StatusOK:
		return nil
	case status >= 300 && status < 400:
		return fmt.Errorf("the server answers %d and redirects, which is not followed: name the last URL", status)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		if bearer {
			return fmt.Errorf("the server answers %d: the bearer token's account has to have the role system:service-account-issuer-discovery", status)
		}
		return fmt.Errorf("the server answers %d and was shown no bearer token: name a file of one, which goes to the issuer's own host and to a URL of keys that is set; or let everybody read keys (role system:service-account-issuer-discovery)", status)
	}
	return fmt.Errorf("the server answers %d", status)
}

// explain takes the URL, which the caller's text has, out of an error of
// net/http, and says what a passed deadline is.
func explain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		return fmt.Errorf("no whole answer within %s: %w", loadTimeout.Round(time.Second), err)
	}
	return err
}
