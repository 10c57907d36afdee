package config

import (
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestServiceFaults(t *testing.T) {
	testFaults(t, []faultCase{
		{
			name: "targets", kind: KindOutlet,
			file: `identity: a
listen: [0.0.0.0:4001]
services:
  - {name: a, target: "tls://a", allow: [<ID>]}
  - {name: b, target: "tls://a:0", allow: [<ID>]}
  - {name: c, target: "unix://relative.sock", allow: [<ID>]}
  - {name: d, target: "unix:///run/", allow: [<ID>]}
  - {name: e, target: "unix:///` + strings.Repeat("x", 103) + `", allow: [<ID>]}
  - {name: f, target: "TLS://a:1", allow: [<ID>]}
`,
			want: `
outlet.yaml:4:23: services[0].target: "a" has no port: write host:port
outlet.yaml:5:23: services[1].target: "a:0": port 0 cannot be dialled: want a number from 1 to 65535
outlet.yaml:6:23: services[2].target: "unix://relative.sock": want an absolute path: unix:///run/culvert/NAME.sock
outlet.yaml:7:23: services[3].target: "unix:///run/": want an absolute path: unix:///run/culvert/NAME.sock
outlet.yaml:8:23: services[4].target: the socket's path has 104 characters: at most 103 fit
outlet.yaml:9:23: services[5].target: "TLS://a:1": want host:port or tcp://host:port, without TLS:// (Culvert carries whatever runs on TCP)
`,
		},
		{
			name: "contradictions", kind: KindOutlet,
			file: `identity: a
listen: [0.0.0.0:4001]
services:
  - name: a
    target: tcp://a:1
    allow: [<ID>]
    tls: {ca_file: ca.pem}
    trust_client_address: true
  - name: b
    target: tls://a:1
    allow: [<ID>]
    proxy_protocol: 2
    tls: {cert_file: c.pem, min_version: 1.1, server_name: "a:1", insecure_skip_verify: true, ca: x}
  - name: c
    target: tls://a:1
    allow: [<ID>]
    proxy_protocol: v3
    trust_client_address: yes
    tls: {key_file: k.pem}
`,
			want: `
outlet.yaml:7:10: services[0].tls: the target is not spoken TLS with: write target: tls://HOST:PORT, or remove this section
outlet.yaml:8:27: services[0].trust_client_address: the target is told no address: write proxy_protocol: v2, or v1, or remove it
outlet.yaml:12:21: services[1].proxy_protocol: "2": want one of v1, v2
outlet.yaml:13:10: services[1].tls.key_file: missing: the key of the certificate under cert_file; name the file of both twice where they are in one
outlet.yaml:13:42: services[1].tls.min_version: "1.1": want one of 1.2, 1.3
outlet.yaml:13:60: services[1].tls.server_name: "a:1" is no name that a certificate can have: want a DNS name or an IP address, without a port
outlet.yaml:13:67: services[1].tls.insecure_skip_verify: unknown key (a target's certificate is always verified: name who vouches for it under ca_file)
outlet.yaml:13:95: services[1].tls.ca: unknown key (did you mean "ca_file"?)
outlet.yaml:17:21: services[2].proxy_protocol: "v3": want one of v1, v2
outlet.yaml:18:27: services[2].trust_client_address: want true or false
outlet.yaml:19:10: services[2].tls.cert_file: missing: the certificate whose key is under key_file
`,
		},
		{
			name: "limits", kind: KindOutlet,
			file: `identity: a
listen: [0.0.0.0:4001]
limits: {connections: 5}
services:
  - name: a
    target: tcp://a:1
    allow: [<ID>]
    limits: {connections: 0, idle_timeout: 10, bytes_per_second: 10, handshakes_per_second: 5, idle: 5s}
`,
			want: `
outlet.yaml:3:10: limits.connections: unknown key (it is a limit of a service: write it under limits of an item of services)
outlet.yaml:8:27: services[0].limits.connections: want a whole number from 1 to 10000000
outlet.yaml:8:44: services[0].limits.idle_timeout: 10 has no unit: write 10s for seconds, or ms, m, h
outlet.yaml:8:66: services[0].limits.bytes_per_second: 10 is next to nothing: want at least 1024, or leave it out for no limit
outlet.yaml:8:70: services[0].limits.handshakes_per_second: unknown key (it is a limit of all services together: write it under limits at the top)
outlet.yaml:8:96: services[0].limits.idle: unknown key (did you mean "idle_timeout"?)
`,
		},
		{
			name: "sockets to listen at", kind: KindInlet,
			file: `identity: a
services:
  - {listen: "unix://a", service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
  - {listen: "unix:///run/a.sock", listen_mode: 0666, service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
  - {listen: "unix:///run/a.sock", listen_mode: rw, service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
  - {listen: "unix:///run/b.sock", listen_mode: "0400", service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
  - {listen: "unix:///run/c.sock", listen_mode: 1777, service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
  - {listen: "127.0.0.1:1", listen_mode: 0600, service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
  - {listen: "tls://127.0.0.1:2", service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
`,
			want: `
inlet.yaml:3:14: services[0].listen: "unix://a": want an absolute path: unix:///run/culvert/NAME.sock
inlet.yaml:5:14: services[2].listen: unix:///run/a.sock is taken already, by unix:///run/a.sock (services[1].listen in inlet.yaml:4:14): choose another port
inlet.yaml:5:49: services[2].listen_mode: "rw" is no mode of a file: want one like 0600, the owner's alone, 0660, its group's too, or 0666, everybody's
inlet.yaml:6:49: services[3].listen_mode: "0400" keeps its owner out: want one like 0600, 0660 or 0666
inlet.yaml:7:49: services[4].listen_mode: "1777" is no mode of a file: want one like 0600, the owner's alone, 0660, its group's too, or 0666, everybody's
inlet.yaml:8:42: services[5].listen_mode: is for a unix socket: write listen: unix:///PATH, or remove it
inlet.yaml:9:14: services[6].listen: "tls://127.0.0.1:2": want host:port or tcp://host:port, without tls:// (Culvert carries whatever runs on TCP)
`,
		},
	})
}

func TestLoadServices(t *testing.T) {
	file := inFolder(t, KindOutlet, `identity: a
listen: [0.0.0.0:4001]
services:
  - name: secure
    target: tls://Db.example:5433
    tls: {ca_file: ca.pem, server_name: db.internal, cert_file: /etc/c.pem, key_file: k.pem, min_version: 1.3}
    allow: [<ID>]
    proxy_protocol: v2
    trust_client_address: true
    limits: {connections: 100, idle_timeout: 10m, bytes_per_second: 10MiB}
  - name: local
    target: unix:///run/postgresql/.s.PGSQL.5432
    allow: [<ID>]
    proxy_protocol: v1
  - name: plain
    target: a:1
    allow: [<ID>]
`)
	c, err := LoadOutlet(source(t, KindOutlet, file, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Services[0]
	if want := (TargetTLS{CAFile: "ca.pem", ServerName: "db.internal", CertFile: "/etc/c.pem", KeyFile: "k.pem", MinVersion: "1.3"}); s.TLS == nil || *s.TLS != want {
		t.Errorf("tls: %+v, want %+v", s.TLS, want)
	}
	if want := (ServiceLimits{Connections: 100, IdleTimeout: 10 * time.Minute, BytesPerSecond: 10 << 20}); s.Limits != want {
		t.Errorf("limits: %+v, want %+v", s.Limits, want)
	}
	if s.ProxyProtocol != 2 || !s.TrustClientAddress || c.Services[1].ProxyProtocol != 1 || c.Services[2].ProxyProtocol != 0 {
		t.Errorf("proxy_protocol: %+v", c.Services)
	}
	for i, want := range []string{"tls://db.example:5433", "unix:///run/postgresql/.s.PGSQL.5432", "a:1"} {
		if got := c.Services[i].Shown(); got != want {
			t.Errorf("the target of %s is shown as %q, want %q", c.Services[i].Name, got, want)
		}
	}
	if network, address := c.Services[1].Target.Net(); network != "unix" || address != "/run/postgresql/.s.PGSQL.5432" {
		t.Errorf("a unix target is dialled at %s %s", network, address)
	}

	file = inFolder(t, KindInlet, `identity: a
services:
  - listen: unix:///run/a.sock
    listen_mode: 0660
    service: a
    outlet: <ID>
    routes: ["tcp://r:4000/<ID2>"]
    limits: {connections: 3}
  - {listen: "unix:///run/b.sock", service: a, outlet: <ID>, routes: ["tcp://r:4000/<ID2>"]}
`)
	in := mustLoadInlet(t, source(t, KindInlet, file, nil, nil))
	if s := in.Services[0]; s.Listen != (Address{Path: "/run/a.sock"}) || s.ListenMode != fs.FileMode(0o660) || s.Limits.Connections != 3 {
		t.Errorf("%+v", s)
	}
	if s := in.Services[1]; s.ListenMode != 0 {
		t.Errorf("a mode that was not written: %o", s.ListenMode)
	}

	in = mustLoadInlet(t, source(t, KindInlet, "", []string{"--identity", "a", "--listen", "unix:///run/a.sock", "--service", "a", "--outlet", "<ID>", "--route", "tcp://r:4000/<ID2>"}, nil))
	if in.Services[0].Listen.URL() != "unix:///run/a.sock" {
		t.Errorf("by a flag: %+v", in.Services[0])
	}
	c, err = LoadOutlet(source(t, KindOutlet, "", []string{"--identity", "a", "--listen", "127.0.0.1:0", "--service", "a=tls://b:1", "--service", "c=unix:///d", "--allow", "<ID>"}, nil))
	if err != nil || c.Services[0].TLS == nil || c.Services[1].Target.Path != "/d" {
		t.Errorf("by flags: %+v, %v", c, err)
	}
}

func TestSocketsOverlap(t *testing.T) {
	a, b := Address{Path: "/a"}, Address{Path: "/b"}
	tcp := Address{Host: "0.0.0.0", Port: 1}
	if !a.overlaps(a) || a.overlaps(b) || a.overlaps(tcp) || tcp.overlaps(a) {
		t.Error("a socket is in the way of another one, or not of itself")
	}
	if !a.Loopback() || a.IsZero() || !(Address{}).IsZero() {
		t.Error("a socket is this machine's alone, and no zero address")
	}
}
