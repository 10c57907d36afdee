//go:build e2e && linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Made by TestMain, read by all.
var (
	runDir string // of this run; everything a test writes lies below it
	binDir string // the built programs
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "culvert-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// The programs and servers run as another user than root, and go through here.
	if err := os.Chmod(dir, 0o755); err != nil {
		panic(err)
	}
	runDir, binDir = dir, filepath.Join(dir, "bin")
	if err := os.Mkdir(binDir, 0o755); err != nil {
		panic(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", binDir, "./cmd/...")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	printTotal()
	return max(code, stopServers())
}

// program returns the path of a built program.
func program(name string) string { return filepath.Join(binDir, name) }

// testDir makes a folder of the test's own that the unprivileged user owns. It
// is removed at the end, unless the test failed.
func testDir(t *testing.T) string {
	t.Helper()
	name := strings.NewReplacer("/", "_", " ", "_").Replace(t.Name())
	dir, err := os.MkdirTemp(runDir, name+"-")
	if err != nil {
		t.Fatal(err)
	}
	giveAway(t, dir)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
