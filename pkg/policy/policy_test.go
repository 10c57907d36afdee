package policy

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/identity"
)

func TestLists(t *testing.T) {
	two := List(id(1), id(2))
	for _, tt := range []struct {
		name   string
		policy *Policy
		peer   identity.Identifier
		want   Decision
	}{
		{"first", two, id(1), Decision{true, "identifier is on the list"}},
		{"second", two, id(2), Decision{true, "identifier is on the list"}},
		{"other", two, id(3), Decision{false, "identifier " + id(3).String() + " is not on the list"}},
		{"nobody's identifier", List(id(1), identity.Identifier{}), identity.Identifier{}, Decision{false, "identifier " + identity.Identifier{}.String() + " is not on the list"}},
		{"empty", List(), id(1), Decision{false, "nobody is allowed: the list is empty"}},
		{"nil", nil, id(1), Decision{false, "nobody is allowed: there is no policy"}},
		{"zero", new(Policy), id(1), Decision{false, "nobody is allowed: the list is empty"}},
	} {
		r := &Request{Peer: Peer{ID: tt.peer}, Action: Open}
		if got := tt.policy.Decide(r); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
		if got := tt.policy.Allows(r); got != tt.want.Allowed {
			t.Errorf("%s: Allows is %v, Decide %v", tt.name, got, tt.want.Allowed)
		}
	}
}

// A list is what it was when it was made.
func TestListIsACopy(t *testing.T) {
	ids := []identity.Identifier{id(1)}
	p := List(ids...)
	ids[0] = id(2)
	p.IDs()[0] = id(2)
	if got := p.IDs(); len(got) != 1 || got[0] != id(1) {
		t.Errorf("got %v, want %v", got, id(1))
	}
	if p.Allows(&Request{Peer: Peer{ID: id(2)}}) {
		t.Error("the caller's slice changes the policy")
	}
}

func TestWhatAPolicyIs(t *testing.T) {
	expr := mustCompile(t, Extend, `to == "b:1" && peer.id != ""`)
	for _, tt := range []struct {
		policy     *Policy
		expression string
		empty      bool
		uses       string
	}{
		{nil, "", true, ""},
		{List(), "", true, "peer.id"},
		{List(id(1)), "", false, "peer.id"},
		{expr, `to == "b:1" && peer.id != ""`, false, "to peer.id"},
	} {
		if got := tt.policy.Expression(); got != tt.expression {
			t.Errorf("expression %q, want %q", got, tt.expression)
		}
		if got := tt.policy.Empty(); got != tt.empty {
			t.Errorf("%q: empty %v, want %v", tt.expression, got, tt.empty)
		}
		for _, v := range variables {
			if got, want := tt.policy.Uses(v.name), strings.Contains(" "+tt.uses+" ", " "+v.name+" "); got != want {
				t.Errorf("%q uses %s: %v, want %v", tt.expression, v.name, got, want)
			}
		}
	}
}

// A list is the expression "peer.id in [...]", for every list and peer.
func TestListIsExpression(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) identity.Identifier {
			return identity.Identifier{1, rapid.Byte().Draw(t, "second"), 31: rapid.ByteRange(0, 3).Draw(t, "last")}
		}), 1, 12).Draw(t, "identifiers")
		listed := some[:rapid.IntRange(0, len(some)).Draw(t, "listed")]
		quoted := make([]string, len(listed))
		for i, id := range listed {
			quoted[i] = `"` + id.String() + `"`
		}
		list := List(listed...)
		expr, err := Compile(Connect, "peer.id in ["+strings.Join(quoted, ", ")+"]")
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range some {
			r := &Request{Peer: Peer{ID: id}, Action: Connect}
			l, e := list.Decide(r), expr.Decide(r)
			if l.Allowed != e.Allowed || l.Reason == "" || e.Reason == "" {
				t.Errorf("%s with %d listed: list says %+v, expression %+v", id, len(listed), l, e)
			}
		}
	})
}

// A peer of whose attributes nothing can be said is not one that has none.
func TestUnclearAttributesDeny(t *testing.T) {
	unclear := &Request{Action: Open, Service: "a", Peer: Peer{ID: identity.Identifier{1}, Unclear: "two credentials\ncontradict each other"}}
	for _, text := range []string{`!has(peer.attr.x)`, `peer.attr.all(k, false)`, `size(peer.attr) == 0`, `service == "a" || peer.attr.x == "y"`} {
		p, err := Compile(Open, text)
		if err != nil {
			t.Fatal(err)
		}
		d := p.Decide(unclear)
		if d.Allowed || p.Allows(unclear) || !strings.Contains(d.Reason, "not clear: two credentials") || strings.Contains(d.Reason, "\n") {
			t.Errorf("%s: %+v, want a denial with the reason, in one line", text, d)
		}
		plain := *unclear
		plain.Peer.Unclear = ""
		if !p.Allows(&plain) {
			t.Errorf("%s: a peer without attributes is denied", text)
		}
	}
	if p, err := Compile(Open, `service == "a"`); err != nil || !p.Allows(unclear) || !List(identity.Identifier{1}).Allows(unclear) {
		t.Errorf("what does not look at attributes denies (%v)", err)
	}
}
