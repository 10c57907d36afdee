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

// loadCompose loads the file as `docker compose` does: schema, references,
// interpolation, consistency.
func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(composeDir, "compose.yaml")}, cli.WithEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeServices(t *testing.T) {
	project := loadCompose(t)
	got := project.ServiceNames()
	slices.Sort(got)
	want := []string{"client", "db", "inlet", "keys", "outlet", "relay"}
	if !slices.Equal(got, want) {
		t.Fatalf("services: got %v, want %v", got, want)
	}
	for _, name := range []string{"relay", "outlet", "inlet"} {
		s := project.Services[name]
		if s.Image != "culvert" || s.Build == nil {
			t.Errorf("%s: does not run the image culvert, built here", name)
		}
		run := []string{name, "--config", "/etc/culvert/" + name + ".yaml"}
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
		if len(s.Ports) != 0 {
			t.Errorf("%s: publishes ports", name)
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
}

func TestComposeLoopbacks(t *testing.T) {
	project := loadCompose(t)
	for name, want := range map[string]string{"outlet": "service:db", "client": "service:inlet"} {
		if got := project.Services[name].NetworkMode; got != want {
			t.Errorf("%s: network mode %q, want %q", name, got, want)
		}
	}
	if !slices.Contains(project.Services["db"].Command, "listen_addresses=127.0.0.1") {
		t.Error("db: Postgres listens on more than its loopback")
	}
	if got, ok := project.Services["client"].DependsOn["inlet"]; !ok || got.Condition != types.ServiceConditionHealthy {
		t.Error("client: does not wait for a healthy inlet")
	}
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			if v.Type != "bind" {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// The key maker is run for real; what it writes must be what the programs take.
func TestComposeConfigs(t *testing.T) {
	dir := t.TempDir()
	script(t, filepath.Join(composeDir, "make-config"), dir)
	before := read(t, filepath.Join(dir, "relay", "identity.key"))
	for _, name := range []string{"relay", "outlet", "inlet"} {
		config := read(t, filepath.Join(dir, name, name+".yaml"))
		if strings.Contains(string(config), "${") {
			t.Errorf("%s.yaml: a variable is left:\n%s", name, config)
		}
		checkConfig(t, name+".yaml", config)
		info, err := os.Stat(filepath.Join(dir, name, "identity.key"))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s: key has mode %v, want 0600", name, got)
		}
	}
	script(t, filepath.Join(composeDir, "make-config"), dir)
	if after := read(t, filepath.Join(dir, "relay", "identity.key")); string(after) != string(before) {
		t.Error("a second run replaced an identity")
	}
}

// The bind mount and volumes of the key maker must be where its script looks.
func TestComposeKeyMaker(t *testing.T) {
	keys := loadCompose(t).Services["keys"]
	if keys.Build == nil || keys.Build.Target != "build" {
		t.Fatal("keys: does not run from the image's build stage")
	}
	if keys.NetworkMode != "none" {
		t.Errorf("keys: network mode %q, want none", keys.NetworkMode)
	}
	got := map[string]string{}
	for _, v := range keys.Volumes {
		got[v.Target] = fmt.Sprint(v.Type, " ", v.Source)
	}
	for _, name := range []string{"relay", "outlet", "inlet"} {
		if got["/etc/culvert/"+name] != "volume "+name {
			t.Errorf("keys: /etc/culvert/%s is %q, want the volume %s", name, got["/etc/culvert/"+name], name)
		}
	}
}
