package config

import (
	"strings"
	"testing"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// aTicket returns a ticket of an authority, as a value and as text.
func aTicket(t testing.TB, route string) (credential.Ticket, string) {
	t.Helper()
	ticket, err := credential.NewTicket(identity.Identifier{1}, []string{route})
	if err != nil {
		t.Fatal(err)
	}
	text, err := ticket.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return ticket, text
}

// The settings about credentials are read for every kind that has them, from a
// file, from flags and from the environment.
func TestLoadTrust(t *testing.T) {
	one, two := identity.Identifier{1}, identity.Identifier{2}
	ticket, text := aTicket(t, "tcp://authority:4001/"+one.String())
	base := map[Kind]string{
		KindInlet:  "identity: a\nservices:\n  - {listen: 127.0.0.1:1, service: db, outlet: " + two.String() + ", routes: ['tcp://h:1/" + two.String() + "']}\n",
		KindOutlet: "identity: a\nlisten: [0.0.0.0:4001]\nservices:\n  - {name: db, target: a:1, allow: [" + two.String() + "]}\n",
		KindRelay:  "identity: a\nlisten: [0.0.0.0:4000]\nconnect: [" + two.String() + "]\n",
	}
	for kind, file := range base {
		t.Run(string(kind), func(t *testing.T) {
			got := mustTrust(t, kind, file, nil, nil)
			if len(got.Trusted()) != 0 || got.Ticket != nil || got.KubernetesToken != "" {
				t.Errorf("without any: %+v", got)
			}
			got = mustTrust(t, kind, file+"state: s\nauthorities: ["+two.String()+"]\nticket: "+text+"\n", nil, nil)
			if trusted := got.Trusted(); len(trusted) != 2 || trusted[0] != two || trusted[1] != one {
				t.Errorf("trusted are %v, want the list and the ticket's", trusted)
			}
			if got.Ticket == nil || got.Ticket.ID != ticket.ID || !got.Ticket.Secret.Equal(ticket.Secret) || len(got.TicketRoutes) != 1 {
				t.Errorf("the ticket is %+v, its routes %v", got.Ticket, got.TicketRoutes)
			}
			got = mustTrust(t, kind, file+"state: s\n", []string{"--authority", two.String()}, []string{"CULVERT_TICKET=" + text})
			if len(got.Trusted()) != 2 || got.Ticket == nil {
				t.Errorf("from a flag and the environment: %+v", got)
			}
			got = mustTrust(t, kind, file+"kubernetes_token: tok\nauthority:\n  identifier: "+one.String()+"\n  routes: [tcp://h:1/"+one.String()+"]\n", nil, nil)
			if !strings.HasSuffix(got.KubernetesToken, "tok") || got.Authority.Identifier != one || len(got.Authority.Routes) != 1 {
				t.Errorf("by a token: %+v", got)
			}
		})
	}
}

func mustTrust(t *testing.T, kind Kind, file string, flags, environ []string) Trust {
	t.Helper()
	c, err := load(kind, source(t, kind, inFolder(t, kind, file), flags, environ))
	if err != nil {
		t.Fatalf("%s\n%v", file, err)
	}
	switch c := c.(type) {
	case *Inlet:
		return c.Trust
	case *Outlet:
		return c.Trust
	case *Relay:
		return c.Trust
	}
	t.Fatalf("settings of type %T", c)
	return Trust{}
}

// Faults say what to do, and never show a part of a ticket.
func TestTrustFaults(t *testing.T) {
	one, two := identity.Identifier{1}, identity.Identifier{2}
	ticket, text := aTicket(t, "tcp://authority:4001/"+one.String())
	_, noRoute := aTicket(t, "authority:4001")
	_, behind := aTicket(t, "tcp://a:1/"+one.String()+",tcp://b:1/"+two.String())
	section := "authority: {identifier: " + one.String() + ", routes: ['tcp://h:1/" + one.String() + "']}\n"
	for _, tt := range []struct{ name, more, want string }{
		{"cut ticket", "state: s\nticket: " + text[:80], "cut off"},
		{"mistyped ticket", "state: s\nticket: " + text[:60] + "2222" + text[64:], "mistyped or damaged"},
		{"no ticket", "state: s\nticket: hello", "does not begin with"},
		{"ticket without state", "ticket: " + text, "name a folder (state: FOLDER or --state)"},
		{"ticket whose route is none", "state: s\nticket: " + noRoute, "route 1 of 1"},
		{"ticket whose route goes on", "state: s\nticket: " + behind, "nothing can come after it"},
		{"ticket of another authority", "state: s\nticket: " + text + "\nauthority: {identifier: " + two.String() + ", routes: ['tcp://h:1/" + two.String() + "']}", "authority.identifier is another"},
		{"ticket and token", "state: s\nticket: " + text + "\nkubernetes_token: t", "give one of the two"},
		{"token for nobody", "kubernetes_token: t", "say which authority takes it"},
		{"authority for nothing", section, "has no credential that could be renewed"},
		{"authority without routes", "state: s\nauthority: {identifier: " + one.String() + "}", "say how to get there"},
		{"authority without identifier", "state: s\nauthority: {routes: ['tcp://h:1/" + one.String() + "']}", "say who the authority is"},
		{"authority that is a text", "state: s\nauthority: " + one.String(), "want keys with values"},
		{"authority twice", "authorities: [" + one.String() + ", " + one.String() + "]", "in the list twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := "identity: a\nlisten: [0.0.0.0:4000]\nconnect: [" + two.String() + "]\n" + tt.more + "\n"
			_, err := load(KindRelay, source(t, KindRelay, inFolder(t, KindRelay, file), nil, nil))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			for at := len(text) - 60; at+12 <= len(text); at++ {
				if strings.Contains(err.Error(), text[at:at+12]) {
					t.Fatalf("a part of the ticket is in the error:\n%v", err)
				}
			}
			if strings.Contains(err.Error(), string(ticket.Secret.Reveal())) {
				t.Fatal("the secret is in the error")
			}
		})
	}
}
