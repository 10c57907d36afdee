package kubetoken

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
)

// New tells all that is wrong at once, and takes what is right.
func TestConfig(t *testing.T) {
	good := Config{Issuer: testIssuer, Audience: testAudience}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		words  []string // none: it is right
	}{
		{"discovery", func(*Config) {}, nil},
		{"all", func(c *Config) {
			c.CAFile, c.BearerTokenFile, c.Skew = "ca", "token", MaxSkew
			c.Algorithms, c.Namespaces = Algorithms(), []string{"a", "b-1"}
		}, nil},
		{"nothing", func(c *Config) { *c = Config{} }, []string{"audience: is missing", "issuer: is missing"}},
		{"issuer over http", func(c *Config) { c.Issuer = "http://k" }, []string{"want an https:// URL"}},
		{"issuer that is no URL", func(c *Config) { c.Issuer = "kubernetes" }, []string{"or say where its keys are"}},
		{"issuer with a fragment", func(c *Config) { c.Issuer, c.KeysFile = "k#pod/a/b/c", "f" }, []string{"fragment"}},
		{"issuer with a query", func(c *Config) { c.Issuer += "?a" }, []string{"without user, query"}},
		{"issuer with a space", func(c *Config) { c.Issuer += " " }, []string{"visible ASCII"}},
		{"long issuer", func(c *Config) { c.Issuer += strings.Repeat("a", 512) }, []string{"at most 512"}},
		{"issuer with a file", func(c *Config) { c.Issuer, c.KeysFile = "kubernetes", "f" }, nil},
		{"issuer with a URL of keys", func(c *Config) { c.Issuer, c.JWKSURL = "kubernetes", "https://k/keys" }, nil},
		{"keys over http", func(c *Config) { c.JWKSURL = "http://k/keys" }, []string{"URL of the keys", "https://"}},
		{"keys without a host", func(c *Config) { c.JWKSURL = "https:///keys" }, []string{"names no host"}},
		{"two ways", func(c *Config) { c.JWKSURL, c.KeysFile = "https://k/keys", "f" }, []string{"choose one"}},
		{"a file and a CA", func(c *Config) { c.KeysFile, c.CAFile = "f", "g" }, []string{"need no certificate authorities"}},
		{"skew below", func(c *Config) { c.Skew = -time.Second }, []string{"skew"}},
		{"skew above", func(c *Config) { c.Skew = MaxSkew + 1 }, []string{"skew"}},
		{"none", func(c *Config) { c.Algorithms = []string{"RS256", "none", "HS256"} }, []string{`algorithm "none"`, `algorithm "HS256"`}},
		{"namespaces", func(c *Config) { c.Namespaces = []string{"a", "B", "*"} }, []string{`namespace "B"`, `namespace "*"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			v, err := New(c)
			if tt.words == nil {
				if err != nil || v == nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || v != nil {
				t.Fatalf("got %v, %v, want an error", v, err)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("got %v, want … %s …", err, w)
				}
			}
		})
	}
}

// What the settings let pass can be used.
func TestSettings(t *testing.T) {
	if got, want := config.KubernetesAlgorithms(), Algorithms(); !slices.Equal(got, want) {
		t.Errorf("settings have the algorithms %v, want %v", got, want)
	}
	if got, want := config.MaxClockSkew, MaxSkew; got != want {
		t.Errorf("settings have the skew %s, want %s", got, want)
	}
}
