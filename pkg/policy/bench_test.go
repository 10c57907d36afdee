package policy

import (
	"testing"

	"github.com/culvert-net/culvert/pkg/identity"
)

// A list's answer allocates nothing, whichever it is, when no reason is asked
// for; and nothing when it allows.
func TestListAllocs(t *testing.T) {
	p := List(id(1), id(2), id(3))
	in, out := request(), request()
	out.Peer.ID = id(9)
	for name, f := range map[string]func(){
		"allowed":          func() { p.Allows(in) },
		"denied":           func() { p.Allows(out) },
		"allowed, decided": func() { p.Decide(in) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	ids := make([]identity.Identifier, 1000)
	for i := range ids {
		ids[i] = identity.Identifier{byte(i), byte(i >> 8), 1}
	}
	in := request()
	in.Peer.ID = ids[500]
	denied := request()
	denied.Peer.Attr["role"] = "web"
	for _, bb := range []struct {
		name   string
		policy *Policy
		r      *Request
	}{
		{"list of 1000", List(ids...), in},
		{"expression", mustCompile(b, Open, `peer.attr.role == "api" && service == "orders-db"`), in},
		{"office hours", mustCompile(b, Open, `now.getHours("Europe/Berlin") >= 7 && now.getHours("Europe/Berlin") < 18`), in},
		{"denied and explained", mustCompile(b, Open, `peer.attr.role == "api" && service == "orders-db"`), denied},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bb.policy.Decide(bb.r)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		mustCompile(b, Open, `peer.attr.role == "api" && service == "orders-db"`)
	}
}
