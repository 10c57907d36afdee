package config

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func adminSource(t *testing.T, args, env []string) Source {
	t.Helper()
	fs := pflag.NewFlagSet("status", pflag.ContinueOnError)
	fs.AddFlagSet(AdminFlags())
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Source{Flags: fs, Environ: env}
}

// A flag beats a variable beats the file, which may be of any kind, and have faults
// elsewhere.
func TestLoadAdmin(t *testing.T) {
	inFolder(t, KindInlet, "")
	write(t, "inlet.yaml", "admin: 127.0.0.1:9101\nservices: [{listen: nonsense, service: a}]\n")
	write(t, "outlet.yaml", "admin: unix:///run/admin.sock\nrelays: []\n")
	write(t, "relay.yaml", "admin: localhost:${PORT}\nregister: []\n")
	write(t, "authority.yaml", "admin: 127.0.0.1:9104\nstore: s\n")
	write(t, "none.yaml", "register: []\n")
	write(t, "free.yaml", "admin: 127.0.0.1:0\nregister: []\n")
	write(t, "wide.yaml", "admin: 0.0.0.0:1\nregister: []\n")
	write(t, "unclear.yaml", "admin: 127.0.0.1:1\nlisten: [127.0.0.1:1]\n")
	write(t, "broken.yaml", "admin: [\n")
	for _, tt := range []struct {
		args, env []string
		want      string // "": an error
		fault     string // part of it
		usage     bool
	}{
		{[]string{"--config", "inlet.yaml"}, nil, "127.0.0.1:9101", "", false},
		{[]string{"--config", "outlet.yaml"}, nil, "unix:///run/admin.sock", "", false},
		{[]string{"--config", "relay.yaml"}, []string{"PORT=9103"}, "localhost:9103", "", false},
		{[]string{"--config", "authority.yaml"}, []string{"CULVERT_CONFIG=inlet.yaml"}, "127.0.0.1:9104", "", false},
		{nil, []string{"CULVERT_CONFIG=inlet.yaml"}, "127.0.0.1:9101", "", false},
		{[]string{"--config", "inlet.yaml"}, []string{"CULVERT_ADMIN=127.0.0.1:1"}, "127.0.0.1:1", "", false},
		{[]string{"--config", "inlet.yaml", "--admin", "[::1]:2"}, []string{"CULVERT_ADMIN=127.0.0.1:1"}, "[::1]:2", "", false},
		{nil, []string{"CULVERT_ADMIN= ", "CULVERT_CONFIG="}, "", "say which process is meant: --admin ADDRESS", true},
		{[]string{"--admin", "10.0.0.1:1"}, nil, "", "--admin: \"10.0.0.1:1\" can be reached from other machines", true},
		{[]string{"--admin", "127.0.0.1:0"}, nil, "", "--admin: it has port 0", true},
		{nil, []string{"CULVERT_ADMIN=nonsense"}, "", "CULVERT_ADMIN: ", false},
		{[]string{"--config", "none.yaml"}, nil, "", "none.yaml: admin: missing: the process serves no status", false},
		{[]string{"--config", "free.yaml"}, nil, "", "free.yaml: admin: it has port 0", false},
		{[]string{"--config", "wide.yaml"}, nil, "", "wide.yaml:1:8: admin: ", false},
		{[]string{"--config", "unclear.yaml"}, nil, "", "cannot tell whose settings these are", false},
		{[]string{"--config", "broken.yaml"}, nil, "", "broken.yaml", false},
		{[]string{"--config", "missing.yaml"}, nil, "", "no such file or directory: check the name", false},
		{[]string{"--config", "inlet.yaml", "--config", "relay.yaml"}, nil, "", "--config: given 2 times", false},
	} {
		got, err := LoadAdmin(adminSource(t, tt.args, tt.env))
		switch {
		case tt.want != "" && (err != nil || got != tt.want):
			t.Errorf("%q %q: %q, %v; want %q", tt.args, tt.env, got, err, tt.want)
		case tt.want == "" && (err == nil || !strings.Contains(err.Error(), tt.fault)):
			t.Errorf("%q %q: %q, %v; want %q", tt.args, tt.env, got, err, tt.fault)
		case tt.want == "" && err.(Faults).Usage() != tt.usage:
			t.Errorf("%q %q: %v is wrong usage: %v, want %v", tt.args, tt.env, err, !tt.usage, tt.usage)
		}
	}
}

// Who goes the inlet's ways needs no listen, and all else that the inlet needs.
func TestLoadInletWays(t *testing.T) {
	const service = "services:\n  - {service: orders-db, outlet: <ID>, routes: ['tcp://r:4000/<ID2>']%s}\n"
	for more, want := range map[string]string{
		"":                              "",
		", listen: nonsense":            "",
		", listen: 127.0.0.1:15432":     "",
		", lisen: 127.0.0.1:15432":      `unknown key (did you mean "listen"?)`,
		", listen: '127.0.0.1:1', x: 1": "unknown key",
	} {
		file := inFolder(t, KindInlet, "identity: a\nadmin: 127.0.0.1:1\nmetrics: 127.0.0.1:1\n"+strings.Replace(service, "%s", more, 1))
		c, err := LoadInletWays(source(t, KindInlet, file, nil, nil))
		switch {
		case want == "" && (err != nil || c.Services[0].Service != "orders-db" || len(c.Services[0].Routes) != 1):
			t.Errorf("%q: %v, %v", more, c, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", more, err, want)
		}
	}
	args := []string{"--identity", "a", "--service", "db", "--outlet", "<ID>", "--route", "tcp://r:4000/<ID2>"}
	if _, err := LoadInletWays(source(t, KindInlet, "", args, nil)); err != nil {
		t.Errorf("by flags: %v", err)
	}
	if _, err := LoadInletWays(source(t, KindInlet, "", args[:4], nil)); err == nil || strings.Contains(err.Error(), "].listen") || !strings.Contains(err.Error(), "outlet: missing") {
		t.Errorf("by too few flags: %v", err)
	}
}
