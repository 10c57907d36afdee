package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

// testIDs are three identifiers that stand for ID, ID2 and ID3 in the tests.
var testIDs = func() (ids [3]identity.Identifier) {
	for i := range ids {
		ids[i][0] = byte(i + 1)
	}
	return ids
}()

// fill puts identifiers in place of <ID>, <ID2> and <ID3>.
func fill(s string) string {
	return strings.NewReplacer("<ID>", testIDs[0].String(), "<ID2>", testIDs[1].String(), "<ID3>", testIDs[2].String()).Replace(s)
}

// unfill is the reverse of fill.
func unfill(s string) string {
	return strings.NewReplacer(testIDs[0].String(), "<ID>", testIDs[1].String(), "<ID2>", testIDs[2].String(), "<ID3>").Replace(s)
}

// inFolder makes an empty folder the working directory and writes a file
// there, unless its text is empty. It returns the file's name.
func inFolder(t *testing.T, kind Kind, text string) string {
	t.Helper()
	t.Chdir(t.TempDir())
	if text == "" {
		return ""
	}
	file := string(kind) + ".yaml"
	write(t, file, fill(text))
	return file
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// source makes a Source from a file's name, which may be empty, arguments and
// variables.
func source(t *testing.T, kind Kind, file string, args, env []string) Source {
	t.Helper()
	fs := Flags(kind)
	if file != "" {
		args = append([]string{"--config", file}, args...)
	}
	filled := make([]string, len(args))
	for i, a := range args {
		filled[i] = fill(a)
	}
	if err := fs.Parse(filled); err != nil {
		t.Fatalf("parsing %q: %v", args, err)
	}
	environ := make([]string, len(env))
	for i, e := range env {
		environ[i] = fill(e)
	}
	return Source{Flags: fs, Environ: environ}
}

// load loads settings of any kind.
func load(kind Kind, src Source) (any, error) {
	switch kind {
	case KindInlet:
		return LoadInlet(src)
	case KindOutlet:
		return LoadOutlet(src)
	case KindAuthority:
		return LoadAuthority(src)
	case KindWebhook:
		return LoadWebhook(src)
	}
	return LoadRelay(src)
}

func mustLoadInlet(t *testing.T, src Source) *Inlet {
	t.Helper()
	c, err := LoadInlet(src)
	if err != nil {
		t.Fatalf("LoadInlet: %v", err)
	}
	return c
}

// within fails the test if f takes long, which bounded work never does.
func within(t *testing.T, d time.Duration, what []byte, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > d {
		t.Errorf("took %v for %d bytes beginning %q", took, len(what), what[:min(len(what), 60)])
	}
}

// repeat returns s again and again, n bytes.
func repeat(s string, n int) []byte { return bytes.Repeat([]byte(s), n/len(s)) }
