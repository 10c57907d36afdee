package policy

import (
	"errors"
	"strings"
	"testing"
)

// What is wrong is said once, in words of policies, with the place.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		action Action
		text   string
		want   string
	}{
		{Open, "", "the expression is empty\n    \n    ^"},
		{Open, `peer.role == "api"`, "a peer has peer.id and its attributes, as peer.attr.NAME, and nothing else\n    peer.role == \"api\"\n    ^"},
		{Open, `peer.attr.role == api`, "\"api\" is not known here: there are peer.id, peer.attr, action, now, service; a text stands in quotes\n    peer.attr.role == api\n                      ^"},
		{Connect, `peer.id != "" && service == "a"`, "service has no meaning for connect: it is the service of a stream, which an outlet's allow decides about; there are peer.id, peer.attr, action, now, target\n" +
			"    peer.id != \"\" && service == \"a\"\n                     ^"},
		{Open, `to == "a:1"`, "to has no meaning for open: it is where a relay carries a caller on to, which its extend decides about; there are peer.id, peer.attr, action, now, service\n    to == \"a:1\"\n    ^"},
		{Open, `service`, "the result is of type string: want a comparison, or another thing that is true or false\n    service\n    ^"},
		{Open, `dyn(true)`, "the result is of a type that is known only later: want a comparison, or another thing that is true or false\n    dyn(true)\n       ^"},
		{Open, `service == 1`, "== cannot be applied to (string, int)\n    service == 1\n            ^"},
		{Open, `service ==`, "syntax: the expression ends too early\n    service ==\n              ^"},
		{Open, "service == \"x\" &&\n  peer.attr.a == b", "\"b\" is not known here: there are peer.id, peer.attr, action, now, service; a text stands in quotes\n      peer.attr.a == b\n                     ^"},
		{Open, `service.matches(peer.attr.like)`, "the pattern of matches must be a literal, like \"^web-[0-9]+$\"\n    service.matches(peer.attr.like)\n                   ^"},
		{Open, `service.matches(dyn("a"))`, "the pattern of matches must be a literal, like \"^web-[0-9]+$\"\n    service.matches(dyn(\"a\"))\n                   ^"},
		{Open, `service.matches("(")`, "the pattern of matches: error parsing regexp: missing closing ): `(`\n    service.matches(\"(\")\n                    ^"},
		{Open, `service.matches("(a{30}){33}")`, "the pattern of matches is too large when compiled: repeat less in it\n    service.matches(\"(a{30}){33}\")\n                    ^"},
		{Open, `now.getHours(peer.attr.tz) > 1`, "the time zone of getHours must be a literal, like \"Europe/Berlin\"\n    now.getHours(peer.attr.tz) > 1\n                ^"},
		{Open, `now.getHours("Europe/Atlantis") > 1`, "the time zone of getHours: there is no zone \"Europe/Atlantis\": write one like \"Europe/Berlin\", \"UTC\" or \"+02:00\"\n    now.getHours(\"Europe/Atlantis\") > 1\n                 ^"},
		{Open, `now.getHours("Local") > 1`, "the time zone of getHours: \"Local\" names none: write one like \"Europe/Berlin\", \"UTC\" or \"+02:00\"\n    now.getHours(\"Local\") > 1\n                 ^"},
		{Open, `now.getHours("../../etc/passwd") > 1`, "the time zone of getHours: there is no zone \"../../etc/passwd\": write one like \"Europe/Berlin\", \"UTC\" or \"+02:00\"\n    now.getHours(\"../../etc/passwd\") > 1\n                 ^"},
		{Open, `peer.attr.all(a, peer.attr.all(b, peer.attr[a].contains(peer.attr[b])))`, "this can take up to 43491650 steps for one decision, more than 50000: loop less, or match less of a text\n" +
			"    peer.attr.all(a, peer.attr.all(b, peer.a…\n    ^"},
		{"close", `true`, "there is no action \"close\"\n    true\n    ^"},
	} {
		p, err := Compile(tt.action, tt.text)
		var faults Errors
		if p != nil || !errors.As(err, &faults) {
			t.Errorf("%q: got a policy, or an error of another type: %v", tt.text, err)
			continue
		}
		if got := err.Error(); got != tt.want {
			t.Errorf("%q:\ngot\n%s\nwant\n%s", tt.text, got, tt.want)
		}
	}
}

// All faults are told, as far as the compiler gets, and no more than a few.
func TestSeveralFaults(t *testing.T) {
	_, err := Compile(Open, "a == 1 && b == 2\n&& c == 3 && d == 4 && e == 5")
	var faults Errors
	if !errors.As(err, &faults) || len(faults) != maxErrors {
		t.Fatalf("got %v, want %d faults", err, maxErrors)
	}
	for i, want := range [][2]int{{1, 1}, {1, 11}, {2, 4}, {2, 14}} {
		if got := [2]int{faults[i].Line, faults[i].Column}; got != want {
			t.Errorf("fault %d is at %v, want %v", i, got, want)
		}
	}
}

// What would loop, grow or nest without end is refused, and quickly.
func TestUnboundedIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"long":              `service == "` + strings.Repeat("x", MaxExpression) + `"`,
		"parentheses":       strings.Repeat("(", 4000) + "true",
		"balanced":          strings.Repeat("(", 1000) + "true" + strings.Repeat(")", 1000),
		"lists":             strings.Repeat("[", 4000),
		"conditionals":      strings.Repeat("true ? ", 1000) + "true",
		"three loops":       `peer.attr.all(a, peer.attr.all(b, peer.attr.all(c, a == b)))`,
		"texts that double": `[peer.attr.a].map(x, x` + strings.Repeat(" + x", 99) + `).map(x, x` + strings.Repeat(" + x", 99) + `).size() == 1`,
		"long sum":          `size(peer.attr.a` + strings.Repeat(" + peer.attr.a", 200) + `) > 3`,
		"two big loops":     `peer.attr.exists(a, peer.attr.exists(b, peer.attr[a].matches("^(.*a.*b.*c)+$") && peer.attr[b] == a))`,
	} {
		p, err := Compile(Open, text)
		if err == nil {
			t.Errorf("%s: accepted: %v", name, p.Expression()[:min(80, len(text))])
			continue
		}
		if len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

// A key that was pasted where an expression belongs is not shown.
func TestKeysStayOut(t *testing.T) {
	const key = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06+nwoy/HU++CXqI9EdVhC"
	for _, text := range []string{key, key + " x", `service == "` + key, `peer.id == "` + key + `" && x`, "a\n" + key + "\nb"} {
		_, err := Compile(Open, text)
		if err == nil || strings.Contains(err.Error(), key[:40]) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
