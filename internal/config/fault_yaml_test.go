package config

import "testing"

func TestYAMLFaults(t *testing.T) {
	testFaults(t, []faultCase{
		{
			name: "tab", kind: KindRelay,
			file: "identity: a\n\tlisten: b\n",
			want: `relay.yaml:2:1: not YAML: found character '	' that cannot start any token: indent with spaces, not with tabs`,
		},
		{
			name: "quote without end", kind: KindRelay,
			file: `identity: "a
`,
			want: `relay.yaml:1:11: not YAML: could not find end character of double-quoted text`,
		},
		{
			name: "bracket without end", kind: KindRelay,
			file: `listen: [a
`,
			want: `relay.yaml:1:9: not YAML: sequence end token ']' not found`,
		},
		{
			name: "two colons", kind: KindRelay,
			file: `identity: a: b
`,
			want: `relay.yaml:1:11: not YAML: mapping value is not allowed in this context: check the indentation, or put a text that holds a colon and a space in quotes`,
		},
		{
			name: "indentation", kind: KindRelay,
			file: `identity: a
  listen: b
`,
			want: `relay.yaml:1:11: not YAML: mapping value is not allowed in this context: check the indentation, or put a text that holds a colon and a space in quotes`,
		},
		{
			name: "anchor and alias", kind: KindRelay,
			file: `identity: &a x
metrics: *a
`,
			want: `
relay.yaml: listen: missing: say where to accept callers (listen: [tcp://0.0.0.0:4000] or --listen)
relay.yaml: register: missing: this relay would serve nobody: say who may offer an outlet (register: or --register) and who may connect to one or be carried on (connect: or --connect)
relay.yaml:1:11: identity: anchors and aliases (&name, *name) are not used here: write the value itself
relay.yaml:2:10: metrics: anchors and aliases (&name, *name) are not used here: write the value itself
`,
		},
		{
			name: "tag and merge key", kind: KindRelay,
			file: `identity: !!str x
<<: {a: b}
`,
			want: `
relay.yaml: listen: missing: say where to accept callers (listen: [tcp://0.0.0.0:4000] or --listen)
relay.yaml: register: missing: this relay would serve nobody: say who may offer an outlet (register: or --register) and who may connect to one or be carried on (connect: or --connect)
relay.yaml:1:11: identity: tags (!name) are not used here: write the value itself
relay.yaml:2:1: merge keys (<<) are not used here: write the keys themselves
`,
		},
		{
			name: "a list as a key", kind: KindRelay,
			file: `? [a]
: b
`,
			want: `relay.yaml:2:1: not YAML: found an invalid key for this map`,
		},
		{
			name: "two documents", kind: KindRelay,
			file: `identity: a
---
identity: b
`,
			want: `relay.yaml:3:1: a second document begins here: one file holds one command's settings, so split the file at the ---`,
		},
		{
			name: "no UTF-8", kind: KindRelay,
			file: "identity: a\nx: \xff\n",
			want: `relay.yaml:2:4: byte 0xff is not UTF-8: save the file as UTF-8 text`,
		},
		{
			name: "NUL", kind: KindRelay,
			file: "identity: \xc3\xa4\x00\n",
			want: `relay.yaml:1:12: control character 0x00: is this a text file?`,
		},
		{
			name: "carriage return", kind: KindRelay,
			file: "identity: a\rlisten: b\r",
			want: `relay.yaml:1:12: a carriage return without a line feed: save the file with LF or CRLF line ends`,
		},
		{
			name: "deep brackets", kind: KindRelay,
			file: `a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]`,
			want: `relay.yaml:1:20: nested more than 16 deep`,
		},
		{
			name: "deep dashes", kind: KindRelay,
			file: `a:
  - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - x
`,
			want: `relay.yaml:2:35: nested more than 16 deep`,
		},
		{
			name: "variables in brackets without quotes", kind: KindRelay,
			file: `listen: [${A}]
`,
			want: `relay.yaml:1:11: not YAML: ',' or ']' must be specified: inside [ ] write variables in quotes, like "${NAME}"`,
		},
		{
			name: "no such variable", kind: KindRelay,
			file: `identity: ${NOPE}
listen: ["${HOST}:4000"]
register: ["${ID"]
log_level: ${A-b}
log_format: $HOME
admin: ${}
`,
			env: []string{"HOST=10.0.0.1"},
			want: `
relay.yaml:1:11: identity: the environment variable NOPE is not set: set it, or write $${NOPE} for the text itself
relay.yaml:3:12: register[0]: "${ID" has a ${ without a }
relay.yaml:4:12: log_level: ${A-b}: a variable's name has letters, digits and _ only (there are no defaults or other operators)
relay.yaml:5:13: log_format: a single $: write ${NAME} for a variable, or $$ for a dollar sign
relay.yaml:6:8: admin: ${}: a variable's name has letters, digits and _ only (there are no defaults or other operators)
`,
		},
		{
			name: "what variables hold", kind: KindRelay,
			file: `identity: ${EMPTY}
listen: ["${BAD}"]
register: []
keepalive: ${NUMBER}
limits: {connections: "${BAD}"}
`,
			env: []string{"EMPTY=", "BAD=$${X}, y: z", "NUMBER=10"},
			want: `
relay.yaml:1:11: identity: is empty
relay.yaml:2:10: listen[0]: "$${X}, y: z": port " z": want a number from 1 to 65535
relay.yaml:4:12: keepalive: "10" is no time: write a number with a unit, like 500ms, 10s, 2m
relay.yaml:5:23: limits.connections: want a whole number from 1 to 10000000
`,
		},
	})
}
