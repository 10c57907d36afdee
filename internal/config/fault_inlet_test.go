package config

import "testing"

func TestInletFaults(t *testing.T) {
	testFaults(t, []faultCase{
		{
			name: "unknown key beside", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routs: []
`,
			want: `inlet.yaml:6:5: services[0].routs: unknown key (did you mean "routes"?)`,
		},
		{
			name: "unknown keys at the top", kind: KindInlet,
			file: `Identity: a
service: b
routes: c
register: []
relays: []
foo: x
log-level: info
keep_alive: 5s
"a\nb": 1
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
`,
			want: `
inlet.yaml:1:1: Identity: unknown key (did you mean "identity"?)
inlet.yaml:2:1: service: unknown key (this key belongs to an item of services)
inlet.yaml:3:1: routes: unknown key (this key belongs to an item of services)
inlet.yaml:4:1: register: unknown key (it is a key of the command relay)
inlet.yaml:5:1: relays: unknown key (it is a key of the command outlet)
inlet.yaml:6:1: foo: unknown key: there are admin, audit, audit_failure, authorities, authority, buffers, clock_skew, connect_timeout, drain_timeout, grace, identity, keepalive, kubernetes_token, log_format, log_level, metrics, name, rekey, sandbox, services, state, ticket, ticket_file, tracing
inlet.yaml:7:1: log-level: unknown key (did you mean "log_level"?)
inlet.yaml:8:1: keep_alive: unknown key (did you mean "keepalive"?)
inlet.yaml:9:1: "a\nb": unknown key: there are admin, audit, audit_failure, authorities, authority, buffers, clock_skew, connect_timeout, drain_timeout, grace, identity, keepalive, kubernetes_token, log_format, log_level, metrics, name, rekey, sandbox, services, state, ticket, ticket_file, tracing
`,
		},
		{
			name: "keys of the other end", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    name: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
    target: a:1
    allow: []
`,
			want: `
inlet.yaml:4:5: services[0].name: unknown key (did you mean "service"?)
inlet.yaml:7:5: services[0].target: unknown key (the target is written in the outlet's file)
inlet.yaml:8:5: services[0].allow: unknown key (who may use the service is written in the outlet's file)
`,
		},
		{
			name: "duplicate keys", kind: KindInlet,
			file: `identity: a
identity: b
services:
  - listen: 127.0.0.1:1
    service: a
    service: b
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
`,
			want: `
inlet.yaml:2:1: identity: this key is there already, in line 1: remove one of them
inlet.yaml:6:5: services[0].service: this key is there already, in line 5: remove one of them
`,
		},
		{
			name: "duplicate keys in braces", kind: KindInlet,
			file: `identity: a
services:
  - {listen: "127.0.0.1:1", listen: "127.0.0.1:2", service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID>"]}
`,
			want: `inlet.yaml:3:29: services[0].listen: this key is there already, in line 3: remove one of them`,
		},
		{
			name: "empty file", kind: KindInlet,
			file: `# nothing yet
`,
			want: `
inlet.yaml: identity: missing: name the private identity file (identity: FILE or --identity FILE); "culvert identity new -o FILE" makes one
inlet.yaml: services: missing: say what to listen at and where to carry it (services: in a file, or --listen, --service, --outlet and --route)
`,
		},
		{
			name: "no section", kind: KindInlet,
			file: `just text
`,
			want: `inlet.yaml:1:1: the file holds text: want keys with values, like "identity: relay.key"`,
		},
		{
			name: "a list", kind: KindInlet,
			file: `- a
- b
`,
			want: `inlet.yaml:1:1: the file holds a list: want keys with values, like "identity: relay.key"`,
		},
		{
			name: "wrong types", kind: KindInlet,
			file: `identity: [a]
metrics: {a: b}
admin: true
log_level: 3
connect_timeout: [10s]
services: {listen: a}
`,
			want: `
inlet.yaml:1:11: identity: want one text, not a list
inlet.yaml:2:10: metrics: want one text, not a section: if a text with a colon is meant, write it in quotes
inlet.yaml:3:8: admin: want text, not a boolean: write it in quotes, "true", if it is meant
inlet.yaml:4:12: log_level: want text, not a number: write it in quotes, "3", if it is meant
inlet.yaml:5:18: connect_timeout: want one text, not a list
inlet.yaml:6:11: services: want a list, not a section: begin each service with a dash
`,
		},
		{
			name: "wrong types in a service", kind: KindInlet,
			file: `identity: a
services:
  - text
  - [list]
  - listen: 5432
    service: 12
    outlet: true
    routes: tcp://r:4000/<ID>
  - listen: [127.0.0.1:1]
    service: ~
    outlet:
    routes: [1, true, [a], ~]
`,
			want: `
inlet.yaml:3:5: services[0]: want keys with values, not text
inlet.yaml:4:5: services[1]: want keys with values, not a list
inlet.yaml:5:13: services[2].listen: "5432" is a port without a host: write 127.0.0.1:5432, or 0.0.0.0:5432 to be reached from other machines
inlet.yaml:6:14: services[2].service: want text, not a number: write it in quotes, "12", if it is meant
inlet.yaml:7:13: services[2].outlet: want text, not a boolean: write it in quotes, "true", if it is meant
inlet.yaml:8:13: services[2].routes: want a list, not text: write it as [a, b] or in lines that begin with a dash
inlet.yaml:9:13: services[3].listen: want one text, not a list
inlet.yaml:10:14: services[3].service: has no value: write one, or remove the key
inlet.yaml:11:12: services[3].outlet: has no value: write one, or remove the key
inlet.yaml:12:14: services[3].routes[0]: want text, not a number: write it in quotes, "1", if it is meant
inlet.yaml:12:17: services[3].routes[1]: want text, not a boolean: write it in quotes, "true", if it is meant
inlet.yaml:12:23: services[3].routes[2]: want one text, not a list
inlet.yaml:12:28: services[3].routes[3]: has no value: write one, or remove the line
`,
		},
		{
			name: "listening everywhere by mistake", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: :5432
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
metrics: ":9100"
admin: ":9101"
`,
			want: `
inlet.yaml:3:13: services[0].listen: ":5432" listens on every interface; write 0.0.0.0:5432 if you mean that, or 127.0.0.1:5432
inlet.yaml:7:10: metrics: ":9100" listens on every interface; write 0.0.0.0:9100 if you mean that, or 127.0.0.1:9100
inlet.yaml:8:8: admin: ":9101" listens on every interface; write 0.0.0.0:9101 if you mean that, or 127.0.0.1:9101
`,
		},
		{
			name: "schemes", kind: KindInlet,
			file: `identity: a
metrics: http://127.0.0.1:9100
admin: https://127.0.0.1:1
services:
  - listen: TCP://127.0.0.1:1
    service: a
    outlet: <ID>
    routes: ["http://r:1/<ID>"]
  - listen: unix://a
    service: a
    outlet: <ID>
    routes: ["TCP://r:1/<ID>"]
`,
			want: `
inlet.yaml:2:10: metrics: "http://127.0.0.1:9100": want host:port or tcp://host:port, without http:// (Culvert carries whatever runs on TCP)
inlet.yaml:3:8: admin: "https://127.0.0.1:1": want host:port or tcp://host:port, without https:// (Culvert carries whatever runs on TCP)
inlet.yaml:5:13: services[0].listen: "TCP://127.0.0.1:1": write tcp:// in lower case
inlet.yaml:8:14: services[0].routes[0]: hop 1 of 1: "http://r:1/<ID>" does not begin with tcp://, want tcp://host:port/IDENTIFIER
inlet.yaml:9:13: services[1].listen: "unix://a": want an absolute path: unix:///run/culvert/NAME.sock
inlet.yaml:12:14: services[1].routes[0]: hop 1 of 1: "TCP://r:1/<ID>" does not begin with tcp://, want tcp://host:port/IDENTIFIER
`,
		},
		{
			name: "addresses", kind: KindInlet,
			file: `identity: a
services:
  - {listen: "localhost", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "5432", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "::1:5432", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "[::1:5432", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:http", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:65536", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:0080", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "256.0.0.1:80", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "a_b-.c:1", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "tcp://127.0.0.1:1/x", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: " 127.0.0.1:1", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "a b:1", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
`,
			want: `
inlet.yaml:3:14: services[0].listen: "localhost" has no port: write host:port
inlet.yaml:4:14: services[1].listen: "5432" is a port without a host: write 127.0.0.1:5432, or 0.0.0.0:5432 to be reached from other machines
inlet.yaml:5:14: services[2].listen: "::1:5432": write an IPv6 address in brackets, like [::1]:5432
inlet.yaml:6:14: services[3].listen: "[::1:5432": the [ has no ]
inlet.yaml:7:14: services[4].listen: "127.0.0.1:": there is no port after the colon
inlet.yaml:8:14: services[5].listen: "127.0.0.1:http": port "http": want a number from 1 to 65535
inlet.yaml:9:14: services[6].listen: "127.0.0.1:65536": port "65536": want a number from 1 to 65535
inlet.yaml:10:14: services[7].listen: "127.0.0.1:0080": port "0080": want a number from 1 to 65535
inlet.yaml:11:14: services[8].listen: "256.0.0.1:80": host "256.0.0.1" is no valid IP address
inlet.yaml:12:14: services[9].listen: "a_b-.c:1": host "a_b-.c": a part begins or ends with a hyphen
inlet.yaml:13:14: services[10].listen: "tcp://127.0.0.1:1/x" has "/x" after the port: only host:port belongs here
inlet.yaml:14:14: services[11].listen: " 127.0.0.1:1": host " 127.0.0.1": ' ' cannot be in a host name
inlet.yaml:15:14: services[12].listen: "a b:1": host "a b": ' ' cannot be in a host name
`,
		},
		{
			name: "addresses taken twice", kind: KindInlet,
			file: `identity: a
metrics: 127.0.0.1:1
admin: localhost:2
services:
  - {listen: "127.0.0.1:1", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "tcp://localhost:2", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "0.0.0.0:3", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:3", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "[::]:3", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:0", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:0", service: a, outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
`,
			want: `
inlet.yaml:5:14: services[0].listen: 127.0.0.1:1 is taken already, by 127.0.0.1:1 (metrics in inlet.yaml:2:10): choose another port
inlet.yaml:6:14: services[1].listen: localhost:2 is taken already, by localhost:2 (admin in inlet.yaml:3:8): choose another port
inlet.yaml:8:14: services[3].listen: 127.0.0.1:3 is taken already, by 0.0.0.0:3 (services[2].listen in inlet.yaml:7:14): choose another port
inlet.yaml:9:14: services[4].listen: [::]:3 is taken already, by 0.0.0.0:3 (services[2].listen in inlet.yaml:7:14): choose another port
`,
		},
		{
			name: "service names", kind: KindInlet,
			file: `identity: a
services:
  - {listen: "127.0.0.1:1", service: "Orders", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:2", service: "orders_db", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:3", service: "-a", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:4", service: "a-", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:5", service: "a.b", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:6", service: "", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:7", service: "ä", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:8", service: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", outlet: <ID>, routes: ["tcp://r:1/<ID>"]}
`,
			want: `
inlet.yaml:3:38: services[0].service: "Orders": write the name in lower case
inlet.yaml:4:38: services[1].service: "orders_db" has '_' at position 7: a name has a to z, 0 to 9 and, inside, hyphens
inlet.yaml:5:38: services[2].service: "-a" has '-' at position 1: a name has a to z, 0 to 9 and, inside, hyphens
inlet.yaml:6:38: services[3].service: "a-" has '-' at position 2: a name has a to z, 0 to 9 and, inside, hyphens
inlet.yaml:7:38: services[4].service: "a.b" has '.' at position 2: a name has a to z, 0 to 9 and, inside, hyphens
inlet.yaml:8:38: services[5].service: is empty
inlet.yaml:9:38: services[6].service: "ä" has 'ä' at position 1: a name has a to z, 0 to 9 and, inside, hyphens
inlet.yaml:10:38: services[7].service: the name has 64 characters: at most 63 fit
`,
		},
		{
			name: "identifiers", kind: KindInlet,
			file: `identity: a
services:
  - {listen: "127.0.0.1:1", service: a, outlet: "ABC", routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:2", service: a, outlet: "abc", routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:3", service: a, outlet: "outlet.pub", routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:4", service: a, outlet: "keys/outlet.key", routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:5", service: a, outlet: "tcp://r:1/<ID>", routes: ["tcp://r:1/<ID>"]}
  - {listen: "127.0.0.1:6", service: a, outlet: "<ID>x", routes: ["tcp://r:1/<ID>"]}
`,
			want: `
inlet.yaml:3:49: services[0].outlet: identifier has the upper-case 'A' at position 1: write it in lower case: "culvert identity show FILE" prints it
inlet.yaml:4:49: services[1].outlet: identifier has 3 characters, want 52: "culvert identity show FILE" prints it
inlet.yaml:5:49: services[2].outlet: identifier has '.' at position 7: only a to z and 2 to 7 can occur: want the identifier, which "culvert identity show outlet.pub" prints
inlet.yaml:6:49: services[3].outlet: identifier has '/' at position 5: only a to z and 2 to 7 can occur: want the identifier, which "culvert identity show keys/outlet.key" prints
inlet.yaml:7:49: services[4].outlet: identifier has ':' at position 4: only a to z and 2 to 7 can occur: want the 52 characters alone, without an address
inlet.yaml:8:49: services[5].outlet: identifier has 53 characters, want 52: "culvert identity show FILE" prints it
`,
		},
		{
			name: "routes", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes:
      - tcp://r:4000
      - tcp://r:4000/
      - tcp://r:4000/ABC
      - r:4000/<ID>
      - ""
      - tcp://r/<ID>
      - tcp://r:4000/<ID2>,
      - tcp://a:1/<ID2>
      - tcp://A:1/<ID2>
      - tcp://o:1/<ID>,tcp://r:1/<ID2>
`,
			want: `
inlet.yaml:7:9: services[0].routes[0]: hop 1 of 1: "tcp://r:4000" has no identifier, want tcp://host:port/IDENTIFIER ("culvert identity show FILE" prints it)
inlet.yaml:8:9: services[0].routes[1]: hop 1 of 1: "tcp://r:4000/" has no identifier, want tcp://host:port/IDENTIFIER ("culvert identity show FILE" prints it)
inlet.yaml:9:9: services[0].routes[2]: hop 1 of 1: tcp://r:4000/…: identifier has the upper-case 'A' at position 1: write it in lower case
inlet.yaml:10:9: services[0].routes[3]: hop 1 of 1: "r:4000/<ID>" does not begin with tcp://, want tcp://host:port/IDENTIFIER
inlet.yaml:11:9: services[0].routes[4]: is empty
inlet.yaml:12:9: services[0].routes[5]: hop 1 of 1: "tcp://r/<ID>": address is not host:port: missing port in address
inlet.yaml:13:9: services[0].routes[6]: hop 2 of 2: hop is empty, want tcp://host:port/IDENTIFIER
inlet.yaml:15:9: services[0].routes[8]: this route is in the list twice: remove one
inlet.yaml:16:9: services[0].routes[9]: hop 1 is the outlet itself, so nothing can come after it: end the route there
`,
		},
		{
			name: "no routes", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: []
`,
			want: `inlet.yaml:6:13: services[0].routes: is empty: write at least one route`,
		},
		{
			name: "a route of two hops without quotes", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://a:1/<ID2>,tcp://b:1/<ID>]
`,
			want: `inlet.yaml:6:77: services[0].routes[1]: is this another route, or the next hop of the one before? Write a space after the comma, or a route of several hops in quotes`,
		},
		{
			name: "no services", kind: KindInlet,
			file: `identity: a
services: []
`,
			want: `inlet.yaml:2:11: services: is empty: say what to listen at and where to carry it (services: in a file, or --listen, --service, --outlet and --route)`,
		},
		{
			name: "times", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
connect_timeout: 10
drain_timeout: 0s
keepalive: 500ms
rekey: 999ms
`,
			want: `
inlet.yaml:7:18: connect_timeout: 10 has no unit: write 10s for seconds, or ms, m, h
inlet.yaml:8:16: drain_timeout: 0s is out of range: want 1ms to 24h
inlet.yaml:9:12: keepalive: 500ms is out of range: want 1s to 30s
inlet.yaml:10:8: rekey: 999ms is out of range: want 1s to 24h
`,
		},
		{
			name: "times again", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
connect_timeout: soon
drain_timeout: 25h
keepalive: 31s
rekey: 25h
`,
			want: `
inlet.yaml:7:18: connect_timeout: "soon" is no time: write a number with a unit, like 500ms, 10s, 2m
inlet.yaml:8:16: drain_timeout: 25h is out of range: want 1ms to 24h
inlet.yaml:9:12: keepalive: 31s is out of range: want 1s to 30s
inlet.yaml:10:8: rekey: 25h is out of range: want 1s to 24h
`,
		},
		{
			name: "words", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
log_format: text
log_level: INFO
`,
			want: `
inlet.yaml:7:13: log_format: "text": want one of console, json
inlet.yaml:8:12: log_level: "INFO": want one of debug, info, warn, error
`,
		},
		{
			name: "admin for everybody", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
admin: 0.0.0.0:9101
`,
			want: `inlet.yaml:7:8: admin: "0.0.0.0:9101" can be reached from other machines, and the admin server asks for no password: write 127.0.0.1:9101 or unix:///path`,
		},
		{
			name: "admin by a name", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
admin: example.org:9101
`,
			want: `inlet.yaml:7:8: admin: "example.org:9101" can be reached from other machines, and the admin server asks for no password: write 127.0.0.1:9101 or unix:///path`,
		},
		{
			name: "admin socket with a relative path", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
admin: unix://run/admin.sock
`,
			want: `inlet.yaml:7:8: admin: "unix://run/admin.sock": want an absolute path: unix:///run/culvert/NAME.sock`,
		},
		{
			name: "admin socket with a long path", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
admin: unix:///xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
`,
			want: `inlet.yaml:7:8: admin: the socket's path has 111 characters: at most 103 fit`,
		},
		{
			name: "only a command line", kind: KindInlet,
			want: `
identity: missing: name the private identity file (identity: FILE or --identity FILE); "culvert identity new -o FILE" makes one
services: missing: say what to listen at and where to carry it (services: in a file, or --listen, --service, --outlet and --route)
`,
		},
		{
			name: "flags at fault", kind: KindInlet,
			args: []string{"--identity", "a", "--listen", ":5432", "--service", "Db", "--outlet", "abc", "--route", "r:1", "--route", "tcp://r:1", "--keepalive", "5"},
			want: `
--keepalive: "5" is no time: write a number with a unit, like 500ms, 10s, 2m
--listen: ":5432" listens on every interface; write 0.0.0.0:5432 if you mean that, or 127.0.0.1:5432
--service: "Db": write the name in lower case
--outlet: identifier has 3 characters, want 52: "culvert identity show FILE" prints it
--route: value 1 of 2: hop 1 of 1: "r:1" does not begin with tcp://, want tcp://host:port/IDENTIFIER
--route: value 2 of 2: hop 1 of 1: "tcp://r:1" has no identifier, want tcp://host:port/IDENTIFIER ("culvert identity show FILE" prints it)
`,
		},
		{
			name: "a flag given twice", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
`,
			args: []string{"--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2"},
			want: `--listen: given 2 times: give it once`,
		},
		{
			name: "variables at fault", kind: KindInlet,
			args: []string{"--identity", "a"},
			env:  []string{"CULVERT_LISTEN=:5432", "CULVERT_SERVICE=Db", "CULVERT_OUTLET=abc", "CULVERT_ROUTE=r:1 tcp://r:1", "CULVERT_DRAIN_TIMEOUT=x"},
			want: `
CULVERT_DRAIN_TIMEOUT: "x" is no time: write a number with a unit, like 500ms, 10s, 2m
CULVERT_LISTEN: ":5432" listens on every interface; write 0.0.0.0:5432 if you mean that, or 127.0.0.1:5432
CULVERT_SERVICE: "Db": write the name in lower case
CULVERT_OUTLET: identifier has 3 characters, want 52: "culvert identity show FILE" prints it
CULVERT_ROUTE: value 1 of 2: hop 1 of 1: "r:1" does not begin with tcp://, want tcp://host:port/IDENTIFIER
CULVERT_ROUTE: value 2 of 2: hop 1 of 1: "tcp://r:1" has no identifier, want tcp://host:port/IDENTIFIER ("culvert identity show FILE" prints it)
`,
		},
		{
			name: "a misspelt variable", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
`,
			env: []string{"CULVERT_ROUTES=x", "CULVERT_LISTENS=x", "CULVERT_SERVICE_HOST=10.0.0.1", "CULVERT_PORT=tcp://10.0.0.1:1", "CULVERT_RELAY=a"},
			want: `
CULVERT_LISTENS: unknown variable (did you mean CULVERT_LISTEN?): rename or remove it
CULVERT_ROUTES: unknown variable (did you mean CULVERT_ROUTE?): rename or remove it
`,
		},
		{
			name: "which service", kind: KindInlet,
			file: `identity: a.key
services:
  - listen: 127.0.0.1:1
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
  - listen: 127.0.0.1:2
    service: db
    outlet: <ID>
    routes: [tcp://r:4000/<ID>]
`,
			args: []string{"--listen", "127.0.0.1:7"},
			want: `--listen: the file has 2 services, so it is not clear which one is meant: write it there`,
		},
		{
			name: "the key is no settings file", kind: KindInlet,
			file: `-----BEGIN CULVERT PRIVATE KEY-----
`,
			want: `inlet.yaml: this is an identity file and no settings file: name it with --identity`,
		},
		{
			name: "a relay's file", kind: KindInlet,
			file: `identity: a
listen: [0.0.0.0:4000]
register: [<ID>]
`,
			want: `inlet.yaml:3:1: register: this file is for the command relay, not for inlet: run "relay --config inlet.yaml"`,
		},
		{
			name: "an outlet's file", kind: KindInlet,
			file: `identity: a
services:
  - name: a
    target: a:1
`,
			want: `inlet.yaml:3:5: services[0].name: this file is for the command outlet, not for inlet: run "outlet --config inlet.yaml"`,
		},
	})
}
