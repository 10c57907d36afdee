package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const units = root + "/deploy/systemd"

// mostExposed is what systemd-analyze may say of a unit, in tenths: 0 is locked in, 100
// open.
const mostExposed = "20"

// systemdAnalyze runs it, and returns what it prints.
func systemdAnalyze(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestUnits holds that systemd takes each unit as it is, without a word, and that each
// service is locked in.
func TestUnits(t *testing.T) {
	files, err := filepath.Glob(units + "/culvert-*")
	if err != nil || len(files) < 5 {
		t.Fatalf("units: %q, %v", files, err)
	}
	dir := t.TempDir()
	var instances []string
	for _, file := range files {
		// With the programs where they have been built, and as an instance.
		name := strings.Replace(filepath.Base(file), "@.", "@test.", 1)
		text := strings.ReplaceAll(string(read(t, file)), "/usr/local/bin/", binaries+"/")
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		instances = append(instances, at)
		if strings.HasSuffix(name, ".service") {
			systemdAnalyze(t, "security", "--offline=true", "--no-pager", "--threshold="+mostExposed, at)
		}
	}
	if out := systemdAnalyze(t, append([]string{"verify", "--man=no"}, instances...)...); strings.Contains(out, dir) || strings.Contains(out, "culvert") {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
}

var settingsBlock = regexp.MustCompile("(?s)<!-- test:settings (\\w+) -->\n```yaml\n(.*?)```")

// The settings in the README are good ones, and the inlet listens where its socket
// does.
func TestUnitsReadme(t *testing.T) {
	blocks := settingsBlock.FindAllStringSubmatch(string(read(t, units+"/README.md")), -1)
	if len(blocks) != 4 {
		t.Fatalf("%d settings in the README, want one of each kind", len(blocks))
	}
	var env []string
	for _, name := range []string{"INLET", "OUTLET", "RELAY", "AUTHORITY"} {
		file := filepath.Join(t.TempDir(), name)
		out, err := exec.Command(filepath.Join(binaries, "culvert"), "identity", "new", "-o", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Fields(string(out))
		env = append(env, name+"="+lines[len(lines)-1])
	}
	for _, b := range blocks {
		checkConfig(t, b[1]+".yaml", []byte(b[2]), env...)
		if b[1] != "inlet" {
			continue
		}
		listen := regexp.MustCompile(`listen: tcp://(\S+)`).FindStringSubmatch(b[2])
		if socket := string(read(t, units+"/culvert-inlet@.socket")); listen == nil || !strings.Contains(socket, "\nListenStream="+listen[1]+"\n") {
			t.Errorf("the inlet listens at %q, and its socket elsewhere:\n%s", listen, socket)
		}
	}
}

// What a unit's Environment= says every user of the machine can read: no secret is
// proposed for it, here or in the README.
func TestUnitsShowNoSecrets(t *testing.T) {
	files, err := filepath.Glob(units + "/*")
	if err != nil || len(files) < 6 {
		t.Fatalf("files: %q, %v", files, err)
	}
	secret := regexp.MustCompile(`(?m)^.*(?:CULVERT_TICKET\b|_TOKEN=).*$`)
	for _, file := range files {
		if line := secret.FindString(string(read(t, file))); line != "" {
			t.Errorf("%s proposes a secret for all to read: %s", file, line)
		}
	}
}

// Each unit has a folder for its unix sockets, through which others can pass.
func TestUnitsHaveAFolderForSockets(t *testing.T) {
	files, err := filepath.Glob(units + "/*.service")
	if err != nil || len(files) != 4 {
		t.Fatalf("units: %q, %v", files, err)
	}
	for _, file := range files {
		text := string(read(t, file))
		state := regexp.MustCompile(`(?m)^StateDirectory=(.*)$`).FindStringSubmatch(text)
		if state == nil || !strings.Contains(text, "\nRuntimeDirectory="+state[1]+"\nRuntimeDirectoryMode=0755\n") {
			t.Errorf("%s has no folder of its own in /run", file)
		}
	}
}
