package app

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/systemd"
	"github.com/culvert-net/culvert/internal/testenv"
)

// managed has a service manager listen at ports, for the inlet of a reloadable, with
// sockets of that name.
func managed(t *testing.T, r *reloadable, name string, ports ...string) {
	t.Helper()
	var sockets []*systemd.Socket
	for _, port := range ports {
		ln, err := net.ListenTCP("tcp", r.address(port))
		must(t, err)
		defer ln.Close()
		f, err := ln.File()
		must(t, err)
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		named := os.NewFile(uintptr(fd), name)
		t.Cleanup(func() { named.Close() })
		s, err := systemd.NewSocket(named)
		must(t, err)
		sockets = append(sockets, s)
	}
	r.in.Own(systemd.New(nil, 0, sockets...))
}

// A socket that the service manager keeps open makes nobody wait for a service that is
// gone, and is the service's when that is back.
func TestInletReloadAtAManagersSocket(t *testing.T) {
	t.Parallel()
	const warning = "no service is offered any more at a socket of the service manager, its clients are reset until one is: " +
		"stop the socket's unit, or take the address out of it before this process is started again"
	db, web := offered{"1", "db", "x", []int{0}}, offered{"2", "web", "y", []int{0}}
	r := startReloadableWith(t, func(r *reloadable) { managed(t, r, "db", "1") }, db, web)
	nc := r.open("1", "x")
	warned := func() int {
		return len(r.inletLog.lines(t, map[string]string{"msg": warning, "level": "warn", "service": "db", "socket": "db", "address": r.address("1").String()}))
	}
	for round := range 2 {
		r.take(web)
		for range 3 {
			wantRefused(t, r.address("1"))
		}
		r.take(web, offered{"3", "web", "x", []int{0}}) // nor with other settings
		wantRefused(t, r.address("1"))
		if n := warned(); n != round+1 {
			t.Errorf("%d warnings after the service has gone %d times", n, round+1)
		}
		if len(r.in.Status().Services) != 2 || len(r.in.Addrs()) != 2 {
			t.Errorf("the status has %+v", r.in.Status().Services)
		}
		r.take(web, db)
		for range 8 { // nobody else accepts there
			_ = r.open("1", "x").Close()
		}
	}
	r.take(web, offered{"1", "web", "y", []int{0}}) // which is another service's now
	_ = r.open("1", "y").Close()
	if n := warned(); n != 2 {
		t.Errorf("%d warnings, want none for a socket that is in use", n)
	}
	wantEcho(t, nc, "still here")
	r.take(web)
	if why := r.refused(strings.Replace(r.with(db, web), "tcp://127.0.0.1:", "tcp://localhost:", 1)); !strings.Contains(why, `the service manager's socket "db"`) {
		t.Errorf("another spelling of its address: %s", why)
	}
	r.stop()
	// It listens still, as this process has found it.
	late, err := net.DialTCP("tcp", nil, r.address("1"))
	must(t, err)
	_ = late.Close()
}

// Services of one name at any free port have a socket each of those with that name: of
// two, none stays that nobody accepts at. A service that has none listens by itself.
func TestSocketsOfOneName(t *testing.T) {
	x, y, web := offered{"0", "db", "x", []int{0}}, offered{"0", "db", "y", []int{0}}, offered{"0", "web", "y", []int{0}}
	before := func(sockets ...string) func(r *reloadable) {
		return func(r *reloadable) {
			for _, port := range sockets {
				r.ports[port] = testenv.Port(t)
			}
			managed(t, r, "db", sockets...)
		}
	}
	t.Run("as many", func(t *testing.T) {
		r := startReloadableWith(t, before("1", "2"), x, y)
		for range 4 {
			_ = r.open("1", "x").Close()
			_ = r.open("2", "y").Close()
		}
		r.take(y, x)
		_ = r.open("1", "x").Close()
		_ = r.open("2", "y").Close()
		r.take(y, web)
		wantRefused(t, r.address("1"))
		r.take(y, x)
		_ = r.open("1", "x").Close()
		_ = r.open("2", "y").Close()
	})
	t.Run("fewer", func(t *testing.T) {
		r := startReloadableWith(t, before("1"), x, y)
		own := r.in.Addrs()[1]
		if own.String() == r.address("1").String() {
			t.Fatal("both services are at the one socket")
		}
		for range 4 {
			_ = r.open("1", "x").Close()
			_ = r.openAt(own, "y").Close()
		}
		r.take(x, y, web, offered{"0", "db", "x", []int{1}})
		for range 4 { // nobody else accepts there
			_ = r.open("1", "x").Close()
			_ = r.openAt(r.in.Addrs()[3], "x").Close()
		}
		if n := len(r.in.Addrs()); n != 4 || r.in.Addrs()[3].String() == r.address("1").String() {
			t.Errorf("services are at %v", r.in.Addrs())
		}
	})
}

// Another listen_mode is that of the socket that is there, which is never closed; or of a
// file that is refused nothing holds.
func TestInletReloadsListenMode(t *testing.T) {
	t.Parallel()
	db := offered{"1", "db", "x", []int{0}}
	r := startReloadable(t, db)
	path := filepath.Join(socketFolder(t), "db.sock")
	at := func(mode string, more ...offered) string {
		if mode != "" {
			mode = "\n    listen_mode: " + mode
		}
		return strings.Replace(r.with(append([]offered{db}, more...)...), "tcp://"+r.address("1").String(), "unix://"+path+mode, 1)
	}
	want := func(mode fs.FileMode) {
		t.Helper()
		info, err := os.Lstat(path)
		must(t, err)
		if info.Mode().Perm() != mode {
			t.Errorf("the socket's mode is %04o, want %04o", info.Mode().Perm(), mode)
		}
	}
	r.takeText(at("0660"))
	want(0o660)
	nc := dialUnix(t, path)
	for text, mode := range map[string]fs.FileMode{"0666": 0o666, "0600": 0o600, "": 0o600, "0660": 0o660} {
		r.takeText(at(text))
		want(mode)
	}
	r.takeText(at("0600"))
	wantLetter(t, nc, "x")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	r.ports["taken"] = portOf(taken.Addr())
	r.refused(at("0666", offered{"taken", "web", "x", []int{0}}))
	want(0o600)
	cfg, err := config.LoadInlet(fileSource(r.name))
	must(t, err)
	cfg.Services, cfg.LogLevel = cfg.Services[:1], "loud"
	if err := r.in.reload(cfg, &cfg.Trust); err == nil {
		t.Error("a level that there is not is taken")
	}
	want(0o600)
	wantEcho(t, nc, "still here")
	must(t, os.Remove(path))
	if why := r.refused(at("0666")); !strings.Contains(why, "services[0].listen_mode") {
		t.Errorf("without the socket it is refused with %q, want the setting", why)
	}
}

func wantLetter(t *testing.T, nc net.Conn, letter string) {
	t.Helper()
	got := make([]byte, 1)
	if n, err := nc.Read(got); n != 1 || string(got) != letter {
		t.Fatalf("read %q, %v, want %q", got[:n], err, letter)
	}
}
