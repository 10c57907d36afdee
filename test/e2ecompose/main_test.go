//go:build e2e && linux

package e2ecompose

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const root = "../.."

// images are those that make-images makes, by the variable that names them to
// the demos.
var images = map[string]string{
	"CULVERT_IMAGE":       "culvert-test/culvert",
	"CULVERT_BUILD_IMAGE": "culvert-test/build",
	"POSTGRES_IMAGE":      "culvert-test/postgres",
	"MARIADB_IMAGE":       "culvert-test/mariadb",
	"REDIS_IMAGE":         "culvert-test/redis",
}

// composeCommand is how Compose is called here: "docker compose", or
// "docker-compose" where the plugin is not installed. TestMain writes it.
var composeCommand = "docker compose"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// The engine is killed when the thread that started it ends.
	runtime.LockOSThread()
	dir, err := os.MkdirTemp("", "culvert-compose-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if exec.Command("docker", "compose", "version").Run() != nil {
		composeCommand = "docker-compose"
	}
	for variable, name := range images {
		setenv(variable, name)
	}
	if exec.Command("docker", "info").Run() != nil {
		e, err := startEngine(filepath.Join(dir, "engine"))
		if err != nil {
			fmt.Fprintln(os.Stderr, "no Docker engine runs, and starting one:", err)
			return 1
		}
		defer e.stop()
		setenv("DOCKER_HOST", "unix://"+e.socket)
	} else {
		defer removeImages()
	}
	if err := makeImages(dir); err != nil {
		fmt.Fprintln(os.Stderr, "making the images:", err)
		return 1
	}
	return m.Run()
}

// setenv sets a variable for docker and Compose, which the tests start.
func setenv(name, value string) {
	if err := os.Setenv(name, value); err != nil {
		panic(err)
	}
}

// makeImages builds the programs and all images, in dir.
func makeImages(dir string) error {
	programs, work := filepath.Join(dir, "programs"), filepath.Join(dir, "images")
	for _, d := range []string{programs, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", programs, "./cmd/...")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{build, exec.Command("./make-images", programs, work)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	}
	return nil
}

// removeImages leaves an engine that ran before the tests without their images.
func removeImages() {
	for _, name := range images {
		_ = exec.Command("docker", "image", "rm", "--force", name).Run()
	}
}
