//go:build e2e && linux

package e2ecompose

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The rows as the three clients print them.
var (
	postgresRows = []string{"1 | concrete pipe, 2 m | 129.00", "2 | steel grate        |  54.50", "3 | gravel, 1 t        |  31.90", "(3 rows)"}
	mariadbRows  = []string{"|  1 | concrete pipe, 2 m | 129.00 |", "|  2 | steel grate        |  54.50 |", "|  3 | gravel, 1 t        |  31.90 |"}
	redisRows    = []string{"concrete pipe, 2 m: 129.00", "steel grate: 54.50", "gravel, 1 t: 31.90"}
)

func TestPostgres(t *testing.T) { (&demo{name: "postgres", shown: postgresRows}).run(t) }

func TestMariaDB(t *testing.T) { (&demo{name: "mariadb", shown: mariadbRows}).run(t) }

func TestRedis(t *testing.T) { (&demo{name: "redis", shown: redisRows}).run(t) }

func TestMultiHop(t *testing.T) {
	(&demo{name: "multi-hop", shown: postgresRows, then: wantNoWayIn}).run(t)
}

// wantNoWayIn tries to reach the database and the outlet from each network. What
// must be reachable shows that the attempt can succeed.
func wantNoWayIn(t *testing.T, d *demo) {
	db, outlet := d.addresses(t, "db"), d.addresses(t, "outlet")
	if len(db) != 1 || len(outlet) != 2 {
		t.Fatalf("the database is at %v, the outlet at %v", db, outlet)
	}
	d.wantReach(t, true, "application", d.addresses(t, "relay-a")["application"], 4000)
	d.wantReach(t, true, "edge", d.addresses(t, "relay-b")["edge"], 4000)
	d.wantReach(t, true, "database", db["database"], 5432)
	for _, network := range []string{"application", "transit"} {
		d.wantReach(t, false, network, d.addresses(t, "relay-b")["edge"], 4000)
		d.wantReach(t, false, network, outlet["edge"], 9100)
		d.wantReach(t, false, network, outlet["database"], 9100)
	}
	for _, network := range []string{"application", "transit", "edge"} {
		d.wantReach(t, false, network, db["database"], 5432)
	}
	if got := d.listens(t, "outlet"); len(got) > 0 {
		t.Errorf("the outlet listens on %v: want its loopback only", got)
	}
	if got := d.listens(t, "db"); len(got) == 0 {
		t.Error("no listener is seen where the database has one")
	}
}

// addresses returns a service's addresses by the demo's name of the network.
func (d *demo) addresses(t *testing.T, service string) map[string]string {
	t.Helper()
	var networks map[string]struct{ IPAddress string }
	text := docker(t, "inspect", "--format", "{{json .NetworkSettings.Networks}}", d.container(t, service))
	if err := json.Unmarshal([]byte(text), &networks); err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{}
	for name, n := range networks {
		addresses[strings.TrimPrefix(name, d.project()+"_")] = n.IPAddress
	}
	return addresses
}

// wantReach tries to connect from a container on a network of the demo.
func (d *demo) wantReach(t *testing.T, want bool, network, host string, port int) {
	t.Helper()
	if host == "" {
		t.Errorf("no address to reach from %s", network)
		return
	}
	const reached = "reached"
	out, err := exec.Command("docker", "run", "--rm", "--network", d.project()+"_"+network, images["POSTGRES_IMAGE"], "bash", "-c",
		fmt.Sprintf("if timeout 3 bash -c 'exec 3<>/dev/tcp/%s/%d'; then echo %s; fi", host, port, reached)).CombinedOutput()
	if err != nil {
		t.Errorf("from %s: %v\n%s", network, err, out)
		return
	}
	if got := strings.Contains(string(out), reached); got != want {
		t.Errorf("from %s to %s:%d: reached is %v, want %v\n%s", network, host, port, got, want, out)
	}
}

// listens returns what a service listens on beside its loopback, as the kernel
// prints addresses in /proc/net/tcp.
func (d *demo) listens(t *testing.T, service string) (at []string) {
	t.Helper()
	const listening = "0A"
	text := docker(t, "run", "--rm", "--network", "container:"+d.container(t, service), images["POSTGRES_IMAGE"], "cat", "/proc/net/tcp", "/proc/net/tcp6")
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != listening {
			continue
		}
		host, _, _ := strings.Cut(f[1], ":")
		loopback := len(host) == 8 && strings.HasSuffix(host, "7F") // 127.0.0.0/8, the least significant byte first
		if !loopback {
			at = append(at, f[1])
		}
	}
	return at
}

var (
	// What the load says of its transactions, those the database has, and the rest.
	counts = regexp.MustCompile(`\s(\d+) \|\s+(\d+) \|\s+(\d+)\s`)
	// What restart-relays says at its end.
	restarts = regexp.MustCompile(`(\d+) restarts while the load ran`)
)

// TestSurvive restarts the relays, as the script of the demo does, until the load
// has ended.
func TestSurvive(t *testing.T) {
	(&demo{name: "survive", shown: []string{"progress: "}, then: wantNothingLost}).run(t)
}

func wantNothingLost(t *testing.T, d *demo) {
	d.up.wantShown(t, []string{"nothing was lost"})
	if got := docker(t, "inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", d.container(t, "load")); got != "false 0" {
		t.Errorf("the load: running and exit code are %q, want \"false 0\"", got)
	}
	m := counts.FindStringSubmatch(d.up.String())
	if m == nil || m[1] == "0" || m[1] != m[2] || m[3] != "0" {
		t.Fatalf("transactions, kept and lost are %q", m)
	}
	n := restarts.FindStringSubmatch(d.printed.String())
	if n == nil {
		t.Fatalf("restart-relays does not say how often it did:\n%s", d.printed.String())
	}
	if n[1] == "0" || n[1] == "1" {
		t.Errorf("%s restarts while the load ran, want each relay's", n[1])
	}
	t.Logf("transactions, kept and lost: %s; %s restarts", strings.Join(m[1:], ", "), n[1])
}
