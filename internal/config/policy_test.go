package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/policy"
)

// outletWith is an outlet's file whose policy is written as given.
func outletWith(allow string) string {
	return "identity: a\nlisten: [0.0.0.0:4001]\nservices:\n  - name: db\n    target: a:1\n    allow: " + allow + "\n"
}

// An expression stands in any of YAML's forms, with variables expanded.
func TestExpressions(t *testing.T) {
	const want = `peer.attr.role == "api" && service == 'db'`
	for _, text := range []string{
		want,
		`'peer.attr.role == "api" && service == ''db'''`,
		`"peer.attr.role == \"api\" && service == 'db'"`,
		"|\n      " + want,
		">-\n      peer.attr.role == \"api\"\n      && service == 'db'",
		"peer.attr.role == \"api\"\n      && service == 'db'",
		`peer.attr.role == "${ROLE}" && service == 'db'`,
	} {
		c, err := LoadOutlet(source(t, KindOutlet, inFolder(t, KindOutlet, outletWith(text)), nil, []string{"ROLE=api"}))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.Services[0].Allow.Expression(); got != want {
			t.Errorf("%s: got %q", text, got)
		}
	}
}

func TestRelayPolicies(t *testing.T) {
	file := inFolder(t, KindRelay, `identity: a
listen: [0.0.0.0:4000]
register: [<ID>]
connect: peer.attr.role in ["api", "web"]
extend: {to: ["tcp://b:4000"], allow: 'peer.attr.role == "relay" && to.startsWith("b:")'}
`)
	c, err := LoadRelay(source(t, KindRelay, file, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.Register, policy.List(testIDs[0])) || c.Connect.Expression() != `peer.attr.role in ["api", "web"]` {
		t.Errorf("register %v, connect %q", c.Register.IDs(), c.Connect.Expression())
	}
	if got := c.Extend; len(got.To) != 1 || got.To[0] != (Address{Host: "b", Port: 4000}) || !got.Allow.Uses("to") {
		t.Errorf("extend: %+v", got)
	}
}

// extend has three forms, and what is in none of them is refused.
func TestExtendForms(t *testing.T) {
	for text, want := range map[string]struct {
		to    int
		allow string // an expression, "list" or "" for none
	}{
		`[b:4000, "tcp://c:4000"]`:               {2, ""},
		`{to: ["b:4000"], allow: [<ID>]}`:        {1, "list"},
		`{to: ["b:4000"]}`:                       {1, ""},
		`{to: ["b:4000"], allow: 'true'}`:        {1, "true"},
		`to == "b:4000" && peer.attr.role != ""`: {0, `to == "b:4000" && peer.attr.role != ""`},
		`[]`:                                     {0, ""},
	} {
		file := inFolder(t, KindRelay, "identity: a\nlisten: [0.0.0.0:4000]\nconnect: [<ID>]\nextend: "+text+"\n")
		c, err := LoadRelay(source(t, KindRelay, file, nil, nil))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		allow := c.Extend.Allow.Expression()
		if c.Extend.Allow.IDs() != nil {
			allow = "list"
		}
		if len(c.Extend.To) != want.to || allow != want.allow {
			t.Errorf("%s: got %d addresses and %q, want %d and %q", text, len(c.Extend.To), allow, want.to, want.allow)
		}
	}
}

// Flags and variables take an expression in the place of identifiers.
func TestExpressionFlags(t *testing.T) {
	t.Run("flag", func(t *testing.T) {
		c, err := LoadOutlet(source(t, KindOutlet, "", []string{"--identity", "a", "--listen", "127.0.0.1:1", "--service", "db=a:1", "--service", "other=a:2", "--allow", `service == "db"`}, nil))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.Services {
			if s.Allow.Expression() != `service == "db"` {
				t.Errorf("%s: %q", s.Name, s.Allow.Expression())
			}
		}
	})
	for text, want := range map[string]struct {
		expression string
		ids        int
	}{
		`peer.attr.role == "x"`: {`peer.attr.role == "x"`, 0},
		`true`:                  {`true`, 0},
		"<ID> <ID2>":            {"", 2},
		"<ID>\n<ID2>":           {"", 2},
	} {
		c, err := LoadRelay(source(t, KindRelay, "", []string{"--identity", "a", "--listen", "127.0.0.1:1"}, []string{"CULVERT_CONNECT=" + text}))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if c.Connect.Expression() != want.expression || len(c.Connect.IDs()) != want.ids {
			t.Errorf("%q: got %q and %d identifiers", text, c.Connect.Expression(), len(c.Connect.IDs()))
		}
	}
}

func TestPolicyFaults(t *testing.T) {
	const known = "there are peer.id, peer.attr, action, now"
	testFaults(t, []faultCase{
		{
			name: "plain", kind: KindOutlet,
			file: outletWith(`peer.attr.role == api`),
			want: `
outlet.yaml:6:30: services[0].allow: "api" is not known here: ` + known + `, service; a text stands in quotes
    peer.attr.role == api
                      ^`,
		},
		{
			name: "single quotes", kind: KindOutlet,
			file: outletWith(`'service == ''a'' && x'`),
			want: `
outlet.yaml:6:33: services[0].allow: "x" is not known here: ` + known + `, service; a text stands in quotes
    service == 'a' && x
                      ^`,
		},
		{
			name: "double quotes", kind: KindOutlet,
			file: outletWith(`"service == \"ä\" && x"`),
			want: `
outlet.yaml:6:33: services[0].allow: "x" is not known here: ` + known + `, service; a text stands in quotes
    service == "ä" && x
                      ^`,
		},
		{
			name: "an escape that is not followed", kind: KindOutlet,
			file: outletWith(`"service == \"\u00e4\" && x"`),
			want: `
outlet.yaml:6:12: services[0].allow: "x" is not known here: ` + known + `, service; a text stands in quotes
    service == "ä" && x
                      ^`,
		},
		{
			name: "literal block", kind: KindOutlet,
			file: outletWith("|\n      service == \"a\" &&\n      x && y"),
			want: `
outlet.yaml:8:7: services[0].allow: "x" is not known here: ` + known + `, service; a text stands in quotes
    x && y
    ^
outlet.yaml:8:12: services[0].allow: "y" is not known here: ` + known + `, service; a text stands in quotes
    x && y
         ^`,
		},
		{
			name: "folded block", kind: KindOutlet,
			file: outletWith(">-\n      service == \"a\"\n      && x"),
			want: `
outlet.yaml:8:10: services[0].allow: "x" is not known here: ` + known + `, service; a text stands in quotes
    service == "a" && x
                      ^`,
		},
		{
			name: "variables", kind: KindOutlet, env: []string{"ROLE=a long role"},
			file: outletWith(`peer.attr.role == "${ROLE}" && peer.attr.cost != "$$" && x`),
			want: `
outlet.yaml:6:69: services[0].allow: "x" is not known here: ` + known + `, service; a text stands in quotes
    peer.attr.role == "a long role" && peer.attr.cost != "$" && x
                                                                ^`,
		},
		{
			name: "a variable of another place", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: to == "a:1"
connect: service == "db"
extend: peer.attr.role == "x"
`,
			want: `
relay.yaml:3:11: register: to has no meaning for register: it is where a relay carries a caller on to, which its extend decides about; ` + known + `
    to == "a:1"
    ^
relay.yaml:4:10: connect: service has no meaning for connect: it is the service of a stream, which an outlet's allow decides about; ` + known + `, target
    service == "db"
    ^
relay.yaml:5:9: extend: whoever this is true for would be carried on to any address: say where, as in 'to == "relay-b:4000" && …', or list the addresses under to and write this under allow`,
		},
		{
			name: "not a policy", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: true
connect: inlet.key
extend: b:4000
`,
			want: `
relay.yaml:3:11: register: want a list of identifiers, or an expression, not a boolean: write it in quotes, "true", if it is meant
relay.yaml:4:10: connect: identifier has '.' at position 6: only a to z and 2 to 7 can occur: want the identifier, which "culvert identity show inlet.key" prints
relay.yaml:5:9: extend: want a list of addresses, not text: write it as [a, b] or in lines that begin with a dash; or keys to and allow; or an expression over peer and to`,
		},
		{
			name: "sections", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: {to: []}
extend: {too: ["b:4"], allow: 5}
`,
			want: `
relay.yaml:3:11: register: want a list of identifiers, or an expression, not a section
relay.yaml:4:10: extend.too: unknown key (did you mean "to"?)
relay.yaml:4:31: extend.allow: want a list of identifiers, or an expression, not a number`,
		},
		{
			name: "addresses without callers", kind: KindRelay,
			file: "identity: a\nlisten: [0.0.0.0:4000]\nextend: {to: [\"b:4000\"]}\n",
			want: `relay.yaml:3:9: extend: ` + carriesNobody,
		},
		{
			name: "an expression among identifiers", kind: KindOutlet,
			file: outletWith(`[<ID>, 'service == "db"']`),
			want: `outlet.yaml:6:67: services[0].allow[1]: an expression stands alone, not in a list: write 'peer.id in ["IDENTIFIER"] || …' for both`,
		},
		{
			name: "flags", kind: KindRelay,
			args: []string{"--identity", "a", "--listen", "127.0.0.1:1", "--register", "service == 1", "--connect", "<ID>", "--connect", "peer.id == ''"},
			want: `
--register: == cannot be applied to (string, int)
    service == 1
            ^
--connect: value 2 of 2: an expression stands alone, not in a list: write 'peer.id in ["IDENTIFIER"] || …' for both`,
		},
	})
}

// A fault of an expression is a line with its place, and two that are indented:
// nothing in a file can look like a line of ours.
func TestExpressionErrorsAreLines(t *testing.T) {
	for _, text := range []string{
		`"service == x\noutlet.yaml:9:9: b"`, `"\u001b[2J == service"`, `"service ==\u0085 x"`, "'" + strings.Repeat("x.", 2000) + "'", `"a\u2028b == c"`,
	} {
		_, err := LoadOutlet(source(t, KindOutlet, inFolder(t, KindOutlet, outletWith(text)), nil, nil))
		if err == nil {
			t.Fatalf("%.40s: no error", text)
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, "outlet.yaml:6:") && !strings.HasPrefix(line, "    ") || len(line) > 600 || strings.ContainsAny(line, "\x1b\u2028\u0085") {
				t.Errorf("%.40s: got the line (%d bytes) %.200q", text, len(line), line)
			}
		}
	}
}

// What docs/policy.md shows can be used.
func TestPolicyDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("INLET-A", "<ID>", "INLET-B", "<ID2>").Replace(string(b))
	n := 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1) {
		for example := range strings.SplitSeq(m[1], "\n\n") {
			n++
			kind, file := KindOutlet, "identity: a\nlisten: [0.0.0.0:4001]\n"
			switch {
			case strings.Contains(example, "services:"):
				file += example
			case strings.Contains(example, "allow:") && !strings.Contains(example, "extend:"):
				file += "services:\n  - name: db\n    target: a:1\n    " + strings.ReplaceAll(example, "\n", "\n    ")
			case strings.Contains(example, "connect:"):
				kind, file = KindRelay, file+example
			default:
				kind, file = KindRelay, file+"connect: [<ID>]\n"+example
			}
			if _, err := load(kind, source(t, kind, inFolder(t, kind, file+"\n"), nil, nil)); err != nil {
				t.Errorf("%s\n%v", file, err)
			}
		}
	}
	if n < 10 {
		t.Errorf("found %d examples", n)
	}
}
