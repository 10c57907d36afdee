package config

import "testing"

// carriesNobody is what is said of an extend list without callers.
const carriesNobody = "nobody could be carried on: that is for those who may connect or register here, so list the callers (connect: or --connect) or the outlets (register: or --register)"

// Those who may register or connect may be carried on; empty lists without
// addresses to extend to are meant.
func TestRelayServesSomebody(t *testing.T) {
	for _, lists := range []string{
		"connect: [<ID>]\nextend: [b:4000]\n",
		"register: [<ID>]\nextend: [b:4000]\n",
		"register: []\nconnect: [<ID>]\nextend: [b:4000]\n",
		"register: []\nconnect: []\nextend: []\n",
		"extend: []\n",
	} {
		file := inFolder(t, KindRelay, "identity: a\nlisten: [0.0.0.0:4000]\n"+lists)
		if _, err := LoadRelay(source(t, KindRelay, file, nil, nil)); err != nil {
			t.Errorf("%s%v", lists, err)
		}
	}
}

func TestRelayFaults(t *testing.T) {
	testFaults(t, []faultCase{
		{
			name: "nothing", kind: KindRelay,
			file: `identity: a
`,
			want: `
relay.yaml: listen: missing: say where to accept callers (listen: [tcp://0.0.0.0:4000] or --listen)
relay.yaml: register: missing: this relay would serve nobody: say who may offer an outlet (register: or --register) and who may connect to one or be carried on (connect: or --connect)
`,
		},
		{
			name: "nobody is served", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
`,
			want: `relay.yaml: register: missing: this relay would serve nobody: say who may offer an outlet (register: or --register) and who may connect to one or be carried on (connect: or --connect)`,
		},
		{
			name: "nobody may be carried on", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
extend: [b:4000]
`,
			want: `relay.yaml:3:9: extend: ` + carriesNobody,
		},
		{
			name: "nobody is listed who may be carried on", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: []
connect: []
extend:
  - b:4000
`,
			want: `relay.yaml:6:3: extend: ` + carriesNobody,
		},
		{
			name: "nobody may be carried on, by flags", kind: KindRelay,
			args: []string{"--identity", "a", "--listen", "127.0.0.1:4000", "--extend", "b:4000"},
			want: `--extend: ` + carriesNobody,
		},
		{
			name: "who may be carried on is misspelt", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
connect: <ID>
extend: [b:4000]
`,
			want: `relay.yaml:3:10: connect: want a list, also of one identifier: write it in brackets, [IDENTIFIER]`,
		},
		{
			name: "no address", kind: KindRelay,
			file: `identity: a
listen: []
register: [<ID>]
`,
			want: `relay.yaml:2:9: listen: is empty: write at least one address`,
		},
		{
			name: "lists", kind: KindRelay,
			file: `identity: a
listen: [":4000", 127.0.0.1:4000, 0.0.0.0:4000]
register: [<ID>, <ID>, "tcp://a:1/<ID>"]
connect: <ID>
extend: [b:4000, "tcp://B:4000", "tcp://b:4000/<ID>", b:0, b]
`,
			want: `
relay.yaml:2:10: listen[0]: ":4000" listens on every interface; write 0.0.0.0:4000 if you mean that, or 127.0.0.1:4000
relay.yaml:2:35: listen[2]: 0.0.0.0:4000 is taken already, by 127.0.0.1:4000 (listen[1] in relay.yaml:2:19): choose another port
relay.yaml:3:66: register[1]: <ID> is in the list twice: remove one
relay.yaml:3:120: register[2]: identifier has ':' at position 4: only a to z and 2 to 7 can occur: want the 52 characters alone, without an address
relay.yaml:4:10: connect: want a list, also of one identifier: write it in brackets, [IDENTIFIER]
relay.yaml:5:18: extend[1]: b:4000 is in the list twice: remove one
relay.yaml:5:34: extend[2]: "tcp://b:4000/<ID>" has "/<ID>" after the port: only host:port belongs here
relay.yaml:5:103: extend[3]: "b:0": port 0 cannot be dialled: want a number from 1 to 65535
relay.yaml:5:108: extend[4]: "b" has no port: write host:port
`,
		},
		{
			name: "limits", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: []
limits:
  connections: 0
  conections: 4
  handshakes_in_flight: many
  handshakes_per_second: 1.5
  waiting_callers: [1]
  bytes_per_second: lots
`,
			want: `
relay.yaml:5:16: limits.connections: want a whole number from 1 to 10000000
relay.yaml:6:3: limits.conections: unknown key (did you mean "connections"?)
relay.yaml:7:25: limits.handshakes_in_flight: want a whole number from 1 to 10000000
relay.yaml:8:26: limits.handshakes_per_second: want a whole number from 1 to 10000000
relay.yaml:9:20: limits.waiting_callers: want a whole number from 1 to 10000000
relay.yaml:10:21: limits.bytes_per_second: want a number of bytes, like 65536, 512KiB, 10MiB or 1GiB
`,
		},
		{
			name: "limits of the wrong type", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: []
limits: 5
`,
			want: `relay.yaml:4:9: limits: want keys with values, not a number`,
		},
		{
			name: "an inlet's file", kind: KindRelay,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
`,
			want: `relay.yaml:3:5: services[0].listen: this file is for the command inlet, not for relay: run "inlet --config relay.yaml"`,
		},
		{
			name: "an outlet's file", kind: KindRelay,
			file: `identity: a
relays: []
`,
			want: `relay.yaml:2:1: relays: this file is for the command outlet, not for relay: run "outlet --config relay.yaml"`,
		},
		{
			name: "limits that stop everything", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000, 0.0.0.0:4001]
register: []
dial_timeout: 5s
limits:
  handshakes_in_flight: 1
  bytes_per_second: 10
`,
			want: `
relay.yaml:4:15: dial_timeout: 5s is out of range: want 1ms to 4s
relay.yaml:7:21: limits.bytes_per_second: 10 is less than a handshake needs: want at least 1024, or leave it out for no limit
`,
		},
		{
			name: "services", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: []
services: []
`,
			want: `relay.yaml:4:1: services: unknown key (it is a key of the commands inlet and outlet)`,
		},
		{
			name: "flags", kind: KindRelay,
			args: []string{"--identity", "a", "--listen", ":4000", "--listen", "127.0.0.1:1", "--register", "x", "--connect", "y", "--extend", "z", "--metrics", "127.0.0.1:1"},
			want: `
--listen: value 1 of 2: ":4000" listens on every interface; write 0.0.0.0:4000 if you mean that, or 127.0.0.1:4000
--listen: 127.0.0.1:1 is taken already, by 127.0.0.1:1 (--metrics): choose another port
--register: identifier has 1 characters, want 52: "culvert identity show FILE" prints it
--connect: identifier has 1 characters, want 52: "culvert identity show FILE" prints it
--extend: "z" has no port: write host:port
`,
		},
		{
			name: "variables", kind: KindRelay,
			env: []string{"CULVERT_IDENTITY=a", "CULVERT_LISTEN=:4000 127.0.0.1:1", "CULVERT_REGISTER=x <ID>\ty"},
			want: `
CULVERT_LISTEN: value 1 of 2: ":4000" listens on every interface; write 0.0.0.0:4000 if you mean that, or 127.0.0.1:4000
CULVERT_REGISTER: value 1 of 3: identifier has 1 characters, want 52: "culvert identity show FILE" prints it
CULVERT_REGISTER: value 3 of 3: identifier has 1 characters, want 52: "culvert identity show FILE" prints it
`,
		},
		{
			name: "an audit log's failure without the log", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: []
audit_failure: ignore
`,
			want: `
relay.yaml:4:16: audit_failure: "ignore": want one of continue, deny
relay.yaml:4:16: audit_failure: there is no audit log that could fail: say where it goes (audit: FILE, stdout or stderr, or --audit)
`,
		},
		{
			name: "a misspelt variable", kind: KindRelay,
			file: `identity: a
listen: [0.0.0.0:4000]
register: []
`,
			env:  []string{"CULVERT_EXTENDS=a:1"},
			want: `CULVERT_EXTENDS: unknown variable (did you mean CULVERT_EXTEND?): rename or remove it`,
		},
	})
}
