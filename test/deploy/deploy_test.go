package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const root = "../.."

// binaries is the folder that TestMain built the programs into.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "culvert-deploy-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir, "./cmd/...")
	build.Dir = root
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		panic("building the programs: " + err.Error())
	}
	binaries = dir
	return m.Run()
}

// script runs one of the deploy folder's scripts with the built programs in
// PATH.
func script(t *testing.T, path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "PATH="+binaries+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, out)
	}
}

// checkConfig runs `culvert check` on a configuration as it lies in a
// container: its key files are not here, its variables are env.
func checkConfig(t *testing.T, name string, config []byte, env ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, config, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(binaries, "culvert"), "check", "--no-files", file)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("culvert check --no-files %s: %v\n%s", name, err, out)
	}
}

// probe reports a fault if command is not "PROGRAM --config FILE --health" of
// the program and file that run asks for.
func probe(t *testing.T, who string, command, run []string) {
	t.Helper()
	want := append(append([]string{}, run...), "--health")
	if strings.Join(command, " ") != strings.Join(want, " ") {
		t.Errorf("%s: probe is %q, want %q", who, command, want)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDockerfile(t *testing.T) {
	var last []string
	stages := map[string]bool{}
	for line := range strings.Lines(string(read(t, filepath.Join(root, "Dockerfile")))) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if fields[0] == "FROM" {
			last = nil
			if len(fields) > 3 && strings.EqualFold(fields[len(fields)-2], "AS") {
				stages[fields[len(fields)-1]] = true
			}
		}
		last = append(last, strings.Join(fields, " "))
	}
	if !stages["build"] {
		t.Error("no stage named build, which deploy/compose runs its key maker from")
	}
	got := strings.Join(last, "\n")
	for _, want := range []string{"FROM scratch", "USER 65532:65532", "ENV PATH=/bin", "COPY --from=build /out/ /bin/"} {
		if !strings.Contains(got, want) {
			t.Errorf("the last stage lacks %q:\n%s", want, got)
		}
	}
}

// What the build stage copies is all that the programs are built from, and what it runs
// makes programs that say what they were built from.
func TestDockerfileContext(t *testing.T) {
	context := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "cmd", "internal", "pkg"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, name), context).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if ignore := read(t, filepath.Join(root, ".dockerignore")); !bytes.Contains(ignore, []byte("!"+name+"\n")) {
			t.Errorf(".dockerignore keeps %s out of the build", name)
		}
	}
	out := t.TempDir()
	_, run, ok := strings.Cut(string(read(t, filepath.Join(root, "Dockerfile"))), "\nRUN CGO_ENABLED=0")
	run, _, ends := strings.Cut(run, "\n\n")
	if !ok || !ends {
		t.Fatal("the Dockerfile runs no build")
	}
	build := exec.Command("sh", "-c", "CGO_ENABLED=0"+strings.ReplaceAll(run, "/out/", out+"/"))
	build.Dir = context
	build.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH, "VERSION=v9.8.7", "REVISION="+commit)
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building from what the Dockerfile copies: %v\n%s", err, said)
	}
	wantVersion(t, filepath.Join(out, "relay"), "relay v9.8.7 ("+commit[:12]+") ")
}

// commit stands for one.
const commit = "0123456789abcdef0123456789abcdef01234567"

// wantVersion wants a program to say what it was built from.
func wantVersion(t *testing.T, program, want string) {
	t.Helper()
	out, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%s --version: %v, %q, want %q…", program, err, out, want)
	}
}
