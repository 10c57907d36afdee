package relay

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-net/culvert/pkg/route"
)

const (
	nobody   = 65534
	childEnv = "CULVERT_TEST_UNPRIVILEGED"
	joins    = 2000
)

// Two thousand joins that have carried bytes and are quiet, of a relay without
// privileges, to whom the kernel gives pipes for 64 MiB in all: they hold no
// pipes, and all carry bytes afterwards.
func TestIdleJoins(t *testing.T) {
	if os.Getuid() == 0 && os.Getenv(childEnv) == "" {
		asNobody(t)
		return
	}
	raiseFiles(t)
	before := pipes(t)
	next := listen(t, "127.0.0.1:0") // what the relay extends to: an echo
	var far sync.WaitGroup
	far.Go(func() {
		for {
			nc, err := next.Accept()
			if err != nil {
				return
			}
			far.Go(func() { echo(context.Background(), nc) })
		}
	})
	t.Cleanup(far.Wait)
	t.Cleanup(func() { next.Close() })

	relay := startRelay(t, func(c *Config) { c.Timing.Idle = 10 * time.Minute })
	hop, err := route.ParseHop("tcp://" + next.Addr().String() + "/" + relay.local.Identifier().String())
	if err != nil {
		t.Fatal(err)
	}
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")

	// Some go to the registered outlet. Most extend, which takes the relay's
	// same way of joining with one handshake instead of two.
	conns := make([]net.Conn, joins)
	var wg sync.WaitGroup
	const workers = 8
	for w := range workers {
		wg.Go(func() {
			d := &Dialer{Local: newLocal(t)}
			for i := w; i < joins; i += workers {
				if i%20 == 0 {
					conns[i] = path(t, d, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
				} else {
					conns[i] = path(t, d, route.Route{relay.hop(t), hop}, hop.Identifier, nil)
				}
				_ = conns[i].SetDeadline(time.Time{})
				carries(t, conns[i], fmt.Sprintf("first %d", i))
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	if n := len(relay.Status().Joins); n != joins {
		t.Fatalf("%d joins, want %d", n, joins)
	}
	// What the store of pipes keeps for the next chunk, at most: 32 of them.
	eventually(t, "quiet joins hold no pipes", func() bool { return pipes(t)-before <= 2*32 })
	for i, nc := range conns {
		_ = nc.SetDeadline(time.Now().Add(patience))
		carries(t, nc, fmt.Sprintf("again %d", i))
	}
	for _, nc := range conns {
		nc.Close()
	}
	agent.stop()
	relay.stop()
	if after := pipes(t); after != before {
		t.Errorf("%d pipe descriptors are open at the end, %d were at the start", after, before)
	}
}

// asNobody runs the test again as a user without privileges.
func asNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	// By this name the binary can be run where its folder cannot be read.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=170s")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: false},
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("as user %d: %v\n%s", nobody, err, out)
	}
}

// raiseFiles raises the limit of open files as far as this user may.
func raiseFiles(t *testing.T) {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	const need = 4*joins + 500 // both ends of both legs are in this process
	if l.Max < need {
		t.Fatalf("this test needs %d open files, the hard limit is %d: raise it with ulimit -Hn", need, l.Max)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
}

// pipes counts this process's descriptors that are pipes.
func pipes(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// One that is gone by now was not ours to count.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}
