//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/culvert-net/culvert/internal/bench"
	"github.com/culvert-net/culvert/internal/bench/rig"
)

// The paths that goals are about.
const (
	pathDirect    = "direct"
	pathSplice    = "splice"
	pathHAProxy   = "haproxy-mtls"
	pathStunnel   = "stunnel-mtls"
	pathSpiped    = "spiped"
	pathSSH       = "ssh-L"
	pathBare      = "bare-records"
	withSplice    = "+splice"
	pathDirectC   = "culvert"
	pathOwnSplice = pathDirectC + withSplice
	pathRelay1    = "culvert-1-relay"
	pathRelay2    = "culvert-2-relays"
)

// many is more connections than any case has.
const many = 6000

// groups returns all that is to be measured.
func groups(r *rig.Rig, windows bench.Windows) []group {
	all := candidates()
	var cases, once []*bench.Case
	for _, c := range append(bench.Cases(windows), bench.ReadyCase(restart(r, all))) {
		if c.Once {
			once = append(once, c)
		} else {
			cases = append(cases, c)
		}
	}
	// Memory is measured on processes that have done nothing before.
	gs := []group{{pathRelay1, all, cases}, {pathRelay1, all, once}}
	for _, rtt := range lineTimes {
		gs = append(gs, group{base: pathRelay1, candidates: lineCandidates(rtt), cases: bench.LineCases(lineName(rtt), bench.LineWindows())})
	}
	return gs
}

// candidates returns all that are measured on one machine without a line.
func candidates() []rig.Candidate {
	cs := []rig.Candidate{
		{Name: pathDirect, Note: "the load dials the target", Start: func(ch *rig.Chain) string { return ch.Target() }},
		{Name: "socat", Note: "socat TCP-LISTEN,fork: a process for each connection", Limit: 1000, Start: socat},
		{Name: "haproxy", Note: "HAProxy, mode tcp", Start: haproxyPlain},
		{Name: pathSplice, Note: "a plain proxy in Go: io.Copy, which is splice(2)", Start: func(ch *rig.Chain) string { return startSplice(ch, ch.Target()) }},
	}
	pairs := []rig.Candidate{
		{Name: pathHAProxy, Note: "HAProxy to HAProxy, TLS 1.3 with certificates on both sides", Start: func(ch *rig.Chain) string { return haproxyPair(ch, between(ch)) }},
		{Name: pathStunnel, Note: "stunnel to stunnel, TLS 1.3 with certificates on both sides, TCP_NODELAY", Start: stunnelPair},
		{Name: pathSpiped, Note: "spiped to spiped", Start: spipedPair},
		{Name: pathSSH, Note: "ssh -L to a real sshd", Start: sshForward},
		{Name: pathBare, Note: "nothing but records of AES-256-GCM: no handshake, one connection for each stream", Start: barePair},
	}
	for _, c := range pairs {
		cs = append(cs, c)
		with := c
		with.Name, with.Note = c.Name+withSplice, c.Note+", with a plain splice proxy between"
		cs = append(cs, with)
	}
	return append(cs,
		rig.Candidate{Name: pathOwnSplice, Note: "inlet, a plain splice proxy, outlet", Start: func(ch *rig.Chain) string { return ch.Culvert(0, between(ch)) }},
		rig.Candidate{Name: pathDirectC, Note: "inlet to outlet", Start: func(ch *rig.Chain) string { return ch.Culvert(0, nil) }},
		rig.Candidate{Name: pathRelay1, Note: "inlet, relay, outlet", Start: func(ch *rig.Chain) string { return ch.Culvert(1, nil) }},
		rig.Candidate{Name: pathRelay2, Note: "inlet, relay, relay, outlet", Start: func(ch *rig.Chain) string { return ch.Culvert(2, nil) }},
	)
}

// startSplice starts a plain splice proxy before an address and returns where
// it listens.
func startSplice(ch *rig.Chain, target string) string {
	self, err := os.Executable()
	ch.Fail(err)
	addr := ch.Addr()
	ch.RunPart(self, spliceCommand, addr, target)
	ch.Await(addr)
	return addr
}

// between returns what puts a splice proxy before the far half of a pair, where
// the candidate's name says so.
func between(ch *rig.Chain) func(far string) string {
	return func(far string) string {
		if !strings.HasSuffix(ch.Name(), withSplice) {
			return far
		}
		ch.Await(far)
		return startSplice(ch, far)
	}
}

func split(addr string) (host, port string) {
	host, port, _ = strings.Cut(addr, ":") // made by chain.addr
	return host, port
}

func socat(ch *rig.Chain) string {
	addr := ch.Addr()
	host, port := split(addr)
	ch.Run("socat", "TCP-LISTEN:"+port+",bind="+host+",fork,reuseaddr,nodelay,backlog=1024", "TCP:"+ch.Target()+",nodelay")
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

func haproxyPlain(ch *rig.Chain) string {
	addr := ch.Addr()
	ch.Run("haproxy", "-db", "-f", ch.Write("haproxy.cfg", haproxyConfig(addr, ch.Target())))
	return addr
}

func haproxyPair(ch *rig.Chain, hop func(string) string) string {
	near, far := ch.Addr(), ch.Addr()
	ca := ch.Path("ca.pem")
	ch.Run("haproxy", "-db", "-f", ch.Write("far.cfg", haproxyConfig(
		fmt.Sprintf("%s ssl crt %s ca-file %s verify required ssl-min-ver TLSv1.3", far, ch.Path("far.pem"), ca), ch.Target())))
	ch.Run("haproxy", "-db", "-f", ch.Write("near.cfg", haproxyConfig(near,
		fmt.Sprintf("%s ssl crt %s ca-file %s verify required verifyhost far ssl-min-ver TLSv1.3", hop(far), ch.Path("near.pem"), ca))))
	return near
}

func stunnelPair(ch *rig.Chain) string {
	near, far := ch.Addr(), ch.Addr()
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
`, client, accept, connect, cert, ch.Path("ca.pem"), more)
	}
	ch.Run("stunnel4", ch.Write("far.conf", config(ch.Path("far.pem"), "no", far, ch.Target(), "")))
	ch.Run("stunnel4", ch.Write("near.conf", config(ch.Path("near.pem"), "yes", near, between(ch)(far), "checkHost = far")))
	return near
}

func spipedPair(ch *rig.Chain) string {
	near, far := ch.Addr(), ch.Addr()
	key := ch.Write("key", strings.Repeat("k", 32))
	limit := fmt.Sprint(many)
	ch.Run("spiped", "-d", "-F", "-n", limit, "-s", far, "-t", ch.Target(), "-k", key)
	ch.Run("spiped", "-e", "-F", "-n", limit, "-s", near, "-t", between(ch)(far), "-k", key)
	return near
}

// sshForward starts an sshd of its own, with AES-GCM as the others have it: the
// client's first choice would be ChaCha20-Poly1305.
func sshForward(ch *rig.Chain) string {
	near, far := ch.Addr(), ch.Addr()
	_, port := split(far)
	for _, name := range []string{"host", "client"} {
		path := ch.OwnPath(name + "-key")
		if err := os.RemoveAll(path); err != nil {
			ch.Fail(err)
		}
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
			ch.Fail(fmt.Errorf("ssh-keygen: %w: %s", err, out))
		}
	}
	key := func(name string) string { return ch.OwnPath(name + "-key") }
	if os.Geteuid() == 0 {
		ch.Fail(os.MkdirAll("/run/sshd", 0o755))
	}
	ch.Run("/usr/sbin/sshd", "-D", "-e", "-f", ch.Write("sshd_config", fmt.Sprintf(`Port %s
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
LogLevel ERROR
`, port, key("host"), key("client")+".pub")))
	ch.Await(far)
	_, port = split(between(ch)(far))
	ch.Run("ssh", "-N", "-F", "none", "-i", key("client"), "-p", port, "-c", "aes256-gcm@openssh.com",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=ERROR",
		"-L", near+":"+ch.Target(), "127.0.0.1")
	return near
}
