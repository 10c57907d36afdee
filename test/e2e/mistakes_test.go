//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMistakes makes the mistakes that people make, each with built programs: what one
// of them says names the setting, the place or the machine, and what to change.
func TestMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.relay("relay1", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}, Extend: []string{"relay2"}})
	w.relay("relay2", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay2")}, Services: []service{
		{"orders-db", serveTCP(t, echo), []string{"inlet"}}, {"private", serveTCP(t, echo), []string{"somebody-else"}}, {"closed", freeAddr(t), []string{"inlet"}},
	}})
	good := w.hop("relay1") + "," + w.hop("relay2")
	type mistake struct {
		name    string
		inlet   string // whose identity; inlet's if empty
		service string // orders-db if empty
		outlet  string // an identifier; the outlet's if empty
		route   string // the good one if empty
		parts   []string
	}
	for _, tt := range []mistake{
		{name: "hops in the wrong order", route: w.hop("relay2") + "," + w.hop("relay1"), parts: []string{"extend_denied", "hop 1 of 2", w.addr("relay1"), "nearest first", "extend"}},
		{name: "the outlet's identifier for the relay's", route: "tcp://" + w.addr("relay2") + "/" + w.id("outlet"), parts: []string{w.addr("relay2"), "of the right kind", "a relay, or the outlet itself"}},
		{name: "another machine's identifier", route: w.hopAt(w.addr("relay2"), "relay1"), parts: []string{"wrong_identity", w.addr("relay2"), w.id("relay1"), w.id("relay2"), "write the identifier"}},
		{name: "the inlet's identifier as the outlet", outlet: w.id("inlet"), parts: []string{"not_registered", "outlet " + w.id("inlet"), "culvert identity show"}},
		{name: "a relay at which the outlet does not register", route: w.hop("relay1"), parts: []string{"not_registered", w.hop("relay1"), "relays in the outlet's settings"}},
		{name: "a service misspelt", service: "order-db", parts: []string{"service_unknown", `\"order-db\"`, "as the outlet's settings have it"}},
		{name: "a service of others", service: "private", parts: []string{"stream_denied", "private", "allow"}},
		{name: "a target that is not there", service: "closed", parts: []string{"target_refused", "closed", "target in the outlet's settings"}},
		{name: "an inlet that is not on the list", inlet: "stranger", parts: []string{"connect_denied", w.hop("relay2"), "add this inlet to connect"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := newWorld(t) // of its own, for its log
			name := tt.inlet
			if name == "" {
				name = "inlet"
			}
			route, outlet, service := tt.route, tt.outlet, tt.service
			if route == "" {
				route = good
			}
			if tt.inlet != "" {
				route = w.hop("relay2")
			}
			if outlet == "" {
				outlet = w.id("outlet")
			}
			if service == "" {
				service = "orders-db"
			}
			w.id(name)
			copyFile(t, w.key(name), in.key("inlet"))
			in.ids = map[string]string{"inlet": w.id(name), "outlet": outlet}
			inlet := in.startInlet("inlet", inletConfig{Services: []local{{service, "outlet", []string{route}}}, Extra: "connect_timeout: 5s\n"})
			wantNewReset(t, in.at("inlet", service), patience)
			inlet.wantLog(t, patience, tt.parts...)
		})
	}

	t.Run("outlets", func(t *testing.T) {
		for _, tt := range []struct {
			name, identity, relay string
			parts                 []string
		}{
			{"outlet2", "outlet", w.hopAt(w.addr("relay2"), "relay1"), []string{"wrong_identity", w.id("relay1"), w.id("relay2"), "write the identifier"}},
			{"outlet3", "stranger", w.hop("relay2"), []string{"register_denied", w.id("stranger"), "add this outlet to register"}},
		} {
			n := w.startOutlet(tt.name, outletConfig{Identity: tt.identity, Relays: []string{tt.relay}, Services: []service{{"x", w.addr("x"), []string{"inlet"}}}})
			n.wantLog(t, patience, tt.parts...)
		}
	})

	t.Run("at the start", func(t *testing.T) {
		write := func(name, text string) string {
			t.Helper()
			path := filepath.Join(w.dir, name)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return path
		}
		inlet := func(key, outlet, route string) string {
			return fmt.Sprintf("identity: %s\nservices:\n  - listen: tcp://%s\n    service: orders-db\n    outlet: %s\n    routes: [%q]\n", key, freeAddr(t), outlet, route)
		}
		open := filepath.Join(w.dir, "open.key")
		copyFile(t, w.key("inlet"), open)
		if err := os.Chmod(open, 0o644); err != nil {
			t.Fatal(err)
		}
		outlets := fmt.Sprintf("identity: %s\nrelays: [%q]\nservices:\n  - {name: x, target: 'tcp://127.0.0.1:1', allow: [%s]}\n", w.key("outlet"), w.hop("relay2"), w.id("inlet"))
		for _, tt := range []struct {
			name, file string
			parts      []string
		}{
			{
				"a hop behind the outlet", write("behind.yaml", inlet(w.key("inlet"), w.id("outlet"), w.hopAt(w.addr("relay2"), "outlet")+","+w.hop("relay1"))),
				[]string{"behind.yaml:6:14: services[0].routes[0]: ", "hop 1 is the outlet itself", "end the route there"},
			},
			{
				"a relay without its identifier", write("bare.yaml", inlet(w.key("inlet"), w.id("outlet"), "tcp://"+w.addr("relay1"))),
				[]string{"bare.yaml:6:14: services[0].routes[0]: ", "has no identifier", "want tcp://host:port/IDENTIFIER", "culvert identity show"},
			},
			{
				"a file's name for an identifier", write("name.yaml", inlet(w.key("inlet"), "outlet.key", good)),
				[]string{"name.yaml:5:13: services[0].outlet: ", "culvert identity show outlet.key"},
			},
			{"a key that others can read", write("open.yaml", inlet(open, w.id("outlet"), good)), []string{open, "mode is 0644", "chmod 600 " + open}},
			{"a key that is not there", write("missing.yaml", inlet(w.dir+"/no.key", w.id("outlet"), good)), []string{w.dir + "/no.key", "no such file", "culvert identity new"}},
			{"the settings of another program", write("outlet-for-inlet.yaml", outlets), []string{"this file is for the command outlet, not for inlet", "outlet --config "}},
		} {
			said := exits(t, 1, "inlet", "--config", tt.file)
			for _, part := range tt.parts {
				if !strings.Contains(said, part) {
					t.Errorf("%s: the message lacks %q:\n%s", tt.name, part, said)
				}
			}
		}
	})

	t.Run("a token that cannot be read", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("the token has to be somebody else's")
		}
		token := filepath.Join(w.dir, "token")
		if err := os.WriteFile(token, []byte("x"), 0o600); err != nil { // root's
			t.Fatal(err)
		}
		w.start("culvert authority", "authority", "", fmt.Sprintf("store: %s/authority.db\nlisten: [tcp://%s]\nroutes: [%q]\n", w.dir, w.addr("authority"), w.hop("authority"))).wantReady()
		member := w.start("relay", "member", "", fmt.Sprintf("listen: [tcp://%s]\nregister: []\nconnect: []\nstate: member.state\nauthority: {identifier: %s, routes: [%q]}\nkubernetes_token: %s\n",
			w.addr("member"), w.id("authority"), w.hop("authority"), token))
		member.wantLog(t, patience, "authority", token, "permission denied")
	})
}
