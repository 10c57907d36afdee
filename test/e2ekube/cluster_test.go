//go:build e2ekube

package e2ekube

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/image"
)

const (
	root      = "../.."
	namespace = "culvert" // the manifests' own
	patience  = 3 * time.Minute
)

// bin is the folder with the program culvert, for the overlays' scripts.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "culvert-e2ekube-")
	if err == nil {
		bin = dir
		err = prepare(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2ekube:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// prepare builds the program and the images, and loads these into the cluster.
func prepare(dir string) error {
	load := strings.Fields(os.Getenv("CULVERT_E2E_LOAD"))
	if len(load) == 0 {
		return fmt.Errorf(`CULVERT_E2E_LOAD is not set: it is the command that loads image archives into the cluster, as "kind load image-archive"`)
	}
	if _, err := output("", "kubectl", "version"); err != nil {
		return fmt.Errorf("the cluster that KUBECONFIG names cannot be asked: %w", err)
	}
	if out, err := output("", "kubectl", "get", "namespace", namespace, "--ignore-not-found", "-o", "name"); err != nil {
		return err
	} else if out != "" {
		return fmt.Errorf("the namespace %s is there already, and these tests make and delete it: kubectl delete namespace %s, or use another cluster", namespace, namespace)
	}
	arch, err := output("", "kubectl", "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.architecture}")
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"go", "build", "-o", filepath.Join(dir, "culvert"), "./cmd/culvert"},
		{"go", "run", "./scripts/images", "-o", dir, "-arch", arch, "-name", "localhost/culvert:e2e"},
	} {
		if _, err := output(root, args...); err != nil {
			return err
		}
	}
	standin := filepath.Join(dir, "standin.tar")
	if err := makeStandin(standin, arch); err != nil {
		return err
	}
	for _, archive := range []string{filepath.Join(dir, "culvert-"+arch+".tar"), standin} {
		if _, err := output("", append(load, archive)...); err != nil {
			return err
		}
	}
	return nil
}

// makeStandin makes the image that stands in for that of Postgres.
func makeStandin(archive, arch string) error {
	program := archive + ".bin"
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./standin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the stand-in: %w\n%s", err, out)
	}
	body, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	files := []image.File{{Path: "bin/postgres", Mode: 0o755, Body: body}}
	for _, name := range []string{"pg_isready", "psql", "sh"} {
		files = append(files, image.File{Path: "bin/" + name, Link: "postgres"})
	}
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = image.Write(f, "localhost/culvert-standin:e2e", image.Image{
		Architecture: arch, Env: []string{"PATH=/bin"}, Entrypoint: []string{"postgres"}, Files: files,
	})
	return err
}

// output runs a command in a folder, and returns what it prints.
func output(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// kubectl runs a command in the tests' namespace.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := output("", append([]string{"kubectl", "-n", namespace}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually waits until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %v in vain: %s", patience, what)
		}
	}
}

// An overlay is a copy of deploy/k8s in which one overlay is wrapped in what makes
// it run without a registry and without volumes.
type overlay struct {
	name, dir string
}

// The wrapping. What it puts in the place of volumes is as large as nothing.
const wrapping = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../%s]
images:
  - {name: ghcr.io/culvert-net/culvert, newName: localhost/culvert, newTag: e2e}
  - {name: postgres, newName: localhost/culvert-standin, newTag: e2e}
patches:
  - target: {kind: StatefulSet}
    patch: |
      - {op: remove, path: /spec/volumeClaimTemplates}
  - patch: |
      apiVersion: apps/v1
      kind: StatefulSet
      metadata: {name: orders-db}
      spec: {template: {spec: {volumes: [{name: data, emptyDir: {}}]}}}
%s`

const authorityStore = `  - patch: |
      apiVersion: apps/v1
      kind: StatefulSet
      metadata: {name: authority}
      spec: {template: {spec: {volumes: [{name: store, emptyDir: {}}]}}}
`

// newOverlay makes a copy of deploy/k8s and the identities that an overlay needs.
func newOverlay(t *testing.T, name string) *overlay {
	t.Helper()
	o := &overlay{name, filepath.Join(t.TempDir(), "k8s")}
	if _, err := output("", "cp", "-r", root+"/deploy/k8s", o.dir); err != nil {
		t.Fatal(err)
	}
	more := ""
	if name == "authority" {
		more = authorityStore
	}
	for _, made := range []string{"demo/identities", "authority/identities"} {
		if err := os.RemoveAll(filepath.Join(o.dir, made)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(o.dir, name, "make-identities"))
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make-identities: %v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(o.dir, "wrapped"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.dir, "wrapped", "kustomization.yaml"), fmt.Appendf(nil, wrapping, name, more), 0o644); err != nil {
		t.Fatal(err)
	}
	return o
}

// deploy applies an overlay, and deletes all of it when the test ends.
func deploy(t *testing.T, name string) *overlay {
	t.Helper()
	o := newOverlay(t, name)
	o.deploy(t)
	return o
}

// deploy applies the overlay, and deletes all of it when the test ends.
func (o *overlay) deploy(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			o.describe(t)
		}
		for _, args := range [][]string{
			{"delete", "clusterrolebinding", "culvert-authority", "--ignore-not-found"},
			{"delete", "namespace", namespace, "--timeout=3m"},
		} {
			if _, err := output("", append([]string{"kubectl"}, args...)...); err != nil {
				t.Error(err)
			}
		}
	})
	o.apply(t)
}

// apply applies the overlay as it is now.
func (o *overlay) apply(t *testing.T) {
	t.Helper()
	if _, err := output("", "kubectl", "apply", "--server-side", "-k", filepath.Join(o.dir, "wrapped")); err != nil {
		t.Fatal(err)
	}
}

// describe logs what is to be known of a test that has failed.
func (o *overlay) describe(t *testing.T) {
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "-l", "app.kubernetes.io/part-of=culvert", "--all-containers", "--prefix", "--tail=15"},
	} {
		out, err := output("", append([]string{"kubectl", "-n", namespace}, args...)...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
