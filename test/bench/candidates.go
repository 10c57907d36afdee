//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/culvert-net/culvert/internal/bench"
)

// A candidate is a way to carry TCP to the target.
type candidate struct {
	name  string
	note  string // what it is, for the report
	limit int    // connections at once; 0 for no limit of its own
	// start starts its processes and returns where to dial.
	start func(ch *chain) string
}

// The paths that goals are about.
const (
	pathDirect  = "direct"
	pathSplice  = "splice"
	pathHAProxy = "haproxy-mtls"
	pathStunnel = "stunnel-mtls"
	pathSpiped  = "spiped"
	pathSSH     = "ssh-L"
	withSplice  = "+splice"
	pathDirectC = "culvert"
	pathRelay1  = "culvert-1-relay"
	pathRelay2  = "culvert-2-relays"
)

// many is more connections than any case has.
const many = 6000

func groups(w *world, windows bench.Windows) []group {
	all := candidates()
	byName := map[string]candidate{}
	for _, c := range all {
		byName[c.name] = c
	}
	ready := bench.ReadyCase(w.restart(byName))
	return []group{{base: pathRelay1, candidates: all, cases: append(bench.Cases(windows), ready)}}
}

// candidates returns all that are measured on one machine without a line.
func candidates() []candidate {
	cs := []candidate{
		{pathDirect, "the load dials the target", 0, func(ch *chain) string { return ch.w.target }},
		{"socat", "socat TCP-LISTEN,fork: a process for each connection", 1000, socat},
		{"haproxy", "HAProxy, mode tcp", 0, haproxyPlain},
		{pathSplice, "a plain proxy in Go: io.Copy, which is splice(2)", 0, func(ch *chain) string { return ch.splice(ch.w.target) }},
	}
	pairs := []candidate{
		{pathHAProxy, "HAProxy to HAProxy, TLS 1.3 with certificates on both sides", 0, haproxyPair},
		{pathStunnel, "stunnel to stunnel, TLS 1.3 with certificates on both sides, TCP_NODELAY", 0, stunnelPair},
		{pathSpiped, "spiped to spiped", 0, spipedPair},
		{pathSSH, "ssh -L to a real sshd", 0, sshForward},
	}
	for _, c := range pairs {
		cs = append(cs, c)
		with := c
		with.name, with.note = c.name+withSplice, c.note+", with a plain splice proxy between"
		cs = append(cs, with)
	}
	return append(cs,
		candidate{pathDirectC, "inlet to outlet", 0, func(ch *chain) string { return culvert(ch, 0) }},
		candidate{pathRelay1, "inlet, relay, outlet", 0, func(ch *chain) string { return culvert(ch, 1) }},
		candidate{pathRelay2, "inlet, relay, relay, outlet", 0, func(ch *chain) string { return culvert(ch, 2) }},
	)
}

// splice starts a plain splice proxy before an address and returns where it
// listens.
func (ch *chain) splice(target string) string {
	addr := ch.addr()
	ch.run(ch.w.self, spliceCommand, addr, target)
	ch.part = len(ch.procs) - 1
	return addr
}

// between puts a splice proxy before the far half of a pair, where the
// candidate's name says so.
func (ch *chain) between(far string) string {
	if !strings.HasSuffix(ch.name, withSplice) {
		return far
	}
	ch.await(far)
	near := ch.splice(far)
	ch.await(near)
	return near
}

func split(addr string) (host, port string) {
	host, port, _ = strings.Cut(addr, ":") // made by chain.addr
	return host, port
}

func socat(ch *chain) string {
	addr := ch.addr()
	host, port := split(addr)
	ch.run("socat", "TCP-LISTEN:"+port+",bind="+host+",fork,reuseaddr,nodelay,backlog=1024", "TCP:"+ch.w.target+",nodelay")
	return addr
}

// haproxyConfig is all defaults, but for the time-outs, without which HAProxy
// warns, and the number of connections.
func haproxyConfig(listen, server string) string {
	return fmt.Sprintf(`global
  maxconn %d
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen bench
  bind %s
  server far %s
`, many, listen, server)
}

func haproxyPlain(ch *chain) string {
	addr := ch.addr()
	ch.run("haproxy", "-db", "-f", ch.write("haproxy.cfg", haproxyConfig(addr, ch.w.target)))
	return addr
}

func haproxyPair(ch *chain) string {
	w, near, far := ch.w, ch.addr(), ch.addr()
	ca := w.path("ca.pem")
	ch.run("haproxy", "-db", "-f", ch.write("far.cfg", haproxyConfig(
		fmt.Sprintf("%s ssl crt %s ca-file %s verify required ssl-min-ver TLSv1.3", far, w.path("far.pem"), ca), w.target)))
	ch.run("haproxy", "-db", "-f", ch.write("near.cfg", haproxyConfig(near,
		fmt.Sprintf("%s ssl crt %s ca-file %s verify required verifyhost far ssl-min-ver TLSv1.3", ch.between(far), w.path("near.pem"), ca))))
	return near
}

func stunnelPair(ch *chain) string {
	w, near, far := ch.w, ch.addr(), ch.addr()
	config := func(cert, client, accept, connect, more string) string {
		return fmt.Sprintf(`foreground = yes
pid =
debug = 3
sslVersion = TLSv1.3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[bench]
client = %s
accept = %s
connect = %s
cert = %s
CAfile = %s
verifyChain = yes
%s
`, client, accept, connect, cert, w.path("ca.pem"), more)
	}
	ch.run("stunnel4", ch.write("far.conf", config(w.path("far.pem"), "no", far, w.target, "")))
	ch.run("stunnel4", ch.write("near.conf", config(w.path("near.pem"), "yes", near, ch.between(far), "checkHost = far")))
	return near
}

func spipedPair(ch *chain) string {
	near, far := ch.addr(), ch.addr()
	key := ch.write("key", strings.Repeat("k", 32))
	limit := fmt.Sprint(many)
	ch.run("spiped", "-d", "-F", "-n", limit, "-s", far, "-t", ch.w.target, "-k", key)
	ch.run("spiped", "-e", "-F", "-n", limit, "-s", near, "-t", ch.between(far), "-k", key)
	return near
}

// sshForward starts an sshd of its own, with AES-GCM as the others have it: the
// client's first choice would be ChaCha20-Poly1305.
func sshForward(ch *chain) string {
	near, far := ch.addr(), ch.addr()
	_, port := split(far)
	for _, name := range []string{"host", "client"} {
		path := ch.w.path(ch.name + "-" + name + "-key")
		if err := os.RemoveAll(path); err != nil {
			ch.note(err)
		}
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
			ch.note(fmt.Errorf("ssh-keygen: %w: %s", err, out))
		}
	}
	key := func(name string) string { return ch.w.path(ch.name + "-" + name + "-key") }
	if os.Geteuid() == 0 {
		ch.note(os.MkdirAll("/run/sshd", 0o755))
	}
	ch.run("/usr/sbin/sshd", "-D", "-e", "-f", ch.write("sshd_config", fmt.Sprintf(`Port %s
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
LogLevel ERROR
`, port, key("host"), key("client")+".pub")))
	ch.await(far)
	_, port = split(ch.between(far))
	ch.run("ssh", "-N", "-F", "none", "-i", key("client"), "-p", port, "-c", "aes256-gcm@openssh.com",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=ERROR",
		"-L", near+":"+ch.w.target, "127.0.0.1")
	return near
}

// culvert starts an outlet, so many relays before it, and an inlet, all with
// their defaults, and returns the inlet's address.
func culvert(ch *chain, relays int) string {
	far := ch.addr()
	in, out := ch.id("inlet"), ch.id("outlet")
	var hops []string
	if relays == 0 {
		hops = []string{"tcp://" + far + "/" + out}
		ch.program("outlet", "--listen", "tcp://"+far)
	}
	next := "" // the relay behind, nearer to the outlet
	for i := relays; i > 0; i-- {
		name, addr := fmt.Sprint("relay-", i), ch.addr()
		args := []string{"--listen", "tcp://" + addr, "--connect", in}
		if next == "" {
			args = append(args, "--register", out)
		} else {
			args = append(args, "--extend", "tcp://"+next)
		}
		hops = append([]string{"tcp://" + addr + "/" + ch.id(name)}, hops...)
		ch.culvertProgram("relay", name, args...)
		ch.part = len(ch.procs) - 1
		if next == "" {
			ch.program("outlet", "--relay", hops[0])
		}
		next = addr
	}
	near := ch.addr()
	ch.program("inlet", "--listen", "tcp://"+near, "--service", "bench", "--outlet", out, "--route", strings.Join(hops, ","))
	return near
}

// program starts an inlet or outlet for the one service.
func (ch *chain) program(kind string, args ...string) {
	if kind == "outlet" {
		args = append(args, "--service", "bench=tcp://"+ch.w.target, "--allow", ch.id("inlet"))
	}
	ch.culvertProgram(kind, kind, args...)
}

func (ch *chain) culvertProgram(kind, identity string, args ...string) {
	ch.id(identity)
	args = append([]string{"--identity", ch.w.path(identity + ".key"), "--log-level", "warn"}, args...)
	ch.run(filepath.Join(ch.w.bin, kind), args...)
}
