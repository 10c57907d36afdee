package config

import "testing"

func TestOutletFaults(t *testing.T) {
	testFaults(t, []faultCase{
		{
			name: "nothing", kind: KindOutlet,
			file: `identity: a
`,
			want: `
outlet.yaml: relays: missing: say where inlets can reach this outlet (relays: [tcp://host:port/IDENTIFIER] or --relay; or listen: to accept them directly)
outlet.yaml: services: missing: say what to offer (services: in a file, or --service NAME=HOST:PORT and --allow IDENTIFIER)
`,
		},
		{
			name: "nobody can reach it", kind: KindOutlet,
			file: `identity: a
relays: []
services:
  - name: a
    target: a:1
    allow: [<ID>]
`,
			want: `outlet.yaml:2:9: relays: is empty: nothing could reach this outlet: write a relay's route, or an address in listen`,
		},
		{
			name: "services", kind: KindOutlet,
			file: `identity: a
listen: [0.0.0.0:4001]
services:
  - name: x
    target: :5432
  - name: x
    target: https://a:1
    allow: [<ID>, <ID>, no]
  - service: y
    target: 5432
    allow: <ID>
  - name: z
    target: unix://a
    allow: []
    routes: []
`,
			want: `
outlet.yaml:4:5: services[0].allow: missing: nobody could use the service: list the identifiers of the inlets that may (allow: [IDENTIFIER] or --allow)
outlet.yaml:5:13: services[0].target: ":5432" has no host: write 127.0.0.1:5432 if this machine is meant
outlet.yaml:6:11: services[1].name: another service has the name "x" already (outlet.yaml:4:11): choose another
outlet.yaml:7:13: services[1].target: "https://a:1": want host:port or tcp://host:port, without https:// (Culvert carries whatever runs on TCP)
outlet.yaml:8:67: services[1].allow[1]: <ID> is in the list twice: remove one
outlet.yaml:8:121: services[1].allow[2]: identifier has 2 characters, want 52: "culvert identity show FILE" prints it
outlet.yaml:9:5: services[2].service: unknown key (did you mean "name"?)
outlet.yaml:10:13: services[2].target: "5432" is a port without a host: write 127.0.0.1:5432 if this machine is meant
outlet.yaml:11:12: services[2].allow: want a list, also of one identifier: write it in brackets, [IDENTIFIER]
outlet.yaml:13:13: services[3].target: "unix://a": want an absolute path: unix:///run/culvert/NAME.sock
outlet.yaml:15:5: services[3].routes: unknown key (this key belongs in the inlet's file)
`,
		},
		{
			name: "targets", kind: KindOutlet,
			file: `identity: a
listen: [0.0.0.0:4001]
services:
  - {name: a, target: "a:0", allow: [<ID>]}
  - {name: b, target: a, allow: [<ID>]}
  - {name: c, target: "tcp://a:1/<ID>", allow: [<ID>]}
  - {name: d, target: "", allow: [<ID>]}
`,
			want: `
outlet.yaml:4:23: services[0].target: "a:0": port 0 cannot be dialled: want a number from 1 to 65535
outlet.yaml:5:23: services[1].target: "a" has no port: write host:port
outlet.yaml:6:23: services[2].target: "tcp://a:1/<ID>" has "/<ID>" after the port: only host:port belongs here
outlet.yaml:7:23: services[3].target: is empty
`,
		},
		{
			name: "listen", kind: KindOutlet,
			file: `identity: a
listen: [":4001", "127.0.0.1:1", "127.0.0.1:1"]
metrics: 127.0.0.1:1
services: [{name: a, target: "a:1", allow: [<ID>]}]
`,
			want: `
outlet.yaml:2:10: listen[0]: ":4001" listens on every interface; write 0.0.0.0:4001 if you mean that, or 127.0.0.1:4001
outlet.yaml:2:19: listen[1]: 127.0.0.1:1 is taken already, by 127.0.0.1:1 (metrics in outlet.yaml:3:10): choose another port
outlet.yaml:2:34: listen[2]: 127.0.0.1:1 is taken already, by 127.0.0.1:1 (metrics in outlet.yaml:3:10): choose another port
`,
		},
		{
			name: "flags", kind: KindOutlet,
			args: []string{"--service", "x", "--service", "=a:1", "--service", "x=", "--service", "ok=a:1", "--service", "Y=a:0", "--relay", "r:1", "--dial-timeout", "x"},
			want: `
--service: "x": want NAME=HOST:PORT
--service: "=a:1": neither the name nor the target may be empty: want NAME=HOST:PORT
--service: "x=": neither the name nor the target may be empty: want NAME=HOST:PORT
--relay: hop 1 of 1: "r:1" does not begin with tcp://, want tcp://host:port/IDENTIFIER
--dial-timeout: "x" is no time: write a number with a unit, like 500ms, 10s, 2m
--service: missing: nobody could use the service: list the identifiers of the inlets that may (allow: [IDENTIFIER] or --allow)
--service: "Y": write the name in lower case
--service: "a:0": port 0 cannot be dialled: want a number from 1 to 65535
identity: missing: name the private identity file (identity: FILE or --identity FILE); "culvert identity new -o FILE" makes one
`,
		},
		{
			name: "allow without a service", kind: KindOutlet,
			args: []string{"--identity", "a", "--relay", "tcp://a:1/<ID>", "--allow", "<ID>"},
			want: `
--allow: there is no service to allow it for: add --service NAME=HOST:PORT
services: missing: say what to offer (services: in a file, or --service NAME=HOST:PORT and --allow IDENTIFIER)
`,
		},
		{
			name: "allow for several services of a file", kind: KindOutlet,
			file: `identity: a
listen: [127.0.0.1:1]
services: [{name: a, target: "a:1", allow: [<ID>]}, {name: b, target: "a:1", allow: [<ID>]}]
`,
			args: []string{"--allow", "<ID2>"},
			want: `--allow: the file has 2 services, so it is not clear which one is meant: write it there`,
		},
		{
			name: "an inlet's file", kind: KindOutlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
`,
			want: `outlet.yaml:3:5: services[0].listen: this file is for the command inlet, not for outlet: run "inlet --config outlet.yaml"`,
		},
		{
			name: "limits", kind: KindOutlet,
			file: `identity: a
listen: [0.0.0.0:4001]
limits:
  handshakes_per_second: 0
  connections: 5
  handshakes: 5
services: [{name: a, target: "a:1", allow: [<ID>]}]
`,
			want: `
outlet.yaml:4:26: limits.handshakes_per_second: want a whole number from 1 to 10000000
outlet.yaml:5:3: limits.connections: unknown key (it is a limit of a service: write it under limits of an item of services)
outlet.yaml:6:3: limits.handshakes: unknown key: there are handshakes_per_second
`,
		},
		{
			name: "keys of others", kind: KindOutlet,
			file: `identity: a
relays: [tcp://a:1/<ID>]
connect_timeout: 10s
extend: []
routes: []
name: a b
grace: 2h
buffers: 10
services: [{name: a, target: "a:1", allow: [<ID>]}]
`,
			want: `
outlet.yaml:3:1: connect_timeout: unknown key (it is a key of the command inlet)
outlet.yaml:4:1: extend: unknown key (it is a key of the command relay)
outlet.yaml:5:1: routes: unknown key (did you mean "relays"?)
outlet.yaml:6:7: name: a name has letters, digits, dots, hyphens and underscores only, not ' '
outlet.yaml:7:8: grace: 2h is out of range: want 1s to 1h
outlet.yaml:8:10: buffers: want at least 1MiB
`,
		},
	})
}
