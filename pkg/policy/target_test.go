package policy

import (
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/identity"
)

// A relay's connect can tell the outlets apart that callers want, so that anybody
// may reach one of them; no other action knows of one.
func TestTarget(t *testing.T) {
	authority, other := identity.Identifier{1}, identity.Identifier{2}
	p, err := Compile(Connect, `target == "`+authority.String()+`" || peer.attr.role == "app"`)
	if err != nil {
		t.Fatal(err)
	}
	app := map[string]string{"role": "app"}
	for _, tt := range []struct {
		name   string
		attr   map[string]string
		target identity.Identifier
		want   bool
	}{
		{"newcomer to the authority", nil, authority, true},
		{"newcomer to another", nil, other, false},
		{"newcomer to nobody in particular", nil, identity.Identifier{}, false},
		{"member to the authority", app, authority, true},
		{"member to another", app, other, true},
	} {
		r := &Request{Peer: Peer{ID: identity.Identifier{9}, Attr: tt.attr}, Action: Connect, Target: tt.target}
		if d := p.Decide(r); d.Allowed != tt.want || p.Allows(r) != tt.want {
			t.Errorf("%s: %+v, want allowed %v", tt.name, d, tt.want)
		}
	}
	none, err := Compile(Connect, `target == ""`)
	if err != nil {
		t.Fatal(err)
	}
	if !none.Allows(&Request{Action: Connect}) || none.Allows(&Request{Action: Connect, Target: other}) {
		t.Error("no target is not the empty text")
	}
	for _, a := range []Action{Open, Register, Extend} {
		if _, err := Compile(a, `target == ""`); err == nil || !strings.Contains(err.Error(), "target has no meaning for "+string(a)) {
			t.Errorf("%s: %v, want that target has no meaning there", a, err)
		}
	}
}
