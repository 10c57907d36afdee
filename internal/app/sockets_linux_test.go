package app

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/route"
)

// socketFolder returns a folder whose path leaves room for a socket's name.
func socketFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "culvert")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serveUnix runs a server at a unix socket until the test's end.
func serveUnix(t *testing.T, handle func(nc *net.UnixConn)) config.Address {
	t.Helper()
	path := filepath.Join(socketFolder(t), "target.sock")
	ln, err := net.Listen("unix", path)
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				handle(nc.(*net.UnixConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return config.Address{Path: path}
}

// startSockets starts a system with unix sockets at both ends.
func startSockets(t *testing.T, handle func(nc *net.UnixConn)) (sys *system, path string) {
	t.Helper()
	path = filepath.Join(socketFolder(t), "inlet.sock")
	sys = startSystem(t, setup{target: serveUnix(t, handle), inlet: func(c *config.Inlet) {
		c.Services[0].Listen, c.Services[0].ListenMode = config.Address{Path: path}, 0o660
	}})
	return sys, path
}

func dialUnix(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	nc, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.UnixConn)
}

func echoUnix(nc *net.UnixConn) { _, _ = io.Copy(nc, struct{ io.Reader }{nc}) }

// Bytes, ends and modes of unix sockets at both plain ends.
func TestUnixSockets(t *testing.T) {
	t.Parallel()
	sys, path := startSockets(t, echoUnix)
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %04o, want 0660", info.Mode().Perm())
	}
	nc := dialUnix(t, path)
	wantEcho(t, nc, "hello")
	data := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		_, _ = io.WriteString(nc, data)
		_ = nc.CloseWrite()
	}()
	if got, err := io.ReadAll(nc); err != nil || string(got) != data {
		t.Fatalf("echo of %d bytes: got %d, %v", len(data), len(got), err)
	}
	eventually(t, "both ends have ended well", func() bool {
		return metric(t, sys.inlet.obs, "culvert_inlet_streams_total", "echo", "ok") == 1 && metric(t, sys.outlet.obs, "culvert_outlet_streams_total", "echo", "ok") == 1
	})
	if line := waitLine(t, sys.inletLog, map[string]string{"msg": "stream closed"}); !strings.HasPrefix(line["client"].(string), "unix:uid=") {
		t.Errorf("the log does not say who the client is: %v", line)
	}
	if got := sys.inlet.Status().Services[0].Listen; got != "unix://"+path {
		t.Errorf("the status says %q", got)
	}
	if got := sys.outlet.Status().Services[0].Target; !strings.HasPrefix(got, "unix:///") {
		t.Errorf("the status says %q", got)
	}
	sys.stopInlet()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// An abort at either end is one at the other, and no end, where that has spoken.
func TestUnixAborts(t *testing.T) {
	t.Parallel()
	t.Run("by the target", func(t *testing.T) {
		t.Parallel()
		sys, path := startSockets(t, func(nc *net.UnixConn) {
			_, _ = nc.Read(make([]byte, 1)) // and leaves the rest, for which its peer is told ECONNRESET
			_, _ = io.WriteString(nc, "half of")
		})
		nc := dialUnix(t, path)
		_, err := io.WriteString(nc, "hello")
		must(t, err)
		if b, err := io.ReadAll(nc); string(b) != "half of" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %q, %v; want what the target has said and a reset", b, err)
		}
		wantEnds(t, sys, "target_reset")
	})
	t.Run("by the client", func(t *testing.T) {
		t.Parallel()
		seen := make(chan error, 1)
		sys, path := startSockets(t, func(nc *net.UnixConn) {
			_, err := io.Copy(nc, struct{ io.Reader }{nc})
			seen <- err
		})
		nc := dialUnix(t, path)
		wantEcho(t, nc, "hello")
		_, err := io.WriteString(nc, "unread")
		must(t, err)
		rc, err := nc.SyscallConn()
		must(t, err)
		must(t, rc.Read(func(fd uintptr) bool { // the echo has come, and is not read
			n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
			return n > 0 || err != syscall.EAGAIN
		}))
		_ = nc.Close()
		// The target has sent nothing more than an echo of bytes that the outlet has
		// read: it is told all the same.
		select {
		case err := <-seen:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the target read %v, want a reset", err)
			}
		case <-time.After(patience):
			t.Fatal("the target sees nothing")
		}
		wantEnds(t, sys, "client_reset")
	})
	t.Run("outlet stops", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(socketFolder(t), "inlet.sock")
		sys := startSystem(t, setup{target: serveUnix(t, echoUnix), outlet: func(c *config.Outlet) { c.DrainTimeout = time.Millisecond }, inlet: func(c *config.Inlet) {
			c.Services[0].Listen = config.Address{Path: path}
		}})
		nc := dialUnix(t, path)
		wantEcho(t, nc, "hello")
		sys.stopOutlet()
		if _, err := io.ReadAll(nc); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %v, want a reset", err)
		}
	})
	t.Run("target gone", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(socketFolder(t), "inlet.sock")
		spoken := make(chan struct{})
		sys := startSystem(t, setup{
			target: config.Address{Path: filepath.Join(socketFolder(t), "none.sock")},
			dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				<-spoken
				return new(net.Dialer).DialContext(ctx, network, address)
			},
			inlet: func(c *config.Inlet) { c.Services[0].Listen = config.Address{Path: path} },
		})
		nc := dialUnix(t, path)
		_, err := io.WriteString(nc, "hello")
		close(spoken)
		must(t, err)
		if _, err := io.ReadAll(nc); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %v, want a reset", err)
		}
		eventually(t, "it is counted", func() bool {
			return metric(t, sys.inlet.obs, "culvert_inlet_streams_total", "echo", "target_unreachable") == 1
		})
	})
}

// An address that cannot be had is a fault of its setting.
func TestUnixListenFaults(t *testing.T) {
	file := filepath.Join(socketFolder(t), "file")
	must(t, os.WriteFile(file, []byte("mine"), 0o600))
	key, id := newIdentity(t)
	o, _ := newObs(t, "inlet")
	in, err := NewInlet(&config.Inlet{Common: config.Common{Identity: key}, Services: []config.InletService{{
		Listen: config.Address{Path: file}, Service: "echo", Outlet: id, Routes: []route.Route{routeTo(&net.TCPAddr{Port: 1}, id)},
	}}}, o)
	must(t, err)
	if err := in.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "services[0].listen") || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v, want the setting and that it is no socket", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file was harmed: %q, %v", b, err)
	}
}
