package app

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/pkg/code"
)

// operations returns docs/operations.md.
func operations(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/operations.md")
	must(t, err)
	return string(b)
}

// firstColumn returns what stands in backticks in the first column of the table with
// that head, each once.
func firstColumn(t *testing.T, text, head string) map[string]bool {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+head+"\n|---|---|---|\n")
	if !ok {
		t.Fatalf("docs/operations.md has no table %s", head)
	}
	found := map[string]bool{}
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		for _, m := range quoted.FindAllStringSubmatch(strings.SplitN(line, "|", 3)[1], -1) {
			if found[m[1]] {
				t.Errorf("docs/operations.md speaks of %s twice under %s", m[1], head)
			}
			found[m[1]] = true
		}
	}
	return found
}

// Every code that a person can meet has its cause and what to do about it, and so has
// every word that stands where a code would.
func TestOperationsCodes(t *testing.T) {
	text := operations(t)
	codes := firstColumn(t, text, "| code | the cause, usually | what to do |")
	for c, name := range code.All() {
		if c != code.OK && !codes[name] {
			t.Errorf("docs/operations.md does not explain the code %s", name)
		}
		delete(codes, name)
	}
	if len(codes) > 0 {
		t.Errorf("docs/operations.md explains codes that there are not: %v", codes)
	}
	words := firstColumn(t, text, "| word | the cause, usually | what to do |")
	for _, word := range remedy.Words() {
		if !words[word] {
			t.Errorf("docs/operations.md does not explain the word %s", word)
		}
		delete(words, word)
	}
	if len(words) > 0 {
		t.Errorf("docs/operations.md explains words that there are not: %v", words)
	}
}

// Every line of a log that the page explains is one that a program writes.
func TestOperationsLogLines(t *testing.T) {
	var source strings.Builder
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			b, err := os.ReadFile(name)
			must(t, err)
			source.Write(b)
		}
	}
	lines := firstColumn(t, operations(t), "| line | what has happened | what to do |")
	if len(lines) < 10 {
		t.Errorf("%d lines: the table was not read to its end", len(lines))
	}
	for line := range lines {
		if !strings.Contains(source.String(), `"`+line+`"`) {
			t.Errorf("docs/operations.md explains the line %q, which no program writes", line)
		}
	}
}

// The headings that alerts lead to are there, and so are those that the page itself
// leads to.
func TestOperationsAnchors(t *testing.T) {
	text := operations(t)
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	wanted := []string{
		"a-route-is-down", "streams-are-refused", "no-path", "credential-expires", "relay-refuses", "config-reload-failed", "audit-log-fails", "buffers-are-full",
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		wanted = append(wanted, m[1])
	}
	for _, anchor := range wanted {
		if !anchors[anchor] {
			t.Errorf("docs/operations.md has no heading #%s", anchor)
		}
	}
}

// sectionOf returns what stands below the heading of that anchor.
func sectionOf(text, anchor string) string {
	for section := range strings.SplitSeq(text, "\n### ") {
		title, body, _ := strings.Cut(section, "\n")
		if strings.ReplaceAll(strings.ToLower(title), " ", "-") == anchor {
			return body
		}
	}
	return ""
}

// What an alert points to is a heading of the page, and says what to do about it.
func TestAlertsPointSomewhere(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/grafana/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(operations(t), -1) {
		headings[strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")] = true
	}
	points := regexp.MustCompile(`(?s)- alert: (\w+)\n(.*?)operations\.md#([a-z0-9-]+)\n`).FindAllStringSubmatch(string(rules), -1)
	metrics := regexp.MustCompile(`culvert_[a-z_]+[a-z]`)
	for _, m := range points {
		if !headings[m[3]] {
			t.Errorf("docs/operations.md has no heading for #%s", m[3])
		}
		section, about := sectionOf(operations(t), m[3]), false
		for _, name := range append(metrics.FindAllString(m[2], -1), m[1]) {
			about = about || strings.Contains(section, "`"+name+"`")
		}
		if !about {
			t.Errorf("docs/operations.md names under #%s neither %s nor a metric that it asks for", m[3], m[1])
		}
	}
	if want := strings.Count(string(rules), "- alert: "); len(points) != want || want == 0 {
		t.Errorf("%d of %d alerts point to docs/operations.md", len(points), want)
	}
}
