package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const testName = "registry.example/culvert:dev"

func testImage(arch string) Image {
	return Image{
		Architecture: arch, User: "65532:65532", Env: []string{"PATH=/bin"}, Cmd: []string{"culvert"},
		Files: []File{
			{Path: "bin/culvert", Mode: 0o555, Body: []byte("program for " + arch)},
			{Path: "bin/relay", Link: "culvert"},
			{Path: "etc/a/b", Mode: 0o444},
		},
	}
}

func write(t testing.TB, images ...Image) (archive map[string][]byte, digest string, raw []byte) {
	t.Helper()
	var out bytes.Buffer
	digest, err := Write(&out, testName, images...)
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Clone(out.Bytes())
	archive, _ = untar(t, out.Bytes())
	return archive, digest, raw
}

// untar returns an archive's files by name, and its headers in their order.
func untar(t testing.TB, b []byte) (map[string][]byte, []*tar.Header) {
	t.Helper()
	files := map[string][]byte{}
	var headers []*tar.Header
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, h)
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func parse[T any](t testing.TB, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// blob returns what a descriptor names, whose size and digest must be true.
func blob(t testing.TB, archive map[string][]byte, d descriptor) []byte {
	t.Helper()
	b, ok := archive[blobPath(d.Digest)]
	if !ok || len(b) != d.Size || sum(b) != d.Digest {
		t.Fatalf("%s: there: %v; %d bytes of digest %s, want %d", d.Digest, ok, len(b), sum(b), d.Size)
	}
	return b
}

// rootOf follows a manifest down to the files of its image.
func rootOf(t testing.TB, archive map[string][]byte, d descriptor) (configuration, map[string][]byte, []*tar.Header) {
	t.Helper()
	m := parse[manifest](t, blob(t, archive, d))
	c := parse[configuration](t, blob(t, archive, m.Config))
	z, err := gzip.NewReader(bytes.NewReader(blob(t, archive, m.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) != 1 || !slices.Equal(c.RootFS.DiffIDs, []string{sum(plain)}) {
		t.Errorf("%d layers, diff IDs %v, want one, %s", len(m.Layers), c.RootFS.DiffIDs, sum(plain))
	}
	files, headers := untar(t, plain)
	return c, files, headers
}

func TestWriteOne(t *testing.T) {
	archive, digest, _ := write(t, testImage("arm64"))
	top := parse[index](t, archive["index.json"])
	if len(top.Manifests) != 1 || top.Manifests[0].Digest != digest || top.Manifests[0].Annotations["io.containerd.image.name"] != testName {
		t.Fatalf("index.json: %s, want one manifest, %s", archive["index.json"], digest)
	}
	c, files, headers := rootOf(t, archive, top.Manifests[0])
	if c.Architecture != "arm64" || c.Config.User != "65532:65532" || c.Created != epoch {
		t.Errorf("configuration: %+v", c)
	}
	var names []string
	for _, h := range headers {
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 || h.Mode&0o022 != 0 && h.Typeflag != tar.TypeSymlink {
			t.Errorf("%s: owner %d:%d, time %v, mode %o", h.Name, h.Uid, h.Gid, h.ModTime, h.Mode)
		}
	}
	if want := []string{"bin/", "bin/culvert", "bin/relay", "etc/", "etc/a/", "etc/a/b"}; !slices.Equal(names, want) {
		t.Errorf("files: got %v, want %v", names, want)
	}
	if got := string(files["bin/culvert"]); got != "program for arm64" {
		t.Errorf("bin/culvert: got %q", got)
	}
	docker := parse[[]loadable](t, archive["manifest.json"])
	if len(docker) != 1 || archive[docker[0].Config] == nil || archive[docker[0].Layers[0]] == nil || docker[0].RepoTags[0] != testName {
		t.Errorf("manifest.json: %+v", docker)
	}
}

func TestWriteSeveral(t *testing.T) {
	archive, digest, _ := write(t, testImage("amd64"), testImage("arm64"))
	top := parse[index](t, archive["index.json"])
	if len(top.Manifests) != 1 || top.Manifests[0].MediaType != typeIndex || top.Manifests[0].Digest != digest {
		t.Fatalf("index.json: %s", archive["index.json"])
	}
	all := parse[index](t, blob(t, archive, top.Manifests[0]))
	for i, arch := range []string{"amd64", "arm64"} {
		d := all.Manifests[i]
		if d.Platform == nil || d.Platform.Architecture != arch || d.Platform.OS != "linux" {
			t.Errorf("manifest %d: platform %+v, want linux/%s", i, d.Platform, arch)
		}
		if _, files, _ := rootOf(t, archive, d); string(files["bin/culvert"]) != "program for "+arch {
			t.Errorf("%s: holds %q", arch, files["bin/culvert"])
		}
		_, alone, _ := write(t, testImage(arch))
		if d.Digest != alone {
			t.Errorf("%s: digest %s, alone %s", arch, d.Digest, alone)
		}
	}
	if archive["manifest.json"] != nil {
		t.Error("has a manifest.json, whose one name would be two images")
	}
}

// The order in which files are named makes no difference, and what they hold does.
func TestWriteReproducible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		img := testImage("amd64")
		body := rapid.SliceOfN(rapid.Byte(), 0, 4096).Draw(t, "body")
		img.Files[2].Body = body
		var first, second, third bytes.Buffer
		digest, err := Write(&first, testName, img)
		if err != nil {
			t.Fatal(err)
		}
		img.Files = slices.Clone(img.Files)
		seed := rapid.Uint64().Draw(t, "order")
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(img.Files), func(i, j int) { img.Files[i], img.Files[j] = img.Files[j], img.Files[i] })
		if again, err := Write(&second, testName, img); err != nil || again != digest || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("got %s, %v, want the same archive again, of %s", again, err, digest)
		}
		img.Files = append(img.Files, File{Path: "other"})
		if other, err := Write(&third, testName, img); err != nil || other == digest {
			t.Fatalf("another file, and the digest is %s still, %v", other, err)
		}
	})
}

func TestWriteRefuses(t *testing.T) {
	for _, c := range []struct {
		what, name, says string
		files            []File
	}{
		{"no tag", "registry.example:5000/culvert", "has no tag", nil},
		{"empty tag", "culvert:", "has no tag", nil},
		{"up", testName, "not clean", []File{{Path: "../etc/passwd"}}},
		{"absolute", testName, "not clean", []File{{Path: "/bin/a"}}},
		{"root", testName, "not clean", []File{{Path: ""}}},
		{"twice", testName, "two files", []File{{Path: "a"}, {Path: "a"}}},
		{"file as folder", testName, "is a file and the folder", []File{{Path: "a"}, {Path: "a/b"}}},
		{"folder as file", testName, "like a folder", []File{{Path: "a/b"}, {Path: "a"}}},
	} {
		if _, err := Write(io.Discard, c.name, Image{Architecture: "amd64", Files: c.files}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error with %q", c.what, err, c.says)
		}
	}
	if _, err := Write(io.Discard, testName); err == nil {
		t.Error("no image: got no error")
	}
}

// A disk that is full is an error, wherever in the archive it is.
func TestWriteFails(t *testing.T) {
	_, _, raw := write(t, testImage("amd64"))
	for room := range len(raw) {
		if room%512 != 0 {
			continue
		}
		if _, err := Write(&full{room}, testName, testImage("amd64")); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("room for %d of %d bytes: got %v", room, len(raw), err)
		}
	}
}

type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.room {
		return f.room, io.ErrShortWrite
	}
	f.room -= len(b)
	return len(b), nil
}
