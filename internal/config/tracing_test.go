package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const tracedInlet = inletFile + `tracing:
  endpoint: https://collector:4318
  sample: 0.25
  spans_per_second: 7
  ca_file: ca.pem
  client_address: true
  headers:
    Authorization: Bearer ${TOKEN}
    X-Scope-OrgID: 17
`

func TestTracing(t *testing.T) {
	share := func(f float64) *float64 { return &f }
	for _, tt := range []struct {
		name, file string
		args, env  []string
		want       Tracing
	}{
		{name: "none", file: inletFile},
		{name: "all", file: tracedInlet, env: []string{"TOKEN=secret"}, want: Tracing{
			Endpoint: "https://collector:4318/v1/traces", Sample: share(0.25), SpansPerSecond: 7, CAFile: "ca.pem", ClientAddress: true,
			Headers: TracingHeaders{"Authorization": "Bearer secret", "X-Scope-OrgID": "17"},
		}},
		{
			name: "by flags", file: inletFile, args: []string{"--tracing-endpoint", "http://127.0.0.1:4318/", "--tracing-sample", "0"},
			want: Tracing{Endpoint: "http://127.0.0.1:4318/v1/traces", Sample: share(0)},
		},
		{
			name: "by variables", file: inletFile, env: []string{"CULVERT_TRACING_ENDPOINT=https://c/otlp", "CULVERT_TRACING_SAMPLE=1", "CULVERT_TRACING_CA_FILE=/etc/ca.pem"},
			want: Tracing{Endpoint: "https://c/otlp/v1/traces", Sample: share(1), CAFile: "/etc/ca.pem"},
		},
		{
			name: "a flag beats a variable beats the file", file: inletFile + "tracing: {endpoint: https://file, sample: 0.1}\n", args: []string{"--tracing-endpoint", "https://flag/v1/traces"},
			env: []string{"CULVERT_TRACING_ENDPOINT=https://variable", "CULVERT_TRACING_SAMPLE=0.2"}, want: Tracing{Endpoint: "https://flag/v1/traces", Sample: share(0.2)},
		},
		{name: "an empty section", file: inletFile + "tracing:\n", args: []string{"--tracing-endpoint", "https://flag"}, want: Tracing{Endpoint: "https://flag/v1/traces"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := LoadInlet(source(t, KindInlet, inFolder(t, KindInlet, tt.file), tt.args, tt.env))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Tracing; len(Changed(&Inlet{Tracing: got}, &Inlet{Tracing: tt.want})) > 0 {
				t.Errorf("got %#v (headers %v), want %#v", got, map[string]string(got.Headers), tt.want)
			}
		})
	}
}

// TestTracingOfAnOutlet: it has the same settings, and a change of them wants a restart.
func TestTracingOfAnOutlet(t *testing.T) {
	file := inFolder(t, KindOutlet, outletFile+"tracing: {endpoint: https://c, headers: {a: b}}\n")
	c, err := LoadOutlet(source(t, KindOutlet, file, nil, nil))
	if err != nil || c.Tracing.Endpoint != "https://c/v1/traces" {
		t.Fatalf("got %+v, %v", c, err)
	}
	other := *c
	other.Tracing.Headers = TracingHeaders{"a": "c"}
	if got := Changed(c, &other); len(got) != 1 || got[0] != "tracing" {
		t.Errorf("got %q changed, want tracing", got)
	}
}

func TestTracingFaults(t *testing.T) {
	many := "{"
	for i := range maxHeaders + 1 {
		many += fmt.Sprintf("h%d: v, ", i)
	}
	for text, want := range map[string]string{
		"{sample: 0.5}":                                          "tracing.endpoint: missing: say where the collector is",
		"7":                                                      "tracing: want keys with values",
		"{endpoint: 'collector:4318'}":                           "want the collector's URL",
		"{endpoint: ftp://c}":                                    "want the collector's URL",
		"{endpoint: 'https://:4318'}":                            "names no host",
		"{endpoint: 'https:c'}":                                  "names no host",
		"{endpoint: 'https://me:hunter2@c'}":                     "a token goes into headers",
		"{endpoint: 'https://c?token=hunter2'}":                  "a token goes into headers",
		"{endpoint: 'https://me:hunter2@c:no'}":                  "want the collector's URL",
		"{endpoint: https://c, sample: 1.5}":                     "tracing.sample: want a number from 0 to 1",
		"{endpoint: https://c, sample: -0.1}":                    "want a number from 0 to 1",
		"{endpoint: https://c, sample: .nan}":                    "want a number from 0 to 1",
		"{endpoint: https://c, sample: NaN}":                     "want a number from 0 to 1",
		"{endpoint: https://c, sample: 1%}":                      "want a number from 0 to 1",
		"{endpoint: https://c, sample: [1]}":                     "want a number from 0 to 1",
		"{endpoint: https://c, spans_per_second: 0}":             "tracing.spans_per_second: want a whole number",
		"{endpoint: https://c, spans_per_second: 100001}":        "want at most 100000",
		"{endpoint: http://c, ca_file: ca.pem}":                  "nobody has to vouch",
		"{endpoint: https://c, headers: [a]}":                    "tracing.headers: want names with values",
		"{endpoint: https://c, headers: {'a b': hunter2}}":       "is no name that a header can have",
		"{endpoint: https://c, headers: {Content-Type: x}}":      "is set by the protocol",
		"{endpoint: https://c, headers: {host: x}}":              "is set by the protocol",
		"{endpoint: https://c, headers: {a: hunter2, A: x}}":     "is there twice",
		"{endpoint: https://c, headers: {a: [hunter2]}}":         "want one text",
		"{endpoint: https://c, headers: {a: \"hunter2\\nb\"}}":   "holds other characters",
		"{endpoint: https://c, headers: {a: \"hunter2 \\xe9\"}}": "holds other characters",
		"{endpoint: https://c, headers: {a: ''}}":                "is empty",
		"{endpoint: https://c, headers: " + many + "}}":          "at most 32 are sent",
		"{endpoint: https://c, client_address: maybe}":           "want true or false",
		"{url: https://c}":                                       `did you mean "endpoint"?`,
	} {
		_, err := LoadInlet(source(t, KindInlet, inFolder(t, KindInlet, inletFile+"tracing: "+text+"\n"), nil, nil))
		var faults Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the fault shows what may be a secret: %v", text, err)
		}
	}
}

// TestTracingOfARelay: a relay traces nothing, and says so.
func TestTracingOfARelay(t *testing.T) {
	_, err := LoadRelay(source(t, KindRelay, inFolder(t, KindRelay, relayFile+"tracing: {endpoint: https://c}\n"), nil, nil))
	if err == nil || !strings.Contains(err.Error(), "a relay sees no connections that it could trace") {
		t.Errorf("got %v", err)
	}
}

// TestTracingHeadersPrintNothing: whoever prints settings shows no token.
func TestTracingHeadersPrintNothing(t *testing.T) {
	c := Inlet{Tracing: Tracing{Headers: TracingHeaders{"authorization": "hunter2"}}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		if got := fmt.Sprintf(format, c); strings.Contains(got, "hunter2") {
			t.Errorf("%s shows it: %s", format, got)
		}
		if got := fmt.Sprintf(format, c.Tracing.Headers); strings.Contains(got, "hunter2") {
			t.Errorf("%s shows it: %s", format, got)
		}
	}
}
