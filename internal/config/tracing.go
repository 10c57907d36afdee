package config

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// DefaultTracingSample is which share of the traces that begin at a process it
// records, unless its settings say otherwise.
const DefaultTracingSample = 0.01

const (
	maxSpanRate      = 100_000
	maxHeaders       = 32
	maxHeaderLen     = 8 << 10      // bytes of a value
	tracesPath       = "/v1/traces" // OTLP, section "OTLP/HTTP Request"
	tracingSection   = "tracing"
	endpointWanted   = "want the collector's URL, like https://collector:4318"
	reservedWithOTLP = "content-type content-encoding content-length transfer-encoding connection host"
)

// Tracing are the settings about traces, which inlets and outlets have. The zero value
// is to record none.
type Tracing struct {
	Endpoint       string         // the URL that spans are posted to, whole; "": nothing is recorded
	Sample         *float64       // which share of the traces that begin here is recorded, 0 to 1; nil: DefaultTracingSample
	SpansPerSecond int            // the most that begin here, and as many that peers ask for; zero: what internal/trace takes
	Headers        TracingHeaders // sent with each request, those of HeadersFile included
	HeadersFile    string         // the file that more of them are from; "": none
	CAFile         string         // who may vouch for the collector; "": whom the system trusts
	ClientAddress  bool           // spans say which address a client has
	Insecure       bool           // Headers may go to another machine in the clear
}

// TracingHeaders are headers of HTTP requests, by name. They may hold a token, and
// print as nothing.
type TracingHeaders map[string]string

// Format implements [fmt.Formatter].
func (TracingHeaders) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[headers]") }

// tracing reads the section of that name, if there is one.
func (s *section) tracing() (t Tracing) {
	v := s.get(tracingSection)
	if v == nil {
		return t
	}
	in := s.section(v, tracingSection)
	in.synonyms = map[string]string{"url": "endpoint", "collector": "endpoint", "ratio": "sample", "sampling": "sample", "header": "headers", "header_file": "headers_file", "ca": "ca_file"}
	in.need("endpoint", "say where the collector is (endpoint: https://HOST:4318 or --tracing-endpoint)")
	in.read("endpoint", func(text string) (err error) {
		t.Endpoint, err = tracesURL(text)
		return err
	})
	t.Sample = in.share("sample")
	t.CAFile = in.filePath("ca_file")
	t.Headers = in.headers("headers")
	t.Headers, t.HeadersFile = in.headersFile("headers_file", t.Headers)
	t.Insecure = in.boolean("insecure")
	t.ClientAddress = in.boolean("client_address")
	if t.SpansPerSecond = in.count("spans_per_second"); t.SpansPerSecond > maxSpanRate {
		in.fault(in.origins[join(tracingSection, "spans_per_second")], join(tracingSection, "spans_per_second"), "want at most %d", maxSpanRate)
	}
	if t.CAFile != "" && strings.HasPrefix(t.Endpoint, "http://") {
		in.fault(in.origins[join(tracingSection, "ca_file")], join(tracingSection, "ca_file"), "nobody has to vouch for a collector at http://: write https://, or remove it")
	}
	in.secret(t)
	in.finish()
	return t
}

// secret reports headers, which may hold a token, that would go to another machine in
// the clear.
func (s *section) secret(t Tracing) {
	plain := strings.HasPrefix(t.Endpoint, "http://")
	switch {
	case t.Insecure && t.Endpoint != "" && !plain:
		key := join(s.path, "insecure")
		s.fault(s.origins[key], key, "nothing is insecure about a collector at https://: remove it")
	case plain && (len(t.Headers) > 0 || t.HeadersFile != "") && !t.Insecure && !isLoopbackURL(t.Endpoint):
		key := join(s.path, "endpoint")
		s.fault(s.origins[key], key, "http:// to another machine would show the headers, which may hold a token, to everybody on the way: "+
			"write https://, or insecure: true where nobody but you is on it")
	}
}

// isLoopbackURL reports whether a URL is this machine's alone.
func isLoopbackURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// tracesURL returns the URL that spans are posted to, for a collector's.
func tracesURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New(endpointWanted) // the text may hold a password
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", errors.New("want a URL without user, query and fragment: a token goes into headers") // and is not shown
	case u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("%s: %s", quote(text), endpointWanted)
	case u.Hostname() == "" || u.Opaque != "":
		return "", fmt.Errorf("%s names no host: %s", quote(text), endpointWanted)
	}
	if u.Path = strings.TrimSuffix(u.Path, "/"); !strings.HasSuffix(u.Path, tracesPath) {
		u.Path += tracesPath
	}
	u.RawPath = ""
	return u.String(), nil
}

// share reads a number from 0 to 1; nil if it is not there.
func (s *section) share(key string) *float64 {
	v := s.get(key)
	if v == nil {
		return nil
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if v.shape != shapeNumber && v.shape != shapeText || err != nil || !(f >= 0 && f <= 1) {
		s.fault(v.at, join(s.path, key), "want a number from 0 to 1, as 0.01 for one of a hundred")
		return nil
	}
	return &f
}

// headers reads a section of which each key is a header's name. No value is shown.
func (s *section) headers(key string) TracingHeaders {
	v := s.get(key)
	if v == nil {
		return nil
	}
	path := join(s.path, key)
	if v.shape != shapeMap {
		s.fault(v.at, path, "want names with values, not %s", v.shape)
		return nil
	}
	if len(v.entries) > maxHeaders {
		s.fault(v.at, path, "there are %d, at most %d are sent", len(v.entries), maxHeaders)
		return nil
	}
	h := TracingHeaders{}
	for _, e := range v.entries {
		if e.value.shape == shapeBad {
			continue
		}
		text, err := headerText(e.value)
		if err == nil {
			err = h.add(e.key, text)
		}
		if err != nil {
			s.fault(e.at, join(path, e.key), "%w", err)
		}
	}
	return h
}

// headerText returns the text that a header's value is.
func headerText(v *value) (string, error) {
	if v.shape == shapeNumber || v.shape == shapeBool {
		return v.text, nil
	}
	return scalarText(v)
}

// isToken reports whether text is one of RFC 9110, section 5.6.2.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
