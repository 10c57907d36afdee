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

	"github.com/culvert-net/culvert/internal/pump"
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
	begun := newBegun(t, relay)
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t)})
	agent.log.await(t, 1, "registered at")

	// Some go to the registered outlet. Most extend, which is the same way of
	// joining with one handshake instead of two. Those for whose handshakes the
	// race detector would take minutes begin behind them.
	conns := make([]net.Conn, joins)
	var wg sync.WaitGroup
	const workers = 8
	for w := range workers {
		wg.Go(func() {
			d := &Dialer{Local: newLocal(t)}
			for i := w; i < joins; i += workers {
				switch {
				case raceEnabled && i >= 100:
					conns[i] = begun.join(t, next.Addr().String())
				case i%20 == 0:
					conns[i] = path(t, d, route.Route{relay.hop(t)}, agent.local.Identifier(), nil)
				default:
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
	// What the stores of pipes keep for the next chunk, at most: 32 each.
	eventually(t, "quiet joins hold no pipes", func() bool { return pipes(t)-before <= 2*2*32 })
	for i, nc := range conns {
		_ = nc.SetDeadline(time.Now().Add(patience))
		carries(t, nc, fmt.Sprintf("again %d", i))
	}
	for _, nc := range conns {
		nc.Close()
	}
	agent.stop()
	begun.end()
	relay.stop()
	if after := pipes(t); after != before {
		t.Errorf("%d pipe descriptors are open at the end, %d were at the start", after, before)
	}
}

// begun makes joins of a relay without the handshakes before them.
type begun struct {
	v      serving
	ln     net.Listener
	mu     sync.Mutex
	cancel context.CancelFunc
	ctx    context.Context
}

func newBegun(t *testing.T, r *testRelay) *begun {
	b := &begun{v: serving{Server: r.Server, pipes: new(pump.Pipes)}, ln: listen(t, "127.0.0.1:0")}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	t.Cleanup(b.end)
	return b
}

// join returns the caller's end of a join to an address.
func (b *begun) join(t *testing.T, address string) net.Conn {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	caller, err := net.Dial("tcp", b.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caller.Close() })
	near, err := b.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	j := &join{kind: kindExtend, target: address, since: time.Now(), cancel: func(error) {}, done: make(chan struct{})}
	b.v.begin(j)
	b.v.handlers.Go(func() { b.v.carry(b.ctx, j, near, far, nil, nil) })
	return caller
}

func (b *begun) end() {
	b.cancel()
	b.v.handlers.Wait()
	b.v.pipes.Close()
	b.ln.Close()
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

// Every leg, on both its ends, notices a hole: TCP_USER_TIMEOUT is set; and
// none waits to fill packets: TCP_NODELAY is, too.
func TestLegOptions(t *testing.T) {
	var mu sync.Mutex
	legs := make(map[string]net.Conn)
	keep := func(name string, timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err // the test is over, say
			}
			mu.Lock()
			defer mu.Unlock()
			legs[fmt.Sprintf("%d %s %s", timeout.Milliseconds(), name, nc.LocalAddr())] = nc
			return nc, nil
		}
	}
	const relayTime, dialTime = 7 * time.Second, 8 * time.Second
	last := startRelay(t)
	ln := &keepingListener{Listener: listen(t, "127.0.0.1:0"), keep: func(nc net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		legs[fmt.Sprintf("%d accepted %s", relayTime.Milliseconds(), nc.RemoteAddr())] = nc
	}}
	relay := startRelayOn(t, ln, newLocal(t), func(c *Config) {
		c.Timing.UserTimeout = relayTime
		c.Dial = keep("extend", relayTime)
	})
	agent := startAgent(t, newLocal(t), route.Route{relay.hop(t), last.hop(t)}, func(c *AgentConfig) {
		c.Dialer.Dial, c.Dialer.UserTimeout = keep("agent", dialTime), dialTime
	})
	agent.log.await(t, 1, "registered at")
	d := &Dialer{Local: newLocal(t), Dial: keep("caller", dialTime), UserTimeout: dialTime}
	carries(t, path(t, d, route.Route{relay.hop(t), last.hop(t)}, agent.local.Identifier(), nil), "hello")

	// A leg that has only just been made may not have them yet.
	eventually(t, "every kind of leg is there, and all have both options", func() bool {
		mu.Lock()
		defer mu.Unlock()
		kinds := make(map[string]bool)
		for name, nc := range legs {
			timeout, noDelay := options(nc)
			if timeout < 0 {
				continue // closed again
			}
			var want int
			var kind string
			_, _ = fmt.Sscan(name, &want, &kind)
			kinds[kind] = true
			if timeout != want || noDelay == 0 {
				return false
			}
		}
		return len(kinds) == 4
	})
}

type keepingListener struct {
	net.Listener
	keep func(net.Conn)
}

func (l *keepingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.keep(nc)
	}
	return nc, err
}

// options returns a socket's TCP_USER_TIMEOUT in milliseconds, -1 when it is
// closed, and its TCP_NODELAY.
func options(nc net.Conn) (userTimeout, noDelay int) {
	userTimeout = -1
	rc, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		return userTimeout, noDelay
	}
	_ = rc.Control(func(fd uintptr) {
		userTimeout, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		noDelay, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
	})
	return userTimeout, noDelay
}
