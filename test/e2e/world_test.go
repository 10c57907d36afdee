//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// drainTimeout is what every program of a world is configured with, unless the
// test says otherwise.
const drainTimeout = 5 * time.Second

// A world is a set of identities, addresses and running programs. Names stand
// for all of them: an identity or an address is made when its name is first
// said, so programs can name each other in any order.
type world struct {
	t     *testing.T
	dir   string
	ids   map[string]string
	addrs map[string]string
	nodes []*node
	after []func() // called when all programs have ended
	// managers are those of the programs that a service manager starts, by name.
	managers map[string]*manager
	stderr   map[string]*os.File // of those whose log goes elsewhere, by name
}

// newWorld makes an empty world whose programs are stopped at the end of the
// test, the last started first. Each must then exit with 0.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: testDir(t), ids: map[string]string{}, addrs: map[string]string{}, managers: map[string]*manager{}}
	t.Cleanup(func() {
		for i := len(w.nodes) - 1; i >= 0; i-- {
			if n := w.nodes[i]; n.running() {
				n.stop()
			}
		}
		for _, f := range w.after {
			f()
		}
		if t.Failed() {
			for _, n := range w.nodes {
				t.Logf("log of %s:\n%s", n.name, n.log.tail(40))
			}
		}
	})
	return w
}

var identifierForm = regexp.MustCompile(`^[a-z2-7]{52}$`)

// id returns the identifier of that name.
func (w *world) id(name string) string {
	w.t.Helper()
	if id, ok := w.ids[name]; ok {
		return id
	}
	cmd := unprivileged(exec.Command(program("culvert"), "identity", "new", "-o", w.key(name)))
	out, errOut, code := tryCommand(w.t, patience, cmd)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	id := lines[len(lines)-1]
	if code != 0 || !identifierForm.MatchString(id) {
		w.t.Fatalf("culvert identity new: exit code %d, identifier %q, stderr: %s", code, id, errOut)
	}
	w.ids[name] = id
	return id
}

// key returns the path of that name's private identity file.
func (w *world) key(name string) string { return filepath.Join(w.dir, name+".key") }

// addr returns the address that goes with that name.
func (w *world) addr(name string) string {
	w.t.Helper()
	if _, ok := w.addrs[name]; !ok {
		w.addrs[name] = freeAddr(w.t)
	}
	return w.addrs[name]
}

// hop returns the URL of the relay or outlet of that name.
func (w *world) hop(name string) string { return w.hopAt(w.addr(name), name) }

// hopAt returns the URL of an address at which that name's identity is wanted.
func (w *world) hopAt(addr, name string) string {
	w.t.Helper()
	return "tcp://" + addr + "/" + w.id(name)
}

// A node is a running relay, outlet or inlet.
type node struct {
	*proc
	w       *world
	program string // with the words before its flags
	config  string // path
	metrics string
	admin   string
}

type relayConfig struct {
	Identity          string   // a name; the process's own if empty
	Register, Connect []string // names
	Extend            []string // names of relays
	Extra             string   // more YAML
}

// relay starts a relay that listens at that name's address and waits until it
// is ready.
func (w *world) relay(name string, c relayConfig) *node {
	w.t.Helper()
	var extend []string
	for _, next := range c.Extend {
		extend = append(extend, "tcp://"+w.addr(next))
	}
	return w.start("relay", name, c.Identity, fmt.Sprintf("listen: [%q]\nregister: %s\nconnect: %s\nextend: %s\n%s",
		"tcp://"+w.addr(name), list(w.identifiers(c.Register)), list(w.identifiers(c.Connect)), list(extend), c.Extra)).wantReady()
}

type outletConfig struct {
	Identity string
	Relays   []string // routes
	Listen   bool     // accept channels directly, at the name's address
	Services []service
	Extra    string
}

type service struct {
	Name, Target string
	Allow        []string // names
}

// outlet starts an outlet and waits until it is ready.
func (w *world) outlet(name string, c outletConfig) *node {
	w.t.Helper()
	return w.startOutlet(name, c).wantReady()
}

func (w *world) startOutlet(name string, c outletConfig) *node {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "relays: %s\n", list(c.Relays))
	if c.Listen {
		fmt.Fprintf(&b, "listen: [%q]\n", "tcp://"+w.addr(name))
	}
	b.WriteString("services:\n")
	for _, s := range c.Services {
		fmt.Fprintf(&b, "  - name: %s\n    target: tcp://%s\n    allow: %s\n", s.Name, s.Target, list(w.identifiers(s.Allow)))
	}
	b.WriteString(c.Extra)
	return w.start("outlet", name, c.Identity, b.String())
}

type inletConfig struct {
	Identity string
	Services []local
	Extra    string
}

// A local is a service as an inlet offers it, at the address whose name is
// inlet/service (see [world.at]).
type local struct {
	Service string
	Outlet  string   // a name
	Routes  []string // as strings
}

// at returns where the inlet offers the service.
func (w *world) at(inlet, service string) string { w.t.Helper(); return w.addr(inlet + "/" + service) }

// inlet starts an inlet and waits until it is ready.
func (w *world) inlet(name string, c inletConfig) *node {
	w.t.Helper()
	return w.startInlet(name, c).wantReady()
}

// startInlet starts an inlet that may find nobody to talk to.
func (w *world) startInlet(name string, c inletConfig) *node {
	w.t.Helper()
	var b strings.Builder
	b.WriteString("services:\n")
	for _, s := range c.Services {
		fmt.Fprintf(&b, "  - listen: tcp://%s\n    service: %s\n    outlet: %s\n    routes: %s\n", w.at(name, s.Service), s.Service, w.id(s.Outlet), list(s.Routes))
	}
	b.WriteString(c.Extra)
	return w.start("inlet", name, c.Identity, b.String())
}

// start writes a config around body and runs the program on it.
func (w *world) start(program, name, identity, body string) *node {
	w.t.Helper()
	if identity == "" {
		identity = name
	}
	w.id(identity)
	n := &node{w: w, program: program, config: filepath.Join(w.dir, name+".yaml"), metrics: freeAddr(w.t), admin: freeAddr(w.t)}
	if !strings.Contains(body, "drain_timeout:") {
		body += fmt.Sprintf("drain_timeout: %v\n", drainTimeout)
	}
	head := fmt.Sprintf("identity: %s\nmetrics: %s\nadmin: %s\n", w.key(identity), n.metrics, n.admin)
	if err := os.WriteFile(n.config, []byte(head+body), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.nodes = append(w.nodes, n)
	n.run(name)
	return n
}

// run starts the program of n and waits until it answers.
func (n *node) run(name string) {
	n.w.t.Helper()
	words := strings.Fields(n.program)
	cmd := unprivileged(exec.Command(program(words[0]), append(words[1:], "--config", n.config, "--log-format", "json")...))
	cmd.Dir = n.w.dir
	n.w.managers[name].start(cmd)
	p, err := startProcTo(name, cmd, n.w.stderr[name])
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.proc = p
	if !eventually(patience, func() bool { return !n.running() || n.get("/healthz").code == http.StatusOK }) || !n.running() {
		n.w.t.Fatalf("%s: not alive", name)
	}
}

// restart runs the program again, with the same config, after its end.
func (n *node) restart() *node {
	n.w.t.Helper()
	n.run(n.name)
	return n
}

// wantReady waits until /readyz says yes.
func (n *node) wantReady() *node {
	n.w.t.Helper()
	var last answer
	if !eventually(patience, func() bool { last = n.get("/readyz"); return last.code == http.StatusOK || !n.running() }) || !n.running() {
		n.w.t.Fatalf("%s: not ready: %s", n.name, last.body)
	}
	return n
}

// wantNotReady waits until /readyz says no, and names all of parts.
func (n *node) wantNotReady(within time.Duration, parts ...string) {
	n.w.t.Helper()
	var last answer
	if !eventually(within, func() bool {
		last = n.get("/readyz")
		return last.code == http.StatusServiceUnavailable && holdsAll(last.body, parts)
	}) {
		n.w.t.Errorf("%s: /readyz says %d %q, want 503 with %q", n.name, last.code, last.body, parts)
	}
}

type answer struct {
	code int // 0: no answer
	body string
}

// get asks the program's metrics server.
func (n *node) get(path string) answer {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + n.metrics + path)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: err.Error()}
	}
	return answer{code: resp.StatusCode, body: string(body)}
}

// term asks the program to end.
func (n *node) term() { n.signal(syscall.SIGTERM) }

// stop ends the program as a supervisor does; it must exit with 0 soon after
// its drain time.
func (n *node) stop() {
	n.w.t.Helper()
	n.term()
	n.wantExit(n.w.t, 0, drainTimeout+20*time.Second)
}

func (w *world) identifiers(names []string) []string {
	w.t.Helper()
	ids := make([]string, len(names))
	for i, name := range names {
		ids[i] = w.id(name)
	}
	return ids
}

// list writes strings as a YAML flow sequence.
func list(items []string) string {
	if items == nil {
		return "[]"
	}
	b, err := json.Marshal(items)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// chain starts n relays in a row, an outlet behind the last that offers the
// targets (service names to addresses), and an inlet before the first; with
// n = 0 the inlet reaches the outlet directly. The nodes are named relay1…,
// outlet and inlet; the services are at w.at("inlet", name). extra is more
// YAML: first for the inlet, then for the outlet, then for each relay.
func chain(t *testing.T, n int, targets map[string]string, extra ...string) *world {
	t.Helper()
	w := newWorld(t)
	var hops []string
	for i := range n {
		c := relayConfig{Connect: []string{"inlet"}}
		if len(extra) > 2 {
			c.Extra = extra[2]
		}
		if i < n-1 {
			c.Extend = []string{relayName(i + 1)}
		} else {
			c.Register = []string{"outlet"}
		}
		w.relay(relayName(i), c)
		hops = append(hops, w.hop(relayName(i)))
	}
	o := outletConfig{Listen: n == 0}
	if n == 0 {
		hops = []string{w.hop("outlet")}
	} else {
		o.Relays = []string{w.hop(relayName(n - 1))}
	}
	in := inletConfig{}
	for i, field := range []*string{&in.Extra, &o.Extra} {
		if i < len(extra) {
			*field = extra[i]
		}
	}
	for name, target := range targets {
		o.Services = append(o.Services, service{Name: name, Target: target, Allow: []string{"inlet"}})
		in.Services = append(in.Services, local{Service: name, Outlet: "outlet", Routes: []string{strings.Join(hops, ",")}})
	}
	w.outlet("outlet", o)
	w.inlet("inlet", in)
	return w
}

// acrossRoutes runs a test through one relay; in the full matrix also directly
// and through two and three.
func acrossRoutes(t *testing.T, test func(t *testing.T, relays int)) {
	t.Helper()
	counts := []int{1}
	if !testing.Short() {
		counts = []int{0, 1, 2, 3}
	}
	for _, relays := range counts {
		t.Run(routeName(relays), func(t *testing.T) { test(t, relays) })
	}
}

// whole returns the full matrix's value or the short form's.
func whole[T any](short, full T) T {
	if testing.Short() {
		return short
	}
	return full
}

func routeName(relays int) string {
	if relays == 0 {
		return "direct"
	}
	return fmt.Sprintf("%d-relays", relays)
}

func relayName(i int) string { return fmt.Sprintf("relay%d", i+1) }

// node returns the running program of that name.
func (w *world) node(name string) *node {
	w.t.Helper()
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	w.t.Fatalf("no node %s", name)
	return nil
}
