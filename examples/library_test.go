package examples

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a reader of docs/library.md meets: programs, which begin with the file that they are
// and "package main"; imports; and fragments, which stand in a func whose parameters the
// comment above says:
//
//	<!-- with: NAME TYPE, … -->
var (
	goFence      = regexp.MustCompile("(?s)(?:<!-- with: ([^\n]*) -->\n)?```go\n(.*?)```")
	shFence      = regexp.MustCompile("(?s)```sh\n(.*?)```")
	programStart = regexp.MustCompile(`^// (([a-z]+)/main\.go)\npackage main\n`)
	goRun        = regexp.MustCompile(`^go run \./([a-z]+)( &)?(?: +# (.*))?$`)
)

// fragmentImports are what fragments may use.
var fragmentImports = []string{
	"context", "encoding/json", "fmt", "net/http",
	"github.com/culvert-net/culvert", "github.com/culvert-net/culvert/pkg/channel",
	"github.com/culvert-net/culvert/pkg/identity", "github.com/culvert-net/culvert/pkg/node",
}

// A library is what docs/library.md has.
type library struct {
	programs  map[string]string // by their files
	fragments []fragment
	runs      []string // lines of its sh fences
}

type fragment struct{ with, text string }

func readLibrary(t *testing.T) library {
	t.Helper()
	text, err := os.ReadFile("../docs/library.md")
	if err != nil {
		t.Fatal(err)
	}
	l := library{programs: map[string]string{}}
	for _, m := range goFence.FindAllStringSubmatch(string(text), -1) {
		switch at := programStart.FindStringSubmatch(m[2]); {
		case at != nil:
			l.programs[at[1]] = m[2]
		case strings.HasPrefix(m[2], "import "):
			l.fragments = append(l.fragments, fragment{text: `_ = 0 // ` + m[2]})
			if !importsKnown(m[2]) {
				t.Errorf("the fragments do not import %s", m[2])
			}
		default:
			l.fragments = append(l.fragments, fragment{m[1], m[2]})
		}
	}
	for _, m := range shFence.FindAllStringSubmatch(string(text), -1) {
		l.runs = append(l.runs, strings.Split(strings.TrimSpace(m[1]), "\n")...)
	}
	if len(l.programs) < 4 || len(l.fragments) < 7 {
		t.Fatalf("docs/library.md has %d programs and %d fragments", len(l.programs), len(l.fragments))
	}
	return l
}

func importsKnown(line string) bool {
	for _, path := range fragmentImports {
		if strings.TrimSpace(line) == fmt.Sprintf("import %q", path) {
			return true
		}
	}
	return false
}

// TestLibraryFragments: each fragment of docs/library.md compiles, within a func.
func TestLibraryFragments(t *testing.T) {
	l := readLibrary(t)
	exports := exportsOf(t, fragmentImports)
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, f := range l.fragments {
		var src strings.Builder
		src.WriteString("package fragments\nimport (\n")
		for _, path := range fragmentImports {
			fmt.Fprintf(&src, "%q\n", path)
		}
		fmt.Fprintf(&src, ")\nfunc _(%s) error {\n%s\nreturn nil\n}\n", f.with, f.text)
		file, err := parser.ParseFile(fset, "library.md", src.String(), parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%v, in:\n%s", err, f.text)
			continue
		}
		cfg := types.Config{
			Importer: imports,
			Error: func(err error) {
				var te types.Error
				if errors.As(err, &te) && !te.Soft { // soft: something is declared, and its use left to the reader
					t.Errorf("%v, in:\n%s", te, f.text)
				}
			},
		}
		_, _ = cfg.Check("fragments", fset, []*ast.File{file}, nil) // Error has heard
	}
}

// exportsOf returns the files with what the compiler says of packages and all that they
// import.
func exportsOf(t *testing.T, paths []string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, paths...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return files
}

// TestLibraryPrograms: the programs of docs/library.md build in a module of their own, and
// print what stands beside their command lines.
func TestLibraryPrograms(t *testing.T) {
	l := readLibrary(t)
	dir := tour(t, l.programs)
	ran := 0
	for i, line := range l.runs {
		m := goRun.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		ran++
		p := startProgram(t, buildIn(t, dir, m[1]))
		if m[2] != "" { // it stays
			p.line() // when it is there
			continue
		}
		if m[3] != "" {
			p.want(m[3])
		}
		for _, more := range l.runs[i+1:] {
			text, ok := strings.CutPrefix(more, "# ")
			if !ok {
				break
			}
			p.want(text)
		}
		p.ends()
	}
	if ran != len(l.programs) {
		t.Errorf("%d programs were run, of %d", ran, len(l.programs))
	}
}

// tour makes the module of a reader with a clone of this one, and returns its folder.
func tour(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod") // with the versions that go get would find
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/culvert-net/culvert"
	files := map[string]string{
		"go.mod": strings.Replace(string(mod), "module "+module, "module tour", 1) +
			fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %s\n", module, module, root),
		"go.sum": string(sum),
	}
	at := freeAddr(t)
	for name, text := range programs {
		files[name] = strings.ReplaceAll(text, "127.0.0.1:4000", at)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// buildIn builds a program of the module in dir, and returns where it is.
func buildIn(t *testing.T, dir, name string) string {
	t.Helper()
	out := filepath.Join(dir, name+".bin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", out, "./"+name)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, b)
	}
	return out
}
