package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// tree makes files under a folder of its own, and links where the text says "-> TARGET".
func tree(t *testing.T, entries ...string) (root string, d disk) {
	t.Helper()
	root = t.TempDir()
	for _, e := range entries {
		path, target, link := strings.Cut(e, " -> ")
		path = filepath.Join(root, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil && link {
			err = os.Symlink(target, path)
		} else if err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Paths begin at that folder, so that depths are those of a real system.
	under := func(path string) string { return filepath.Join(root, path) }
	return root, disk{
		lstat:    func(path string) (fs.FileInfo, error) { return os.Lstat(under(path)) },
		readlink: func(path string) (string, error) { return os.Readlink(under(path)) },
		mounted:  func(path string) bool { return strings.HasSuffix(path, ".mounted") },
	}
}

func TestHolders(t *testing.T) {
	_, d := tree(t,
		"etc/culvert/inlet.yaml", "etc/culvert.yaml", "inlet.key",
		// As Kubernetes mounts a ConfigMap.
		"mnt/config/..1/outlet.yaml", "mnt/config/..data -> ..1", "mnt/config/outlet.yaml -> ..data/outlet.yaml",
		"etc/culvert/linked.yaml -> ../../mnt/config/outlet.yaml",
		"run/culvert/key", "var/run -> ../run", "srv/a/b/key", "srv/current -> /srv/a",
		"etc/culvert/loop -> loop", "etc/culvert/dangling -> /srv/new/key",
		"etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf", "run/systemd/resolve/stub-resolv.conf",
	)
	for path, want := range map[string][]string{
		"/etc/culvert/inlet.yaml":            {"/etc/culvert"},
		"/etc/culvert.yaml":                  {"/etc"},
		"/inlet.key":                         {"/inlet.key"}, // not all there is
		"/mnt/config/outlet.yaml":            {"/mnt/config", "/mnt/config", "/mnt/config/..1"},
		"/etc/culvert/linked.yaml":           {"/etc/culvert", "/mnt/config", "/mnt/config", "/mnt/config/..1"},
		"/var/run/culvert/key":               {"/run/culvert"}, // and not /var
		"/srv/current/b/key":                 {"/srv/a/b"},
		"/etc/culvert/../culvert/inlet.yaml": {"/etc/culvert"},
		"/etc/culvert/not-there":             {"/etc/culvert"},
		"/etc/not-there/key":                 nil,
		"/etc/culvert/loop":                  slices.Repeat([]string{"/etc/culvert"}, maxLinks),
		"/etc/culvert/dangling":              {"/etc/culvert"},
		"/etc/resolv.conf":                   {"/etc", "/run/systemd/resolve"},
	} {
		if got := d.holders(path); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if got, want := systemDisk().holders("/dev/null"), []string{"/dev/null"}; !slices.Equal(got, want) {
		t.Errorf("a device: %q, want it alone", got)
	}
}

// Wherever links lead, a file's holders are never the root, and one of them holds the
// file.
func TestHoldersOfAnyTree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "..data", "c"})
		path := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(name, 1, 4).Draw(t, "names"), "/") })
		root, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(0, 8).Draw(rt, "entries") {
			at := filepath.Join(root, path.Draw(rt, "at"))
			if os.MkdirAll(filepath.Dir(at), 0o755) != nil {
				continue // a file stands in the way
			}
			if rapid.Bool().Draw(rt, "link") {
				_ = os.Symlink(filepath.Join(root, path.Draw(rt, "target")), at)
			} else {
				_ = os.WriteFile(at, nil, 0o600)
			}
		}
		file := filepath.Join(root, path.Draw(rt, "file"))
		holders := systemDisk().holders(file)
		if slices.Contains(holders, "/") {
			rt.Fatalf("%s: the root is among %q", file, holders)
		}
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			return
		}
		actual, err := filepath.EvalSymlinks(file)
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.Contains(holders, filepath.Dir(actual)) {
			rt.Errorf("%s is %s, which none of %q holds", file, actual, holders)
		}
	})
}

func TestGrantsOfTheResolver(t *testing.T) {
	reads := func(d disk, names bool) (paths []string) {
		for _, g := range (&Files{Names: names}).grants(d) {
			if g.use != useRead {
				t.Errorf("%s can be written", g.path)
			}
			paths = append(paths, g.path)
		}
		return paths
	}
	_, plain := tree(t, "etc/resolv.conf")
	_, linked := tree(t, "etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf", "run/systemd/resolve/stub-resolv.conf")
	mounted := plain
	mounted.mounted = func(string) bool { return true }
	for name, tt := range map[string]struct {
		d     disk
		names bool
		etc   bool
	}{
		"a plain file, replaced by others":        {plain, true, true},
		"a plain file, and nothing to look up":    {plain, false, false},
		"a link, which leads to what is replaced": {linked, true, false},
		"mounted, as in a container":              {mounted, true, false},
	} {
		got := reads(tt.d, tt.names)
		if slices.Contains(got, "/etc") != tt.etc {
			t.Errorf("%s: %q, want /etc as a whole: %v", name, got, tt.etc)
		}
		if is, want := (&Files{Names: tt.names}).resolves(tt.d), tt.names || name != "a plain file, and nothing to look up"; is != want {
			t.Errorf("%s: what takes its place can be read: %v, want %v", name, is, want)
		}
		if !slices.Contains(got, resolverConfig) {
			t.Errorf("%s: %q has no %s", name, got, resolverConfig)
		}
	}
	if got := reads(linked, true); !slices.Contains(got, "/run/systemd/resolve") {
		t.Errorf("%q has not where the link leads", got)
	}
}
