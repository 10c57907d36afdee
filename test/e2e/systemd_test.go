//go:build e2e && linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A manager is what starts a program as systemd does: it hears what the program says
// of itself, and has opened sockets for it. A nil manager is none.
type manager struct {
	path  string   // of the socket that it hears at
	heard *lineLog // datagrams, each a line, in which "|" stands between their own lines
	env   []string
	names []string // of files
	files []*os.File
}

// managed makes a manager for the program of that name. watchdog is in the words of
// systemd, microseconds; 0 is none.
func (w *world) managed(name string, watchdog time.Duration) *manager {
	w.t.Helper()
	m := &manager{path: filepath.Join(w.dir, name+".notify"), heard: newLineLog()}
	pc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(m.path, 0o666)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	var hearing sync.WaitGroup
	hearing.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := pc.Read(b)
			if err != nil {
				return
			}
			fmt.Fprintln(m.heard, strings.ReplaceAll(string(b[:n]), "\n", "|"))
		}
	})
	w.after = append(w.after, func() {
		pc.Close()
		hearing.Wait()
		for _, f := range m.files {
			f.Close()
		}
	})
	m.env = []string{"NOTIFY_SOCKET=" + m.path}
	if watchdog > 0 {
		m.env = append(m.env, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds()))
	}
	w.managers[name] = m
	return m
}

// listen opens a socket for the program, as a socket unit of that name does.
func (m *manager) listen(t *testing.T, name, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	m.names, m.files = append(m.names, name), append(m.files, f)
}

// start makes cmd a program that the manager starts.
func (m *manager) start(cmd *exec.Cmd) {
	if m == nil {
		return
	}
	cmd.Env = append(os.Environ(), m.env...)
	if len(m.files) == 0 {
		return
	}
	cmd.ExtraFiles = m.files
	cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(m.files)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
	// A process knows its number once it is there.
	cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, cmd.Args...)
	cmd.Path = "/bin/sh"
}

// wantHeard waits for a datagram that holds all of parts.
func (m *manager) wantHeard(t *testing.T, within time.Duration, parts ...string) {
	t.Helper()
	if !m.heard.wait(within, parts...) {
		t.Errorf("the service manager has not heard %q after %v, but\n%s", parts, within, m.heard.tail(20))
	}
}

// TestServiceManager has an inlet tell a manager how it is, from its start to its end.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.managed("inlet", time.Second)
	inlet := w.startInlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}, Extra: "connect_timeout: 1m\n" + longDrain})
	m.wantHeard(t, patience, "READY=1", "STATUS=")
	early := dial(t, w.at("inlet", "echo")) // it listens by then
	m.wantHeard(t, patience, "STATUS=not ready: service/echo: ")
	m.wantHeard(t, patience, "WATCHDOG=1")
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}}})
	m.wantHeard(t, patience, "STATUS=ready")
	exchange(t, early, "it waited")

	for n := 1; n <= 2; n++ {
		inlet.signal(syscall.SIGHUP)
		after := func() string {
			_, said, _ := strings.Cut(m.heard.String(), "RELOADING=1|MONOTONIC_USEC=")
			for range n - 1 {
				_, said, _ = strings.Cut(said, "RELOADING=1|MONOTONIC_USEC=")
			}
			return said
		}
		if !eventually(patience, func() bool { return strings.Contains(after(), "\nREADY=1|STATUS=") }) {
			t.Fatalf("reload %d: the manager has heard\n%s", n, m.heard.tail(20))
		}
	}
	alive := strings.Count(m.heard.String(), "WATCHDOG=1")
	if !eventually(patience, func() bool { return strings.Count(m.heard.String(), "WATCHDOG=1") > alive+1 }) {
		t.Error("the manager does not hear again that the inlet lives")
	}
	inlet.term()
	m.wantHeard(t, patience, "STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=30000000")
	alive = strings.Count(m.heard.String(), "WATCHDOG=1")
	if !eventually(patience/2, func() bool { return strings.Count(m.heard.String(), "WATCHDOG=1") > alive }) {
		t.Error("the manager does not hear that the inlet lives while it drains")
	}
	if err := early.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantEOF(t, early)
	inlet.wantExit(t, 0, patience/2)
	if strings.Count(m.heard.String(), "STOPPING=1") != 1 {
		t.Errorf("the manager has heard\n%s", m.heard)
	}
}

// TestSocketActivation has an inlet whose sockets a manager holds: clients that come
// before it is started, before it has a path, and while it is restarted again and again
// wait, and are served.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.managed("inlet", 0)
	addr := w.at("inlet", "echo")
	m.listen(t, "culvert-inlet@test.socket", addr) // by its address
	free := freeAddr(t)
	m.listen(t, "any", free) // by its name
	early := dial(t, addr)
	if _, err := early.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(free)
	if err != nil {
		t.Fatal(err)
	}
	w.addrs["inlet/any"] = net.JoinHostPort(host, "0")
	inlet := w.startInlet("inlet", inletConfig{
		Services: []local{{"echo", "outlet", []string{w.hop("relay")}}, {"any", "outlet", []string{w.hop("relay")}}},
		Extra:    "connect_timeout: 1m\n",
	})
	inlet.wantLog(t, patience, "listening at a socket of the service manager", "culvert-inlet@test.socket", addr)
	inlet.wantLog(t, patience, "listening at a socket of the service manager", `"any"`, free)
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	target := serveTCP(t, echo)
	w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", target, []string{"inlet"}}, {"any", target, []string{"inlet"}}}})
	wantBytes(t, early, "early")
	early.Close()
	wantEcho(t, free, patience)

	stop := make(chan struct{})
	var clients sync.WaitGroup
	served := make([]int, 4)
	for i := range served {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := tryEcho(addr, fmt.Sprint("client ", i, " ", served[i])); err != nil {
					t.Errorf("a client while the inlet is restarted: %v", err)
					return
				}
				served[i]++
			}
		})
	}
	for range 3 {
		inlet.stop()
		between := dial(t, addr) // nobody runs
		if _, err := between.Write([]byte("between")); err != nil {
			t.Error(err)
		}
		inlet.restart().wantReady()
		wantBytes(t, between, "between")
	}
	close(stop)
	clients.Wait()
	for i, n := range served {
		if n == 0 {
			t.Errorf("client %d was never served", i)
		}
	}
}

// TestSocketActivationFaults: a socket that is for nobody, or for a service that listens
// elsewhere by its settings, keeps an inlet from starting, which says what to change.
func TestSocketActivationFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	me := w.id("me")
	listen := freeAddr(t)
	config := filepath.Join(w.dir, "inlet.yaml")
	text := fmt.Sprintf("identity: %s\nservices:\n  - listen: tcp://%s\n    service: echo\n    outlet: %s\n    routes: [%s]\n", w.key("me"), listen, me, w.hop("me"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, parts := range map[string][]string{
		"echo":  {`the socket "echo" at `, "services[0].listen in " + config + ":3:13 says " + listen, "ListenStream="},
		"other": {`the socket "other" at `, "nothing listens by the settings (" + listen + ")", "FileDescriptorName="},
	} {
		m := &manager{}
		m.listen(t, name, freeAddr(t))
		cmd := unprivileged(exec.Command(program("inlet"), "--config", config))
		m.start(cmd)
		_, said, code := tryCommand(t, patience, cmd)
		m.files[0].Close()
		if code != 1 {
			t.Errorf("%s: exit code %d, want 1", name, code)
		}
		wantSaid(t, said, parts...)
	}
}

// wantBytes reads text from c.
func wantBytes(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(text))
	if n, err := io.ReadFull(c, got); string(got[:n]) != text {
		t.Errorf("read %q and %v, want %q", got[:n], err, text)
	}
}
