package deploy

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// imageLimit is what an image may have in all, unpacked.
const imageLimit = 25_000_000

// makeImages builds the images from the source in dir into the folder out, and returns
// what is printed of each archive: its name and its digest.
func makeImages(t *testing.T, dir, out string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"run", "./scripts/images", "-o", out}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	printed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(printed), out+"/", "")
}

// copySource copies what images are made from into a folder of its own, without git.
func copySource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "cmd", "internal", "pkg", "scripts"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, name), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return dir
}

// Two builds give the same digests, from whatever folder, whatever the files'
// times, and without git; and the programs say which version they are.
func TestImagesReproducible(t *testing.T) {
	args := []string{"-arch", "amd64,arm64", "-version", "v9.8.7", "-revision", commit}
	out := t.TempDir()
	first := makeImages(t, root, out, args...)
	if second := makeImages(t, copySource(t), t.TempDir(), args...); second != first {
		t.Errorf("two builds differ:\n%s\n%s", first, second)
	}
	for _, want := range []string{"culvert-amd64.tar", "culvert-arm64.tar", "culvert.tar"} {
		if !strings.Contains(first, want+" ghcr.io/culvert-net/culvert:dev sha256:") {
			t.Errorf("no %s:\n%s", want, first)
		}
	}
	wantVersion(t, unpackProgram(t, filepath.Join(out, "culvert-"+runtime.GOARCH+".tar")), "culvert v9.8.7 ("+commit[:12]+") ")
}

// Without being told, images are of the commit that the source is, which they say, as far
// as that is all that it is; two builds of it are the same. Without git they say that they do
// not know.
func TestImagesOfACommit(t *testing.T) {
	dir := copySource(t)
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgSign=false"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_COMMITTER_DATE=2026-01-02T03:04:05+02:00")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	version := func() string {
		t.Helper()
		out := t.TempDir()
		makeImages(t, dir, out, "-arch", runtime.GOARCH)
		said, err := exec.Command(unpackProgram(t, filepath.Join(out, "culvert-"+runtime.GOARCH+".tar")), "--version").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(said)
	}
	if got := version(); !strings.HasPrefix(got, "culvert (devel) ") {
		t.Errorf("without git: %q, want it to say that it does not know", got)
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "all")
	head := git("rev-parse", "HEAD")
	if got, want := version(), "culvert v0.0.0-20260102010405-"+head[:12]+" ("+head[:12]+") "; !strings.HasPrefix(got, want) {
		t.Errorf("of a commit: %q, want %q…", got, want)
	}
	git("tag", "v1.2.3")
	if got, want := version(), "culvert v1.2.3 ("+head[:12]+") "; !strings.HasPrefix(got, want) {
		t.Errorf("of a version: %q, want %q…", got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := version(), "culvert v1.2.3+dirty ("+head[:12]+") "; !strings.HasPrefix(got, want) {
		t.Errorf("of more than a version: %q, want %q…", got, want)
	}
}

// unpackProgram takes the program out of an archive of one image.
func unpackProgram(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for blobs := tar.NewReader(f); ; {
		if _, err := blobs.Next(); err != nil {
			t.Fatalf("%s: no program: %v", archive, err)
		}
		layer, err := gzip.NewReader(blobs)
		if err != nil {
			continue // another blob
		}
		for files := tar.NewReader(layer); ; {
			h, err := files.Next()
			if err != nil {
				break
			}
			if h.Name != "bin/culvert" {
				continue
			}
			program := filepath.Join(t.TempDir(), "culvert")
			b, err := io.ReadAll(files)
			if err == nil {
				err = os.WriteFile(program, b, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			return program
		}
	}
}

// The image's one program is static, and smaller than what an image may have.
func TestImageSize(t *testing.T) {
	file := filepath.Join(t.TempDir(), "culvert")
	build := exec.Command("go", "build", "-tags", "image", "-trimpath", "-gcflags=github.com/antlr4-go/antlr/v4=-l", "-ldflags=-s -w", "-o", file, "./cmd/culvert")
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
