package app

import (
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

// What remedies are about is what logs say.
func TestRemedies(t *testing.T) {
	names := map[string]bool{labelWrongIdentity: true, labelHandshake: true}
	for c := range 1 << 10 {
		if name := code.Code(c).String(); !strings.HasPrefix(name, "code_") {
			names[name] = true
		}
	}
	for name, text := range remedies {
		if !names[name] {
			t.Errorf("no code is called %q", name)
		}
		if len(text) < 20 || strings.HasSuffix(text, ".") {
			t.Errorf("%s: %q", name, text)
		}
	}
	if got := remedied(nil, "ok"); got != nil {
		t.Errorf("%v, want nothing to do where all is well", got)
	}
	if got := remedied(nil, code.StreamDenied.String()); len(got) != 1 || got[0].Key != "remedy" {
		t.Errorf("%v", got)
	}
}
