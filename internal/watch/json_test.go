package watch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

// What could make a terminal do something, or is no UTF-8, is not printed as it is, and
// what is printed says the same.
func TestIndent(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":[1,{"b":null}],"c":[]}`: "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ],\n  \"c\": []\n}\n",
		"  7 \n":                      "7\n",
		`"\u001b]0;x\u0007"`:          `"\u001b]0;x\u0007"` + "\n",
		"\"\u009b2J\"":                `"\u009b2J"` + "\n",
		"\"\u202eab\u2028\"":          `"\u202eab\u2028"` + "\n",
		"\"\x7f\"":                    `"\u007f"` + "\n",
		"\"\U000e0041é→😀\"":           `"\udb40\udc41é→😀"` + "\n",
		"\"\xff\xc2\"":                `"\ufffd\ufffd"` + "\n",
		"\x1b[2J":                     `"\u001b[2J"` + "\n",
	} {
		if got := string(Indent([]byte(in))); got != want {
			t.Errorf("%q is printed as %q, want %q", in, got, want)
		}
	}
}

func FuzzIndent(f *testing.F) {
	for _, s := range []string{`{"a": [1, "\u001b"]}`, "\"\u009b\"", "\"\xff\"", `"\\"`, inletStatus, "{", "\x1b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out := Indent(b)
		var got, want any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q is printed as %q, which is no JSON: %v", b, out, err)
		}
		if json.Unmarshal(b, &want) == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q is printed as %q", b, out)
		}
		if i := bytes.IndexFunc(out, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q is printed as %q, with %q", b, out, out[i:])
		}
	})
}

// An answer that is small on its way and large in memory, or on a terminal, is refused
// before it is there.
func TestAnswersThatExplode(t *testing.T) {
	for name, answer := range map[string]string{
		"streams of nothing":   `{"streams":[` + strings.Repeat("{},", maxObjects) + `{}]}`,
		"members of all names": "{" + strings.Repeat(`"":{},`, maxObjects) + `"":{}}`,
		"routes in a channel":  `{"channels":[{"routes":[` + strings.Repeat("{},", maxObjects) + `{}]}]}`,
		"texts of nothing":     `{"listen":[` + strings.Repeat(`"",`, maxValues) + `""]}`,
		"lists of nothing":     `{"listen":[` + strings.Repeat(`[],`, maxValues/2) + `[]]}`,
		"depth":                `{"channels":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + "}",
	} {
		t.Run(name, func(t *testing.T) {
			c := NewClient(serve(t, "tcp", "127.0.0.1:0", map[string]func(http.ResponseWriter, *http.Request){
				"/status": saying(http.StatusOK, answer), "/readyz": saying(http.StatusOK, answer[:min(len(answer), 10)]),
			}))
			defer c.Close()
			if _, err := c.Raw(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "more in it than") {
				t.Errorf("got %v, want that it is too much", err)
			}
		})
	}
	// As much as a process can answer, and texts that look like more.
	var b strings.Builder
	b.WriteString(`{"registrations":[`)
	for i := range 100_000 {
		fmt.Fprintf(&b, `{"identifier":%q,"remote":"\"{[{[,,,\\","spares":2,"since":"2026-01-01T00:00:00Z"},`, fmt.Sprint(i))
	}
	b.WriteString(`{}]}`)
	if err := checkJSON([]byte(b.String())); err != nil {
		t.Errorf("100,000 registrations: %v", err)
	}
	if err := checkJSON([]byte(`"` + strings.Repeat("{[,", maxValues) + `"`)); err != nil {
		t.Errorf("a text: %v", err)
	}
}

// One who is busy says so, and not more than can be shown.
func TestBusy(t *testing.T) {
	c := NewClient(serve(t, "tcp", "127.0.0.1:0", map[string]func(http.ResponseWriter, *http.Request){
		"/status": saying(http.StatusServiceUnavailable, "\x1b[2Jothers ask right now"+strings.Repeat("!", 1<<16)),
	}))
	defer c.Close()
	if _, err := c.Raw(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "?[2Jothers ask right now!") || len(err.Error()) > 2000 {
		t.Errorf("got %.200v, want why", err)
	}
}

// The names of what an answer has are shown as they can be.
func TestSectionNames(t *testing.T) {
	_, err := Section(json.RawMessage("{\"\\u001b[2J\": 1, \"\u009b\": 2}"), "x")
	if err == nil || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("got %q", err)
	}
}
