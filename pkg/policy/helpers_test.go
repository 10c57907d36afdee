package policy

import (
	"testing"
	"time"
	_ "time/tzdata" // as the programs have it

	"github.com/culvert-net/culvert/pkg/identity"
)

func id(n byte) identity.Identifier { return identity.Identifier{n} }

// monday is a Monday in winter, 07:00 in Berlin.
var monday = time.Date(2026, 1, 5, 6, 0, 0, 0, time.UTC)

// request is one for the stream of an api to orders-db.
func request() *Request {
	return &Request{Peer: Peer{ID: id(1), Attr: map[string]string{"role": "api", "team": "shop"}}, Action: Open, Service: "orders-db", Now: monday}
}

func mustCompile(t testing.TB, action Action, text string) *Policy {
	t.Helper()
	p, err := Compile(action, text)
	if err != nil {
		t.Fatalf("Compile(%q): %v", text, err)
	}
	return p
}
