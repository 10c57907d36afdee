package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

// rows returns the rows of the table of docs/audit.md with that head.
func rows(t *testing.T, head string) (table [][]string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n"+head+"\n")
	if !ok {
		t.Fatalf("docs/audit.md has no table %s", head)
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if !strings.HasPrefix(line, "|---") {
			table = append(table, cells)
		}
	}
	return table
}

// members returns a line's members in their order.
func members(t *testing.T, b []byte) (names []string, values map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	values = map[string]any{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		values[name.(string)] = v
	}
	return names, values
}

func typeOf(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case float64:
		return "number"
	case []any:
		return "list of strings"
	}
	return fmt.Sprintf("%T", v)
}

// The documentation names all members, in their order, with their types and the
// lines that they are on.
func TestDocumentedMembers(t *testing.T) {
	full := Event{Allowed: true, Peer: Peer{Identifier: identity.Identifier{1}, Credentials: []string{"x"}}, Attributes: []string{"x"}, Duration: time.Second}
	fill(reflect.ValueOf(&full).Elem(), "x")
	for _, kind := range []Kind{Decision, End} {
		var all, always []string
		types := map[string]string{}
		for _, r := range rows(t, "| member | type | on | meaning |") {
			if len(r) != 4 {
				t.Fatalf("a row of another form: %q", r)
			}
			name := strings.Trim(r[0], "`")
			switch r[2] {
			case "always":
				always = append(always, name)
			case "both":
			case string(kind):
				always = append(always, name)
			case string(Decision), string(End):
				continue
			default:
				t.Errorf("%s is on %q", name, r[2])
			}
			all = append(all, name)
			types[name] = r[1]
		}
		full.Kind = kind
		got, values := members(t, encode(testProcess(), 1, time.Now(), &full))
		if !slices.Equal(got, all) {
			t.Errorf("a whole %s has\n%v, documented are\n%v", kind, got, all)
		}
		for name, v := range values {
			if typeOf(v) != types[name] {
				t.Errorf("%s is a %s, documented as %s", name, typeOf(v), types[name])
			}
		}
		if got, _ := members(t, encode(testProcess(), 1, time.Now(), &Event{Kind: kind})); !slices.Equal(got, always) {
			t.Errorf("an empty %s has\n%v, documented as always there are\n%v", kind, got, always)
		}
	}
}

func TestDocumentedActions(t *testing.T) {
	var got []string
	for _, r := range rows(t, "| action | by | what the peer wants |") {
		got = append(got, strings.Trim(r[0], "`"))
	}
	var want []string
	for _, a := range Actions() {
		want = append(want, string(a))
	}
	if !slices.Equal(got, want) {
		t.Errorf("documented actions\n%v, want\n%v", got, want)
	}
}

// The numbers in the text, and its example, are the code's.
func TestDocumentedFacts(t *testing.T) {
	b, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	for _, want := range []string{
		fmt.Sprintf("at most %d,%03d bytes", MaxLine/1000, MaxLine%1000), fmt.Sprintf("a queue of %d MiB", DefaultQueue>>20),
		fmt.Sprintf("within %d ms", followEvery.Milliseconds()), fmt.Sprintf("at most %d |", maxCredentials),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/audit.md does not say %q", want)
		}
	}
	if DefaultPatience != time.Second {
		t.Errorf("DefaultPatience is %s, documented as a second", DefaultPatience)
	}
	example := regexp.MustCompile(`(?m)^\{"time".*\}$`).Find(b)
	names, _ := members(t, example)
	var order []string
	for _, r := range rows(t, "| member | type | on | meaning |") {
		order = append(order, strings.Trim(r[0], "`"))
	}
	at := -1
	for _, name := range names {
		i := slices.Index(order, name)
		if i <= at {
			t.Errorf("the example has %s in another place than the table", name)
		}
		at = i
	}
}
