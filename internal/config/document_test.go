package config

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The key of a table's row, the name of a section's table, and a heading.
var documented = regexp.MustCompile("(?m)^(?:\\| `([a-z_]+)` \\||`([a-z_.]+)`:|## (.*)$)")

// settingsDocument returns the keys that docs/settings.md has, by heading, with
// those of sections behind the section's name and a dot.
func settingsDocument(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{}
	var heading, section string
	for _, m := range documented.FindAllStringSubmatch(string(text), -1) {
		switch {
		case m[3] != "":
			heading, section = m[3], ""
		case m[2] != "":
			section = m[2] + "."
		default:
			keys[heading] = append(keys[heading], section+m[1])
		}
	}
	return keys
}

// keysOf returns the keys that a kind's files may have, as the reader names them
// beside an unknown one in each section of text.
func keysOf(t *testing.T, kind Kind, text string) (keys []string) {
	t.Helper()
	const unknown = "qqqqqqqqqqqq"
	_, err := load(kind, source(t, kind, inFolder(t, kind, strings.ReplaceAll(text, "?", unknown)), nil, nil))
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("%s: %v", kind, err)
	}
	for _, f := range faults {
		path, is := strings.CutSuffix(f.Key, unknown)
		_, list, listed := strings.Cut(f.Err.Error(), ": there are ")
		if !is || !listed {
			continue
		}
		for key := range strings.SplitSeq(list, ", ") {
			keys = append(keys, strings.ReplaceAll(path, "[0]", "")+key)
		}
	}
	slices.Sort(keys)
	return keys
}

// TestSettingsDocument holds docs/settings.md to the keys that there are: none is
// missing there, and none is too many.
func TestSettingsDocument(t *testing.T) {
	const all, channels, credentials, tracing = "All four programs", "Channels: inlet, outlet, authority", "Credentials: inlet, outlet, relay", "Traces: inlet, outlet"
	documented := settingsDocument(t)
	for _, tt := range []struct {
		kind Kind
		text string // with a key that there is not in each section
		in   []string
	}{
		{KindInlet, "?: 1\nauthority: {?: 1}\ntracing: {?: 1}\nservices: [{?: 1, limits: {?: 1}}]", []string{all, channels, credentials, tracing, "Inlet"}},
		{KindOutlet, "?: 1\nauthority: {?: 1}\ntracing: {?: 1}\nlimits: {?: 1}\nservices: [{?: 1, target: 'tls://a:1', tls: {?: 1}, limits: {?: 1}}]", []string{all, channels, credentials, tracing, "Outlet"}},
		{KindRelay, "?: 1\nauthority: {?: 1}\nlimits: {?: 1}\nextend: {?: 1}", []string{all, credentials, "Relay"}},
		{KindAuthority, "?: 1\nkubernetes: {?: 1}", []string{all, channels, "Authority"}},
		{KindWebhook, "?: 1\nsidecar: {?: 1}", []string{"Webhook"}},
	} {
		var got []string
		for _, heading := range tt.in {
			got = append(got, documented[heading]...)
		}
		slices.Sort(got)
		if want := keysOf(t, tt.kind, tt.text); !slices.Equal(got, want) {
			t.Errorf("docs/settings.md has for %s\n%q\nand the program takes\n%q", tt.kind, got, want)
		}
	}
}
