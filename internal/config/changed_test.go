package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Every setting is a key of its kind's files under the name that Changed has for
// it: so none can be changed without being named.
func TestChangedNamesEveryKey(t *testing.T) {
	var names func(v reflect.Type) []string
	names = func(v reflect.Type) (list []string) {
		for i := range v.NumField() {
			switch f := v.Field(i); {
			case f.Anonymous:
				list = append(list, names(f.Type)...)
			case f.IsExported() && f.Name != "TicketRoutes":
				list = append(list, keyOf(f.Name))
			}
		}
		return list
	}
	for kind, c := range map[Kind]any{KindInlet: Inlet{}, KindOutlet: Outlet{}, KindRelay: Relay{}, KindAuthority: Authority{}} {
		file := filepath.Join(t.TempDir(), "a.yaml")
		for _, key := range names(reflect.TypeOf(c)) {
			if err := os.WriteFile(file, []byte(key+": x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Check(file, kind, nil); err == nil || strings.Contains(err.Error(), "unknown key") {
				t.Errorf("%s: %q is no key of its files: %v", kind, key, err)
			}
		}
	}
}

func TestChanged(t *testing.T) {
	const id = "mfzwizltoqqhg33nmvqxi2dfonuw4zzanf2ca2ltebzw63lforua"
	const text = `identity: a.key
relays: ["tcp://127.0.0.1:4000/` + id + `"]
drain_timeout: 30s
services:
  - {name: a, target: "tcp://127.0.0.1:1", allow: [` + id + `]}
`
	file := filepath.Join(t.TempDir(), "outlet.yaml")
	load := func(text string) *Outlet {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadOutlet(Source{Environ: []string{"CULVERT_CONFIG=" + file}})
		if err != nil {
			t.Fatal(err)
		}
		if c.File() != file {
			t.Errorf("File is %q, want %q", c.File(), file)
		}
		return c
	}
	was := load(text)
	for _, tt := range []struct{ from, to, want string }{
		{"", "", ""},
		{"# nothing", "# at all", ""},
		{"30s", "30000ms", ""},
		{"30s", "31s", "drain_timeout"},
		{"identity: a.key", "identity: b.key\nlisten: []\nlimits: {handshakes_per_second: 3}", "identity limits"},
		{"identity:", "log_level: debug\nidentity:", ""}, // which is excepted
		{"4000", "4001", "relays"},
	} {
		if got := strings.Join(Changed(was, load(strings.Replace(text, tt.from, tt.to, 1)), "services", "log_level"), " "); got != tt.want {
			t.Errorf("%q for %q: changed %q, want %q", tt.to, tt.from, got, tt.want)
		}
	}
	if got := Changed(was, &Outlet{}); len(got) < 5 {
		t.Errorf("everything differs from nothing, got %v", got)
	}
	if (&Common{DrainTimeout: time.Second}).File() != "" {
		t.Error("settings that no file has made have one")
	}
}
