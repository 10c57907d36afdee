package config

import (
	"strings"
	"testing"
)

// A service without an outlet is any outlet's that proves to offer it, where
// credentials count; else nobody could prove anything, and the outlet is missing.
func TestServiceByName(t *testing.T) {
	_, ticket := aTicket(t, "tcp://authority:4001/"+testIDs[0].String())
	const service = "services:\n  - {listen: 127.0.0.1:1, service: orders-db, routes: ['tcp://r:4000/<ID>']}\n"
	for _, tt := range []struct {
		name, file string
		args, env  []string
		want       string // part of the fault; "": none
	}{
		{"with authorities", "authorities: [<ID2>]\n", nil, nil, ""},
		{"with an authority as a flag", "", []string{"--authority", "<ID2>"}, nil, ""},
		{"with a ticket", "state: s\n", nil, []string{"CULVERT_TICKET=" + ticket}, ""},
		{"with a token", "kubernetes_token: t\nauthority: {identifier: <ID>, routes: ['tcp://h:1/<ID>']}\n", nil, nil, ""},
		{"with what an earlier start has got", "state: s\n", nil, nil, ""},
		{"alone", "", nil, nil, "services[0].outlet: missing: say whose the service is (outlet: IDENTIFIER or --outlet); " +
			"or, to take it from any outlet whose credential says that it offers the service, whose credentials count (authorities: [IDENTIFIER] or --authority, or a ticket)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := inFolder(t, KindInlet, "identity: a\n"+tt.file+service)
			c, err := LoadInlet(source(t, KindInlet, file, tt.args, tt.env))
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("LoadInlet: %v", err)
			case tt.want == "" && !c.Services[0].ByName():
				t.Errorf("service %+v is not by name", c.Services[0])
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("LoadInlet: %v, want %q", err, tt.want)
			}
		})
	}
}

// By flags alone, too; and an outlet that is written stays the only one.
func TestServiceByNameFlags(t *testing.T) {
	args := []string{"--identity", "a", "--listen", "127.0.0.1:1", "--service", "db", "--route", "tcp://r:4000/<ID>", "--authority", "<ID2>"}
	inFolder(t, KindInlet, "")
	if c := mustLoadInlet(t, source(t, KindInlet, "", args, nil)); !c.Services[0].ByName() {
		t.Errorf("service %+v is not by name", c.Services[0])
	}
	c := mustLoadInlet(t, source(t, KindInlet, "", append(args, "--outlet", "<ID3>"), nil))
	if c.Services[0].ByName() || c.Services[0].Outlet != testIDs[2] {
		t.Errorf("service %+v, want the outlet's that is written", c.Services[0])
	}
}

// A key that is misspelt is not taken for none.
func TestServiceByNameIsNotATypo(t *testing.T) {
	file := inFolder(t, KindInlet, "identity: a\nauthorities: [<ID>]\nservices:\n  - {listen: 127.0.0.1:1, service: db, outlets: <ID>, routes: ['tcp://r:4000/<ID>']}\n")
	if _, err := LoadInlet(source(t, KindInlet, file, nil, nil)); err == nil || !strings.Contains(err.Error(), `did you mean "outlet"?`) {
		t.Errorf("LoadInlet: %v", err)
	}
}
