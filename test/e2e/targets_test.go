//go:build e2e && linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An end is how a service is written in a settings file.
type end struct {
	place string // the outlet's target, or where the inlet listens; "": w.at("inlet", "db")
	more  string // more of the YAML mapping: ", key: value"
}

// behind starts a relay, an outlet that offers the service db, and an inlet that has
// it; direct leaves the relay out.
func behind(t *testing.T, direct bool, target, listen end) *world {
	t.Helper()
	w := newWorld(t)
	way, reached := w.hop("outlet"), "listen: ["+strconv.Quote("tcp://"+w.addr("outlet"))+"]"
	if !direct {
		w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
		way = w.hop("relay")
		reached = "relays: [" + strconv.Quote(way) + "]"
	}
	w.start("outlet", "outlet", "", fmt.Sprintf("%s\nservices:\n  - {name: db, target: %q, allow: [%s]%s}\n", reached, target.place, w.id("inlet"), target.more)).wantReady()
	if listen.place == "" {
		listen.place = "tcp://" + w.at("inlet", "db")
	}
	w.start("inlet", "inlet", "", fmt.Sprintf("services:\n  - {listen: %q, service: db, outlet: %s, routes: [%q]%s}\n", listen.place, w.id("outlet"), way, listen.more)).wantReady()
	return w
}

// haproxy starts an HAProxy that answers every HTTP request with what it says of the
// connection, and returns its address. bind is more of its bind line.
func haproxy(t *testing.T, bind, answer string) (addr string) {
	t.Helper()
	path, err := find("haproxy", "/usr/sbin")
	if err != nil {
		t.Fatal(err)
	}
	dir, addr := testDir(t), freeAddr(t)
	config := filepath.Join(dir, "haproxy.cfg")
	text := fmt.Sprintf(`defaults
  mode http
  timeout client 30s
frontend test
  bind %s %s
  http-request return status 200 content-type text/plain lf-string "%s"
`, addr, bind, answer)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := startProc("haproxy", unprivileged(exec.Command(path, "-db", "-f", config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("haproxy:\n%s", p.log.tail(20))
		}
	})
	wantListening(t, p, addr)
	return addr
}

// wantListening waits until a server accepts connections.
func wantListening(t *testing.T, p *proc, addr string) {
	t.Helper()
	if !eventually(patience, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil || !p.running()
	}) || !p.running() {
		t.Fatalf("%s does not listen at %s:\n%s", p.name, addr, p.log.tail(20))
	}
}

// askOnce returns the answer to an HTTP request over a connection of its own, and that
// connection's local address.
func askOnce(t *testing.T, addr string) (answer, from string) {
	t.Helper()
	c := dial(t, addr)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	head, body, ok := strings.Cut(string(b), "\r\n\r\n")
	if err != nil || !ok || !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.1 %d", http.StatusOK)) {
		t.Fatalf("got %q, %v", b, err)
	}
	return body, c.LocalAddr().String()
}

// TestProxyProtocol has a real HAProxy read the header, which it requires, and say
// whom it takes for the client.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			target := haproxy(t, "accept-proxy", "%[src]:%[src_port] %[fc_pp_authority] %[fc_pp_unique_id]")
			t.Run("trusted client", func(t *testing.T) {
				w := behind(t, false, end{"tcp://" + target, ", proxy_protocol: " + version + ", trust_client_address: true"}, end{})
				got, from := askOnce(t, w.at("inlet", "db"))
				fields := strings.Fields(got)
				if len(fields) == 0 || fields[0] != from {
					t.Errorf("HAProxy says %q, want the client's address %s", got, from)
				}
				if version == "v2" && (len(fields) != 3 || fields[1] != "db" || !strings.Contains(fields[2], "/")) {
					t.Errorf("HAProxy says %q, want the service and the stream, too", got)
				}
			})
			t.Run("behind a relay", func(t *testing.T) {
				w := behind(t, false, end{"tcp://" + target, ", proxy_protocol: " + version}, end{})
				got, from := askOnce(t, w.at("inlet", "db"))
				if !strings.HasPrefix(got, "127.0.0.1:") || strings.HasPrefix(got, from) {
					t.Errorf("HAProxy says %q, want the connection's own address, of the outlet", got)
				}
			})
			t.Run("direct", func(t *testing.T) {
				w := behind(t, true, end{"tcp://" + target, ", proxy_protocol: " + version}, end{})
				if got, from := askOnce(t, w.at("inlet", "db")); !strings.HasPrefix(got, "127.0.0.1:") || strings.HasPrefix(got, from) {
					t.Errorf("HAProxy says %q, want the inlet's address", got)
				}
			})
		})
	}
}

// A keyPair is a certificate with its key, and who vouches for it: itself.
type keyPair struct{ both, cert, key string }

// newPair makes a certificate for 127.0.0.1.
func newPair(t *testing.T, name string) keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := testDir(t)
	p := keyPair{filepath.Join(dir, "both.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, text := range map[string][]byte{p.cert: cert, p.key: private, p.both: append(cert, private...)} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		giveAway(t, file)
	}
	return p
}

// TestTLSTarget has real TLS servers as targets: HAProxy, which is shown a
// certificate and is told who calls before TLS begins, and OpenSSL's, which is killed.
func TestTLSTarget(t *testing.T) {
	t.Parallel()
	t.Run("haproxy", func(t *testing.T) {
		server, client := newPair(t, "server"), newPair(t, "an outlet")
		target := haproxy(t, fmt.Sprintf("accept-proxy ssl crt %s ca-file %s verify required", server.both, client.cert), "%[src]:%[src_port] %[ssl_fc_protocol] %[ssl_c_s_dn(cn)]")
		w := behind(t, false, end{"tls://" + target, fmt.Sprintf(", proxy_protocol: v2, trust_client_address: true, tls: {ca_file: %s, cert_file: %s, key_file: %s}",
			server.cert, client.cert, client.key)}, end{})
		got, from := askOnce(t, w.at("inlet", "db"))
		if want := from + " TLSv1.3 an outlet"; got != want {
			t.Errorf("HAProxy says %q, want %q", got, want)
		}
	})
	t.Run("not verified", func(t *testing.T) {
		server, other := newPair(t, "server"), newPair(t, "somebody else")
		target := haproxy(t, "ssl crt "+server.both, "hello")
		w := behind(t, false, end{"tls://" + target, fmt.Sprintf(", tls: {ca_file: %s}", other.cert)}, end{})
		wantNewReset(t, w.at("inlet", "db"), patience)
		w.node("outlet").wantLog(t, patience, "target_tls", "tls.ca_file")
		w.node("inlet").wantLog(t, patience, "target_tls")
	})
	t.Run("openssl", func(t *testing.T) {
		path, err := find("openssl", "/usr/bin")
		if err != nil {
			t.Fatal(err)
		}
		server, addr := newPair(t, "server"), freeAddr(t)
		cmd := unprivileged(exec.Command(path, "s_server", "-accept", addr, "-cert", server.cert, "-key", server.key, "-rev", "-quiet"))
		p, err := startProc("openssl", cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.kill)
		wantListening(t, p, addr)
		w := behind(t, false, end{"tls://" + addr, fmt.Sprintf(", tls: {ca_file: %s, min_version: 1.3}", server.cert)}, end{})
		c := dial(t, w.at("inlet", "db"))
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, "stressed\n"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("desserts\n"))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "desserts\n" {
			t.Fatalf("got %q, %v", got, err)
		}
		p.signal(syscall.SIGKILL) // its kernel says FIN; TLS has not said that this was all
		wantReset(t, c, patience)
		w.node("inlet").wantLog(t, patience, "stream", "target_tls")
	})
}

// TestUnixSockets has psql go to an inlet's unix socket and the outlet to PostgreSQL's
// own.
func TestUnixSockets(t *testing.T) {
	_, port := splitAddr(postgresServer.at(t))
	database := filepath.Join(runDir, postgresServer.name, ".s.PGSQL."+port)
	dir := testDir(t)
	path := filepath.Join(dir, ".s.PGSQL.5432")
	w := behind(t, false, end{place: "unix://" + database}, end{"unix://" + path, ", listen_mode: 0660"})
	run := func(sql string) string {
		return strings.TrimSpace(runCommand(t, time.Minute, tool(t, "psql"), "-h", dir, "-p", "5432", "-U", "postgres", "-d", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql))
	}
	if got := run("select 6 * 7, inet_client_addr() is null"); got != "42|t" {
		t.Errorf("psql says %q, want 42 and that it has come by a unix socket", got)
	}
	const size = 1 << 20
	if got, want := run(fmt.Sprintf("select repeat('abcdefgh', %d)", size/8)), strings.Repeat("abcdefgh", size/8); got != want {
		t.Errorf("1 MB: got %d bytes, want %d, equal: %v", len(got), len(want), got == want)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v, want mode 0660", info, err)
	}

	// Killed, the inlet leaves its socket and its clients with a reset; started again
	// it takes the socket's place.
	in := w.node("inlet")
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := nc.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest, which PostgreSQL answers by N
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(nc, b); err != nil || b[0] != 'N' {
		t.Fatalf("PostgreSQL answers %q, %v", b, err)
	}
	in.kill()
	wantReset(t, nc, patience)
	in.restart().wantReady()
	if got := run("select 1"); got != "1" {
		t.Errorf("after a restart: %q", got)
	}
	in.stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestServiceLimits has a place, an idle time and a rate at built programs, at
// either end.
func TestServiceLimits(t *testing.T) {
	t.Parallel()
	limits := ", limits: {connections: 1, idle_timeout: 6s, bytes_per_second: 1MiB}" // idle for longer than a busy machine keeps bytes
	for name, ends := range map[string]struct {
		target, listen end
	}{"inlet": {listen: end{more: limits}}, "outlet": {target: end{more: limits}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ends.target.place = "tcp://" + serveTCP(t, echo)
			w := behind(t, false, ends.target, ends.listen)
			addr := w.at("inlet", "db")
			c := dial(t, addr)
			start := time.Now()
			const size = 1 << 20
			go func() { _, _ = io.Copy(c, noise(7, size)) }()
			want, _, err := sum(noise(7, size))
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			got, n, err := sum(io.LimitReader(c, size))
			if got != want || err != nil {
				t.Fatalf("%d bytes are not the same, %v", n, err)
			}
			if took := time.Since(start); took < 900*time.Millisecond {
				t.Errorf("%d bytes took %v at 1 MiB a second", size, took)
			}
			wantNewReset(t, addr, patience)
			w.node("inlet").wantLog(t, patience, `"limit"`, "limits.connections")
			wantReset(t, c, patience)
			w.node("inlet").wantLog(t, patience, "idle_timeout")
			w.node("outlet").wantLog(t, patience, "idle_timeout")
			wantEcho(t, addr, patience)
		})
	}
}
