package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		a        Address
		text     string
		url      string
		loopback bool
	}{
		{Address{}, "", "", false},
		{Address{Host: "127.0.0.1", Port: 1}, "127.0.0.1:1", "tcp://127.0.0.1:1", true},
		{Address{Host: "127.9.9.9", Port: 1}, "127.9.9.9:1", "tcp://127.9.9.9:1", true},
		{Address{Host: "::1", Port: 1}, "[::1]:1", "tcp://[::1]:1", true},
		{Address{Host: "localhost", Port: 1}, "localhost:1", "tcp://localhost:1", true},
		{Address{Host: "localhost.example", Port: 1}, "localhost.example:1", "tcp://localhost.example:1", false},
		{Address{Host: "0.0.0.0", Port: 1}, "0.0.0.0:1", "tcp://0.0.0.0:1", false},
		{Address{Host: "::", Port: 1}, "[::]:1", "tcp://[::]:1", false},
		{Address{Host: "128.0.0.1", Port: 1}, "128.0.0.1:1", "tcp://128.0.0.1:1", false},
	} {
		if got := tt.a.String(); got != tt.text {
			t.Errorf("%+v: got %q, want %q", tt.a, got, tt.text)
		}
		if got := tt.a.URL(); got != tt.url {
			t.Errorf("%+v: got %q, want %q", tt.a, got, tt.url)
		}
		if got := tt.a.Loopback(); got != tt.loopback {
			t.Errorf("%+v: got %v, want %v", tt.a, got, tt.loopback)
		}
		if tt.text == "" {
			continue
		}
		for _, text := range []string{tt.text, tt.url} {
			if back, err := parseAddress(text, toDial); err != nil || back != tt.a {
				t.Errorf("%q: got %+v, %v, want %+v", text, back, err, tt.a)
			}
		}
	}
	if a, err := parseAddress("[FE80::1%eth0]:1", toListen); err != nil || a.String() != "[fe80::1%eth0]:1" {
		t.Errorf("got %v, %v", a, err)
	}
	if a, err := parseAddress("[fe80::1%eth0]:1", toDial); err == nil {
		t.Errorf("a zone to dial: got %v", a)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "65536": 65536, "1B": 1, "512KiB": 512 << 10, "10MiB": 10 << 20, "1GiB": 1 << 30, "2 MiB": 2 << 20,
		"": -1, "-1": -1, "1KB": -1, "1M": -1, "1.5MiB": -1, "MiB": -1, "99999999999999GiB": -1, "1KiBB": -1, "1MiKiB": -1, "1Ki": -1,
	} {
		got, err := parseSize(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d (%v), want %d", text, got, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"identity", "listen", "routes", "connect_timeout", "admin"}
	for s, want := range map[string]string{
		"routs": "routes", "route": "routes", "ROUTES": "routes", "rotues": "routes", "lisen": "listen", "connectTimeout": "connect_timeout",
		"connect-timeout": "connect_timeout", "identidy": "identity", "foo": "", "x": "", "": "", "outlet": "", "metrics": "", "admn": "admin",
		strings.Repeat("a", 1000): "",
	} {
		if got := nearest(s, names); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

// A key pasted into the wrong place does not come back in an error.
func TestSecretsStayOut(t *testing.T) {
	id, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key := string(id.MarshalPEM())
	lines := strings.Split(key, "\n")
	for _, file := range []string{key, "register:\n  - " + lines[1] + "\n", "identity: a\nregister: [\"" + lines[1] + "\"]\n"} {
		t.Chdir(t.TempDir())
		write(t, "relay.yaml", file)
		_, err := LoadRelay(source(t, KindRelay, "relay.yaml", nil, nil))
		if err == nil || strings.Contains(err.Error(), lines[1][:16]) {
			t.Errorf("%q: got %v", file[:20], err)
		}
	}
}

func TestBounds(t *testing.T) {
	keys := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for _, tt := range []struct{ name, file, want string }{
		{"keys", keys(maxKeys+1, "k%d: a\n"), "x.yaml:201:5: more than 200 keys in one section"},
		{"keys in braces", "a: {" + keys(maxKeys+1, "k%d: a,\n") + "}", "x.yaml:201:5: more than 200 keys in one section"},
		{"question marks", keys(maxKeys+1, "? k%d\n"), "x.yaml:201:1: more than 200 keys in one section"},
		{"keys inside", "a:\n" + keys(maxKeys+1, "  k%d: a\n"), "x.yaml:202:7: more than 200 keys in one section"},
		{"keys of many sections", "a:\n" + keys(maxKeys, "  - a: 1\n    b: 2\n# %d\n"), ""},
		{"keys of two sections", "a:\n" + keys(maxKeys-1, "  k%d: a\n") + "b:\n" + keys(maxKeys-1, "  k%d: a\n"), ""},
		{"brackets", "a: " + strings.Repeat("[", maxDepth+1), "x.yaml:1:20: nested more than 16 deep"},
		{"most brackets", "a: " + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), ""},
	} {
		_, faults := parseYAML("x.yaml", []byte(tt.file))
		got := ""
		if faults != nil {
			got = faults.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// What a file holds cannot look like a line of the program's own, nor fill the
// screen, however it is wrong.
func TestErrorsAreLines(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, text := range []string{
		`"${a\nrelay.yaml:9:9: b}"`, `"${` + long + `}"`, `"${a\e[2J}"`, `"${a`, strings.Repeat("9", 5000), `"a\nb"`, `"` + long + `"`, `"a\nb.key"`, `"${X}"`,
	} {
		for _, key := range []string{"identity", "drain_timeout", "log_level", "admin", "metrics", "register", "listen", "extend", "limits", long} {
			value := text
			if key == "register" || key == "listen" || key == "extend" {
				value = "[" + text + "]"
			}
			_, err := LoadRelay(source(t, KindRelay, inFolder(t, KindRelay, key+": "+value+"\n"), nil, []string{"X=a\nrelay.yaml:9:9: b"}))
			if err == nil {
				t.Fatalf("%.40s: %.40s: no error", key, text)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.Contains(line, "relay.yaml") || strings.HasPrefix(line, "relay.yaml:9") || len(line) > 500 || strings.ContainsAny(line, "\x1b") {
					t.Errorf("%.40s: %.40s: got the line (%d bytes) %.200q", key, text, len(line), line)
				}
			}
		}
	}
}
