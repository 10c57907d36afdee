//go:build e2e && linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-net/culvert/internal/testenv"
)

// descriptors returns how many files the program has open.
func (n *node) descriptors() int {
	n.w.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid))
	if err != nil {
		n.w.t.Fatal(err)
	}
	return len(all)
}

// limitFiles lets the program have so many files open from now on; those that it has
// it keeps.
func (n *node) limitFiles(most int) {
	n.w.t.Helper()
	cmd := unprivileged(exec.Command("prlimit", fmt.Sprintf("--pid=%d", n.cmd.Process.Pid), fmt.Sprintf("--nofile=%d:", most))) // which may change what is its user's
	if _, errOut, code := tryCommand(n.w.t, patience, cmd); code != 0 {
		n.w.t.Fatalf("prlimit: exit code %d: %s", code, errOut)
	}
}

// cpu returns how much processor time the program has used.
func (n *node) cpu() time.Duration {
	n.w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
	if err != nil {
		n.w.t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from the third on (proc(5))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime
		t, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			n.w.t.Fatal(err)
		}
		ticks += t
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

// TestNoDescriptors lets each program in turn have no descriptors left, while clients
// come: it says so once, is not busy with it, streams go on, and it accepts again when
// there are some.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	const clients, looks = 40, 2 * time.Second
	for _, name := range []string{"inlet", "relay1", "outlet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relays := 1
			if name == "outlet" {
				relays = 0 // it listens
			}
			w := chain(t, relays, map[string]string{"echo": serveTCP(t, echo)})
			n, addr := w.node(name), w.at("inlet", "echo")
			c := dial(t, addr)
			exchange(t, c, "before")
			at := addr
			if name != "inlet" {
				at = w.addr(name)
			}
			most := n.descriptors() + 4
			n.limitFiles(most)
			for range clients {
				dial(t, at)
			}
			n.wantLog(t, patience, "cannot accept connections now, trying on", "too many open files")
			before := n.cpu()
			for began := time.Now(); time.Since(began) < looks; {
				exchange(t, c, "while there are none")
				if !n.running() {
					t.Fatal("it has ended")
				}
				time.Sleep(50 * time.Millisecond) // the pace of the questions
			}
			if used := n.cpu() - before; used > looks/4 {
				t.Errorf("%v of processor time in %v", used, looks)
			}
			if got := strings.Count(n.log.String(), "cannot accept connections now"); got != 1 {
				t.Errorf("it says so %d times, want once", got)
			}
			n.limitFiles(most + 4*clients)
			wantEcho(t, addr, patience)
			exchange(t, c, "after")
		})
	}
}

// slowly opens so many connections at addr that send a byte of a handshake each second,
// until the test ends. It returns when all are open.
func slowly(t *testing.T, addr string, n int) {
	t.Helper()
	// A preamble of a hop or a channel, and the first message's length: what follows
	// could be a key.
	hello := append([]byte("CVRT\x01\x01\x01\x00\x04\xc0"), make([]byte, 1216)...)
	stop := make(chan struct{})
	var sending sync.WaitGroup
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.DialTimeout("tcp", addr, 20*time.Second)
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		conns[i] = c
	}
	sending.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for _, b := range hello {
			for _, c := range conns {
				_, _ = c.Write([]byte{b}) // those that are ended by now fail
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		sending.Wait()
		for _, c := range conns {
			c.Close()
		}
	})
}

// TestSlowHandshakes has a thousand callers send a byte of a handshake each second to a
// relay, and to an outlet that listens: streams go on, and a new inlet is served within
// its connect time-out, though it came last.
func TestSlowHandshakes(t *testing.T) {
	t.Parallel()
	const callers, within = 1000, 10 * time.Second
	for _, name := range []string{"relay1", "outlet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relays := 1
			if name == "outlet" {
				relays = 0
			}
			w := chain(t, relays, map[string]string{"echo": serveTCP(t, echo)})
			c := dial(t, w.at("inlet", "echo"))
			exchange(t, c, "before")
			slowly(t, w.addr(name), callers)
			exchange(t, c, "while they send")
			watch := testenv.Start(t)
			w.inlet("inlet2", inletConfig{Identity: "inlet", Services: []local{{"echo", "outlet", []string{w.hop(name)}}}})
			exchangeOnce(t, w.at("inlet2", "echo"))
			took := watch.Took()
			t.Logf("a new inlet is served after %v", took)
			if took > within {
				t.Errorf("a new inlet is served after %v, want %v at most", took, within)
			}
			exchange(t, c, "after")
			if n := w.node(name).descriptors(); n > 300+64 {
				t.Errorf("it has %d descriptors open: the callers have more than the 256 places", n)
			}
		})
	}
}

// TestFullDisk has a relay's log, and an outlet's audit log that may fail, go to a full
// disk: both work on, and say what they lose where that can be seen.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	target := serveTCP(t, echo)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	w.stderr = map[string]*os.File{"relay": full}
	relay := w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	outlet := w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", target, []string{"inlet"}}}, Extra: "audit: /dev/full\n"})
	w.inlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}})
	for range 3 {
		exchangeOnce(t, w.at("inlet", "echo"))
	}
	if relay.metric("culvert_log_dropped_total") == 0 {
		t.Error("the relay does not count the lines that its log has lost")
	}
	outlet.wantLog(t, patience, "audit log", "no space left on device")
	if got := strings.Count(outlet.log.String(), "no space left on device"); got != 1 {
		t.Errorf("the outlet speaks of its full disk %d times, want once", got)
	}
}

// TestFullState has the folder of what an inlet knows be full when a peer's key is
// replaced: streams go on, it is counted and told, and kept when there is room again.
func TestFullState(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	t.Parallel()
	w := newWorld(t)
	disk := filepath.Join(w.dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("culvert-test", disk, "tmpfs", 0, fmt.Sprintf("size=64k,mode=0700,uid=%d,gid=%d", nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	w.after = append(w.after, func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	outlet := w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}}})
	inlet := w.inlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}, Extra: "rekey: 1s\nstate: " + disk + "/state\n"})
	exchangeOnce(t, w.at("inlet", "echo"))
	fill := filepath.Join(disk, "fill")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk takes everything")
	}
	c := dial(t, w.at("inlet", "echo"))
	exchange(t, c, "on a full disk")
	w.rotate("outlet")
	outlet.wantLog(t, patience, "identity has a new key")
	inlet.wantLog(t, patience, "what is known of peers' identities cannot be kept", "no space left on device")
	exchange(t, c, "still")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	histories := filepath.Join(disk, "state", "histories")
	if !eventually(patience, func() bool {
		b, err := os.ReadFile(histories)
		return err == nil && strings.Contains(string(b), w.id("outlet"))
	}) {
		t.Error("what could not be kept is not kept when there is room")
	}
	exchange(t, c, "after")
}
