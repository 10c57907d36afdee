package code

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// A row is what one place says about a code.
type row struct{ name, meaning string }

// documented returns the table of docs/protocol.md.
func documented(t *testing.T) map[Code]row {
	t.Helper()
	b, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n| code | name | meaning |\n|---|---|---|\n")
	if !ok {
		t.Fatal("docs/protocol.md has no table with the columns code, name, meaning")
	}
	rows := map[Code]row{}
	form := regexp.MustCompile(`^\| (\d+) \| ([a-z_]+) \| ([^|]+) \|$`)
	last := -1
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		m := form.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("a row of another form: %q", line)
		}
		n, err := strconv.ParseUint(m[1], 10, 16)
		if err != nil || int(n) <= last {
			t.Errorf("row %q: its code is no u16, or not above the one before: %v", line, err)
		}
		last = int(n)
		rows[Code(n)] = row{m[2], m[3]}
	}
	return rows
}

// declared returns the constants of code.go: their names as metrics would write
// them, and the comments beside them.
func declared(t *testing.T) map[Code]row {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[Code]row{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || fmt.Sprint(spec.Type) != "Code" {
			return true
		}
		number, err := strconv.ParseUint(spec.Values[0].(*ast.BasicLit).Value, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		c := Code(number)
		if old, ok := rows[c]; ok {
			t.Errorf("%s and %s are both %d", old.name, spec.Names[0], number)
		}
		rows[c] = row{snake(spec.Names[0].Name), strings.TrimSpace(spec.Comment.Text())}
		return true
	})
	return rows
}

// snake writes a constant's name as metrics have it.
func snake(name string) string {
	if name == strings.ToUpper(name) {
		return strings.ToLower(name)
	}
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		// A word of capitals is one word: TargetTLS is target_tls.
		if unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(runes[i-1]) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// The constants, their names and the table of docs/protocol.md say the same, to
// the word, and none has more than the others.
func TestTableOfTheProtocol(t *testing.T) {
	docs, constants, named := documented(t), declared(t), All()
	if len(docs) < 30 {
		t.Errorf("the table has %d rows: it was not read to its end", len(docs))
	}
	all := map[Code]bool{}
	for c := range docs {
		all[c] = true
	}
	for c := range constants {
		all[c] = true
	}
	for c := range maps.Keys(named) {
		all[c] = true
	}
	for c := range all {
		if docs[c] != constants[c] {
			t.Errorf("%d: docs/protocol.md says %q, code.go %q", c, docs[c], constants[c])
		}
		if named[c] != docs[c].name || c.String() != named[c] {
			t.Errorf("%d: String is %q, docs/protocol.md says %q", c, c, docs[c].name)
		}
	}
}

// MaxReason is what the protocol says.
func TestMaxReasonOfTheProtocol(t *testing.T) {
	b, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "A reason is UTF-8 of at most 1,024 bytes"; MaxReason != 1024 || !strings.Contains(string(b), want) {
		t.Errorf("MaxReason is %d, and docs/protocol.md should say %q", MaxReason, want)
	}
}

func TestUnknownCode(t *testing.T) {
	for c, want := range map[Code]string{7: "code_7", 15: "code_15", 95: "code_95", 65535: "code_65535"} {
		if got := c.String(); got != want {
			t.Errorf("%d: %q, want %q", c, got, want)
		}
		if c.Known() {
			t.Errorf("%d is known", c)
		}
	}
	for c := range All() {
		if !c.Known() {
			t.Errorf("%s is not known", c)
		}
	}
}

// What All returns is the caller's.
func TestAllIsACopy(t *testing.T) {
	clear(All())
	if OK.String() != "ok" || len(All()) == 0 {
		t.Error("a caller of All can change the names")
	}
}
