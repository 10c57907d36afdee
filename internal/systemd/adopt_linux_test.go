package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childVariable makes a test's process one that a manager has started: it adopts what
// it was given and says what that is.
const childVariable = "CULVERT_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

func child() int {
	if os.Getenv("LISTEN_PID") == "mine" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	m, err := Adopt()
	if err != nil {
		fmt.Println("error:", err)
		return 0
	}
	if m == nil {
		fmt.Println("nobody")
		return 0
	}
	fmt.Println("watchdog", m.Watchdog())
	for i, s := range m.Sockets() {
		flags, err := unix.FcntlInt(uintptr(3+i), unix.F_GETFD, 0)
		fmt.Println("socket", s.Name(), s.Addr(), "closed on exec:", err == nil && flags&unix.FD_CLOEXEC != 0)
		for range 2 { // closing one leaves it for another
			if err := answer(s); err != nil {
				fmt.Println("error:", err)
			}
		}
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			fmt.Println("left:", name, v)
		}
	}
	if err := m.Notify(Ready); err != nil {
		fmt.Println("error:", err)
	}
	return 0
}

// answer accepts one connection and says "hello".
func answer(s *Socket) error {
	ln, err := s.Listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	nc, err := ln.Accept()
	if err != nil {
		return err
	}
	defer nc.Close()
	_, err = fmt.Fprint(nc, "hello")
	return err
}

// adopt runs such a process and returns what it says.
func adopt(t *testing.T, files []*os.File, env ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childVariable+"=1"), env...)
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return string(out)
}

func listener(t *testing.T, network, address string) (*os.File, net.Addr) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, ln.Addr()
}

// The process gets what there is: two sockets by their names, at which clients are
// waiting already, and a place for what it says of itself.
func TestAdopt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	one, at := listener(t, "tcp", "127.0.0.1:0")
	two, at2 := listener(t, "tcp", "127.0.0.1:0")
	for _, a := range []net.Addr{at, at, at2, at2} { // before the process runs
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	got := adopt(t, []*os.File{one, two}, "LISTEN_PID=mine", "LISTEN_FDS=2", "LISTEN_FDNAMES=orders-db:cache", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=30000000")
	want := fmt.Sprintf("watchdog 30s\nsocket orders-db %v closed on exec: true\nsocket cache %v closed on exec: true\n", at, at2)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b := make([]byte, 64)
	if err := told.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := told.Read(b); string(b[:n]) != "READY=1" {
		t.Errorf("the manager hears %q, %v", b[:n], err)
	}
}

// What is meant for another process is left alone, and nobody is nobody.
func TestAdoptNobody(t *testing.T) {
	one, _ := listener(t, "tcp", "127.0.0.1:0")
	for _, env := range [][]string{
		nil, {"LISTEN_PID=1", "LISTEN_FDS=1"}, {"LISTEN_PID=mine", "LISTEN_FDS=no"}, {"LISTEN_PID=mine", "LISTEN_FDS=-1"}, {"LISTEN_FDS=1"}, {"NOTIFY_SOCKET="},
	} {
		if got := adopt(t, []*os.File{one}, env...); got != "nobody\n" {
			t.Errorf("%q: %s", env, got)
		}
	}
}

// What is no socket of a listening TCP is refused, with what to change.
func TestAdoptRefuses(t *testing.T) {
	file, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	udp, err := datagrams.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	local, _ := listener(t, "unix", filepath.Join(t.TempDir(), "s"))
	idle, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unbound := os.NewFile(uintptr(idle), "unbound")
	defer unbound.Close()
	for what, f := range map[string]*os.File{"is no socket": file, "carries no streams": udp, "is of the family unix": local, "does not listen": unbound} {
		got := adopt(t, []*os.File{f}, "LISTEN_PID=mine", "LISTEN_FDS=1", "LISTEN_FDNAMES=orders-db")
		if !strings.HasPrefix(got, "error: ") || !strings.Contains(got, `"orders-db", which `+what) || !strings.Contains(got, "ListenStream=") {
			t.Errorf("%s: got %s", what, got)
		}
	}
	for _, env := range [][]string{
		{"WATCHDOG_USEC=soon"}, {"WATCHDOG_USEC=-1"}, {"WATCHDOG_USEC=1", "WATCHDOG_PID=x"}, {"LISTEN_PID=mine", "LISTEN_FDS=100000"},
	} {
		if got := adopt(t, nil, env...); !strings.HasPrefix(got, "error: ") {
			t.Errorf("%q: got %s", env, got)
		}
	}
}
