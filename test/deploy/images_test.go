package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// imageLimit is what an image may have in all, unpacked.
const imageLimit = 25_000_000

// makeImages builds the images from the source in dir, and returns what is
// printed of each archive: its name and its digest.
func makeImages(t *testing.T, dir, archs string) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.Command("go", "run", "./scripts/images", "-o", out, "-arch", archs)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	printed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(printed), out+"/", "")
}

// Two builds give the same digests, from whatever folder, whatever the files'
// times, and without git.
func TestImagesReproducible(t *testing.T) {
	first := makeImages(t, root, "amd64,arm64")
	elsewhere := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "cmd", "internal", "pkg", "scripts"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, name), elsewhere).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if second := makeImages(t, elsewhere, "amd64,arm64"); second != first {
		t.Errorf("two builds differ:\n%s\n%s", first, second)
	}
	for _, want := range []string{"culvert-amd64.tar", "culvert-arm64.tar", "culvert.tar"} {
		if !strings.Contains(first, want+" ghcr.io/culvert-net/culvert:dev sha256:") {
			t.Errorf("no %s:\n%s", want, first)
		}
	}
}

// The image's one program is static, and smaller than what an image may have.
func TestImageSize(t *testing.T) {
	file := filepath.Join(t.TempDir(), "culvert")
	build := exec.Command("go", "build", "-tags", "image", "-trimpath", "-ldflags=-s -w", "-o", file, "./cmd/culvert")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > imageLimit {
		t.Errorf("the program has %d bytes, an image may have %d", info.Size(), imageLimit)
	}
}
