package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// FuzzYAML reads any bytes as a file of each kind. What comes out is an error
// with its place, or settings that have all that they must have.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{
		relayFile, outletFile, inletFile, "", "a", "- a", "a: [${X}]", "a: {b: c}", "? a\n: b", "a: &x 1\nb: *x", "<<: {a: b}",
		"a: |\n  b\n", "a: !!binary aGk=", "identity: ${A}${B}$$", "a: 'b", "\ufeffa: 1", "a: 1\r\nb: 2", "a:\n- - - b", "a: [[[[",
		"services: [{}]", "services: [1, {listen: {}}]", "listen: [~]", "{\"a\": [null]}", "a: .inf\nb: .nan\nc: 0x1\nd: 1e3",
		"identity: \"\\u00e9\\x00\"", "%YAML 1.2\n---\na: b", "a: b\n...\n---\n", "? [a]: b", "&a : *a", "services:\n  - listen: 0\n\n     ://", "a: >-\n\n  x", "!x ? y",
	} {
		f.Add([]byte(fill(s)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		root, faults := parseYAML("x.yaml", data)
		checkFaults(t, faults)
		if root == nil || root.shape != shapeMap {
			if len(faults) == 0 {
				t.Fatal("neither settings nor a fault")
			}
			return
		}
		checkFaults(t, expandAll(root, "", newEnviron([]string{"A=1", "B=$${A}"})))
		for _, kind := range Kinds() {
			d := &decoder{kind: kind, file: "x.yaml", origins: map[string]Origin{}}
			r, err := d.report(root)
			if err == nil {
				if r.Common.Identity == "" || r.Summary == "" {
					t.Errorf("%s: got %+v without an error", kind, r)
				}
				continue
			}
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("%s: error is %T", kind, err)
			}
			checkFaults(t, faults)
		}
	})
}

// checkFaults holds faults to having a place and a text, on one line each and
// indented below it, so that a file cannot make a line of an error look like
// another.
func checkFaults(t *testing.T, faults Faults) {
	t.Helper()
	for _, f := range faults {
		text := f.Error()
		if !strings.HasPrefix(text, "x.yaml:") || f.Err == nil || strings.ContainsAny(strings.ReplaceAll(text, "\n    ", ""), "\n\r\x00\x1b") {
			t.Errorf("fault %q", text)
		}
	}
}

// FuzzAddress holds what parses to printing back the same.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:1", "tcp://[::1]:65535", "a:1", ":1", "[fe80::1%x]:0", "A.b.:1", "[::ffff:1.2.3.4]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, use := range []addressUse{toDial, toListen} {
			a, err := parseAddress(s, use)
			if err != nil {
				continue
			}
			for _, text := range []string{a.String(), a.URL()} {
				if back, err := parseAddress(text, use); err != nil || back != a {
					t.Errorf("%q: %q reads back as %+v, %v, want %+v", s, text, back, err, a)
				}
			}
		}
	})
}

// TestLongFiles gives the parser a MiB of what makes parsers slow or deep.
func TestLongFiles(t *testing.T) {
	for _, s := range []string{
		"[", "{a: ", "- ", "a:\n", "&a ", "? ", "!x ", "\"", "'", "a: [", "#\n", "|\n", ">\n", "*a ", "a: \"x\" ", "- a\n", "a", "\n",
		"---\n", "- a: b\n  c: d\n", "[a, ", "]", "}", "a: |\n b\n", "%\n", ": ", ", ", "\"\\", "- |\n  a\n", " ", "- \"a\n\"\n", "x: ${A}\n", "- \n", "a:\n- \n", "- {a: b}\n", "[a]\n", "{a: b, c: d}, ",
	} {
		data := repeat(s, maxFileLen)
		within(t, 10*time.Second, data, func() { _, _ = parseYAML("x.yaml", data) })
	}
	if _, faults := parseYAML("x.yaml", make([]byte, maxFileLen+1)); faults == nil {
		t.Error("a longer file was read")
	}
}
