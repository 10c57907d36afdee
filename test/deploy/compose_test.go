package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeDir = root + "/deploy/compose"

// A demo is a folder of deploy/compose.
type demo struct {
	folder   string
	programs []string          // of Culvert's, by service
	others   []string          // the other services
	shares   map[string]string // whose network a service shares
	image    string            // the database's
}

var (
	one = []string{"relay", "outlet", "inlet"}
	two = []string{"relay-a", "relay-b", "outlet", "inlet"}
)

// demos is never written.
var demos = []demo{
	{"postgres", one, []string{"keys", "db", "client"}, map[string]string{"outlet": "db", "client": "inlet"}, "postgres:17-alpine"},
	{"mariadb", one, []string{"keys", "db", "client"}, map[string]string{"outlet": "db", "client": "inlet"}, "mariadb:11.4"},
	{"redis", one, []string{"keys", "db", "client"}, map[string]string{"outlet": "db", "client": "inlet"}, "redis:7-alpine"},
	{"multi-hop", two, []string{"keys", "db", "client"}, map[string]string{"client": "inlet"}, "postgres:17-alpine"},
	{"survive", two, []string{"keys", "db", "load"}, map[string]string{"outlet": "db", "load": "inlet"}, "postgres:17-alpine"},
}

// eachDemo runs a test for each demo.
func eachDemo(t *testing.T, test func(t *testing.T, d demo, p *types.Project)) {
	t.Helper()
	for _, d := range demos {
		t.Run(d.folder, func(t *testing.T) { test(t, d, d.load(t)) })
	}
}

// load loads the file as `docker compose` does: schema, references,
// interpolation, consistency.
func (d demo) load(t *testing.T, env ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(composeDir, d.folder, "compose.yaml")},
		cli.WithEnv(env), cli.WithEnvFiles(filepath.Join(composeDir, d.folder, ".env")), cli.WithDotEnv)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// kind is the program that a service runs: relay-a runs relay.
func kind(service string) string {
	name, _, _ := strings.Cut(service, "-")
	return name
}

func TestComposeDemos(t *testing.T) {
	entries, err := os.ReadDir(composeDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !slices.ContainsFunc(demos, func(d demo) bool { return d.folder == e.Name() }) {
			t.Errorf("no test knows the demo %s", e.Name())
		}
	}
}

func TestComposeServices(t *testing.T) {
	eachDemo(t, func(t *testing.T, d demo, p *types.Project) {
		got := p.ServiceNames()
		slices.Sort(got)
		want := slices.Sorted(slices.Values(slices.Concat(d.programs, d.others)))
		if !slices.Equal(got, want) {
			t.Fatalf("services: got %v, want %v", got, want)
		}
		if want := "culvert-" + d.folder; p.Name != want {
			t.Errorf("the project is %q, want %q", p.Name, want)
		}
		for _, name := range d.programs {
			wantProgram(t, name, p.Services[name])
		}
		if got := p.Services["db"].Image; got != d.image {
			t.Errorf("db: image %q, want %q", got, d.image)
		}
		for name, s := range p.Services {
			if len(s.Ports) != 0 {
				t.Errorf("%s: publishes ports", name)
			}
		}
	})
}

// wantProgram holds the rules for a service that runs one of the programs.
func wantProgram(t *testing.T, name string, s types.ServiceConfig) {
	t.Helper()
	if s.Image != "culvert" || s.Build == nil {
		t.Errorf("%s: does not run the image culvert, built here", name)
	}
	run := []string{kind(name), "--config", "/etc/culvert/config.yaml"}
	if !slices.Equal(s.Command, run) {
		t.Errorf("%s: command is %q, want %q", name, s.Command, run)
	}
	if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 || s.HealthCheck.Test[0] != "CMD" {
		t.Errorf("%s: no health check that works without a shell", name)
	} else {
		probe(t, name, s.HealthCheck.Test[1:], run)
	}
	if s.User != "" && s.User != "65532:65532" {
		t.Errorf("%s: runs as %q, not as the image's user", name, s.User)
	}
	if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
		t.Errorf("%s: writable root, capabilities or new privileges", name)
	}
	for _, v := range s.Volumes {
		if v.Type != "volume" || v.Source != name || !v.ReadOnly {
			t.Errorf("%s: mounts %s %q (read-only: %v), want its own volume only, read-only", name, v.Type, v.Source, v.ReadOnly)
		}
	}
	if d, ok := s.DependsOn["keys"]; !ok || d.Condition != types.ServiceConditionCompletedSuccessfully {
		t.Errorf("%s: does not wait for its key", name)
	}
}

// Who starts after whom, and who shares whose loopback.
func TestComposeOrder(t *testing.T) {
	eachDemo(t, func(t *testing.T, d demo, p *types.Project) {
		after := map[string][]string{"outlet": {"db"}, "inlet": {"outlet"}, d.others[2]: {"inlet"}}
		for name, wanted := range after {
			for _, other := range wanted {
				if got := p.Services[name].DependsOn[other]; got.Condition != types.ServiceConditionHealthy {
					t.Errorf("%s: does not wait for a healthy %s", name, other)
				}
			}
		}
		for name, s := range p.Services {
			want := ""
			if other := d.shares[name]; other != "" {
				want = "service:" + other
			} else if name == "keys" {
				want = "none"
			}
			if s.NetworkMode != want {
				t.Errorf("%s: network mode %q, want %q", name, s.NetworkMode, want)
			}
			for _, v := range s.Volumes {
				if _, err := os.Stat(v.Source); v.Type == "bind" && err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if d.shares["outlet"] == "db" && !strings.Contains(strings.Join(p.Services["db"].Command, " "), "127.0.0.1") {
			t.Error("db: listens on more than its loopback")
		}
	})
}

// No two neighbours but those in the picture share a network, and no network
// behind the first leads anywhere else.
func TestComposeMultiHopNetworks(t *testing.T) {
	i := slices.IndexFunc(demos, func(d demo) bool { return d.folder == "multi-hop" })
	p := demos[i].load(t)
	on := map[string][]string{}
	for name, s := range p.Services {
		for network := range s.Networks {
			on[network] = append(on[network], name)
			slices.Sort(on[network])
		}
	}
	for network, want := range map[string][]string{
		"application": {"inlet", "relay-a"}, "transit": {"relay-a", "relay-b"}, "edge": {"outlet", "relay-b"}, "database": {"db", "outlet"},
	} {
		if !slices.Equal(on[network], want) {
			t.Errorf("on %s are %v, want %v", network, on[network], want)
		}
		if internal := p.Networks[network].Internal; internal != (network != "application") {
			t.Errorf("%s: internal is %v", network, internal)
		}
	}
	if len(on) != 4 {
		t.Errorf("networks: %v, want four", on)
	}
}

// Images come from variables, for machines that reach other registries or none.
func TestComposeImageVariables(t *testing.T) {
	for _, d := range demos {
		p := d.load(t, "CULVERT_IMAGE=x/c", "CULVERT_BUILD_IMAGE=x/b", "POSTGRES_IMAGE=x/p", "MARIADB_IMAGE=x/m", "REDIS_IMAGE=x/r")
		for name, s := range p.Services {
			if !strings.HasPrefix(s.Image, "x/") {
				t.Errorf("%s: %s has the image %q whatever the variables say", d.folder, name, s.Image)
			}
		}
	}
}

// The key maker is run for real; what it writes must be what the programs take.
func TestComposeConfigs(t *testing.T) {
	for _, d := range demos {
		t.Run(d.folder, func(t *testing.T) {
			dir := t.TempDir()
			args := append([]string{filepath.Join(composeDir, d.folder), dir}, d.programs...)
			script(t, filepath.Join(composeDir, "make-config"), args...)
			first := filepath.Join(dir, d.programs[0], "identity.key")
			before := read(t, first)
			for _, name := range d.programs {
				config := read(t, filepath.Join(dir, name, "config.yaml"))
				if strings.Contains(string(config), "${") {
					t.Errorf("%s: a variable is left:\n%s", name, config)
				}
				checkConfig(t, kind(name)+".yaml", config)
				info, err := os.Stat(filepath.Join(dir, name, "identity.key"))
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode().Perm(); got != 0o600 {
					t.Errorf("%s: key has mode %v, want 0600", name, got)
				}
			}
			script(t, filepath.Join(composeDir, "make-config"), args...)
			if after := read(t, first); string(after) != string(before) {
				t.Error("a second run replaced an identity")
			}
		})
	}
}

// The mounts of the key maker must be where its script looks.
func TestComposeKeyMaker(t *testing.T) {
	eachDemo(t, func(t *testing.T, d demo, p *types.Project) {
		keys := p.Services["keys"]
		if keys.Build == nil || keys.Build.Target != "build" {
			t.Fatal("keys: does not run from the image's build stage")
		}
		if want := []string{"bash", "/make-config", "/demo", "/etc/culvert"}; !slices.Equal(keys.Entrypoint, want) {
			t.Errorf("keys: entrypoint %q, want %q", keys.Entrypoint, want)
		}
		if !slices.Equal(keys.Command, d.programs) {
			t.Errorf("keys: makes %q, want %q", keys.Command, d.programs)
		}
		got := map[string]string{}
		for _, v := range keys.Volumes {
			got[v.Target] = fmt.Sprint(v.Type, " ", filepath.Base(v.Source))
		}
		want := map[string]string{"/make-config": "bind make-config", "/demo": "bind " + d.folder}
		for _, name := range d.programs {
			want["/etc/culvert/"+name] = "volume " + name
		}
		for target, source := range want {
			if got[target] != source {
				t.Errorf("keys: %s is %q, want %q", target, got[target], source)
			}
		}
	})
}
