package obs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// exchange sends raw text and returns all that comes back.
func exchange(t *testing.T, a net.Addr, text string) string {
	t.Helper()
	nc, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(nc)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return string(b)
}

func TestServeBoth(t *testing.T) {
	o := newTestObs(t)
	s, stop := serve(t, o, Endpoints{Metrics: "127.0.0.1:0", Admin: "localhost:0", Status: shows(func() any { return "here" })})
	if s.MetricsAddr() == nil || s.AdminAddr() == nil || s.MetricsAddr().String() == s.AdminAddr().String() {
		t.Fatalf("addresses: %v, %v", s.MetricsAddr(), s.AdminAddr())
	}
	if a := get(t, s.MetricsAddr(), "/healthz"); a.status != 200 || a.body != "ok\n" {
		t.Errorf("metrics: %d %q", a.status, a.body)
	}
	if a := get(t, s.MetricsAddr(), "/status"); a.status != 404 {
		t.Errorf("metrics: /status: %d, want 404", a.status)
	}
	if a := get(t, s.AdminAddr(), "/status"); a.status != 200 || a.body != "\"here\"\n" {
		t.Errorf("admin: %d %q", a.status, a.body)
	}
	if a := get(t, s.AdminAddr(), "/status", "Host", "evil.example"); a.status != 421 {
		t.Errorf("admin, another's host: %d, want 421", a.status)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	for _, a := range []net.Addr{s.MetricsAddr(), s.AdminAddr()} {
		if _, err := net.Dial("tcp", a.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the end: %v, want it refused", err)
		}
	}
}

// Without endpoints nothing is served, until ctx ends.
func TestServeNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newTestObs(t).Listen(t.Context(), Endpoints{})
		if err != nil {
			t.Fatal(err)
		}
		if s.MetricsAddr() != nil || s.AdminAddr() != nil {
			t.Errorf("addresses: %v, %v, want none", s.MetricsAddr(), s.AdminAddr())
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Serve returns before its context ends: %v", err)
		default:
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A context that has ended before Serve began leaves no listener open.
func TestServeAfterTheEnd(t *testing.T) {
	s, err := newTestObs(t).Listen(t.Context(), Endpoints{Metrics: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.MetricsAddr().String()); err == nil {
		t.Error("the listener is open after Serve")
	}
}

// A server that fails ends the other and is the error.
func TestServeFails(t *testing.T) {
	s, err := newTestObs(t).Listen(t.Context(), Endpoints{Metrics: "127.0.0.1:0", Admin: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	s.parts[1].ln.Close()
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background()) }()
	select {
	case err := <-done:
		wantError(t, err, "serving the admin endpoint: ")
	case <-time.After(patience):
		t.Fatal("Serve does not return")
	}
	if _, err := net.Dial("tcp", s.MetricsAddr().String()); err == nil {
		t.Error("the other listener is open")
	}
}

func TestListenRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		e    Endpoints
		want []string
	}{
		{Endpoints{Admin: "0.0.0.0:0"}, []string{"is no loopback address", "admin address (--admin)"}},
		{Endpoints{Admin: "[::]:0"}, []string{"is no loopback address"}},
		{Endpoints{Admin: ":0"}, []string{"has no host"}},
		{Endpoints{Metrics: ":0"}, []string{"has no host", "metrics address (--metrics)"}},
		{Endpoints{Metrics: "127.0.0.1"}, []string{"missing port"}},
		{Endpoints{Metrics: taken.Addr().String(), MetricsWhere: "metrics in relay.yaml:7:10"}, []string{"address already in use", "metrics in relay.yaml:7:10", "choose another"}},
		{Endpoints{Metrics: "127.0.0.1:0", Admin: taken.Addr().String(), AdminWhere: "CULVERT_ADMIN"}, []string{"address already in use", "CULVERT_ADMIN"}},
		{Endpoints{Admin: "unix://" + file}, []string{"address already in use", "admin"}},
		{Endpoints{Admin: "unix:///no/such/folder/s"}, []string{"no such file or directory"}},
	} {
		s, err := newTestObs(t).Listen(t.Context(), tt.e)
		wantError(t, err, tt.want...)
		if s != nil {
			t.Errorf("%+v: a server came with the error", tt.e)
			s.Close()
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file in the way holds %q, %v; want it untouched", b, err)
	}
}

// When the second listener cannot be had, the first is given back.
func TestListenAllOrNone(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))
	if _, err := newTestObs(t).Listen(t.Context(), Endpoints{Metrics: addr, Admin: "0.0.0.0:0"}); err == nil {
		t.Fatal("no error")
	}
	again, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the metrics address was kept: %v", err)
	}
	again.Close()
}

// The end waits for a request under way, but not for ever, nor for a client
// that says nothing.
func TestServeEndsInTime(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	s, stop := serve(t, newTestObs(t), Endpoints{Admin: "127.0.0.1:0", Status: shows(func() any {
		close(began)
		<-release
		return "done"
	})})
	silent, err := net.Dial("tcp", s.AdminAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	got := make(chan answer, 1)
	go func() { got <- get(t, s.AdminAddr(), "/status") }()
	<-began
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	waitRefused(t, s.AdminAddr())
	close(release)
	if a := <-got; a.status != 200 || a.body != "\"done\"\n" {
		t.Errorf("the request under way: %d %q, want 200", a.status, a.body)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("Serve does not return")
	}
	for try := 1; ; try++ { // that it is closed is known by now; a time may be over before anybody has looked
		_ = silent.SetReadDeadline(time.Now().Add(headerTimeout / 20))
		if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if try == 3 {
			t.Fatal("the conn of the silent client is open after Serve")
		}
	}
}

// waitRefused waits until nobody listens any more.
func waitRefused(t *testing.T, a net.Addr) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		nc, err := net.Dial(a.Network(), a.String())
		if err != nil {
			return
		}
		nc.Close()
		if time.Now().After(end) {
			t.Fatal("it listens still")
		}
	}
}

// socketPath returns the path of a socket that is not there, short enough.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "obs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "admin.sock")
}

// A Unix socket has no host, and is its owner's alone.
func TestAdminOnAUnixSocket(t *testing.T) {
	path := socketPath(t)
	o := newTestObs(t)
	s, stop := serve(t, o, Endpoints{Admin: "unix://" + path, Status: shows(func() any { return "here" })})
	for _, host := range []string{"localhost", "admin.sock", "whatever.example"} {
		if a := get(t, s.AdminAddr(), "/status", "Host", host); a.status != 200 || !strings.Contains(a.body, "here") {
			t.Errorf("host %s: %d %q", host, a.status, a.body)
		}
	}
	if a := get(t, s.AdminAddr(), "/status", "Origin", "http://evil.example"); a.status != 403 {
		t.Errorf("another's origin: %d, want 403", a.status)
	}
	if _, err := o.Listen(t.Context(), Endpoints{Admin: "unix://" + path}); err == nil {
		t.Error("a second process took the socket of one that runs")
	} else {
		wantError(t, err, "another process listens there")
	}
	if a := get(t, s.AdminAddr(), "/healthz"); a.status != 200 {
		t.Errorf("after a second process tried: %d, want 200", a.status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end the socket is there: %v", err)
	}
}

// What a killed process left behind is taken over.
func TestUnixSocketLeftBehind(t *testing.T) {
	path := socketPath(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	s, _ := serve(t, newTestObs(t), Endpoints{Admin: "unix://" + path})
	if a := get(t, s.AdminAddr(), "/healthz"); a.status != 200 {
		t.Errorf("got %d, want 200", a.status)
	}
}
