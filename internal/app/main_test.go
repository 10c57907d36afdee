package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is to happen, on a machine that may be
// busy with other things: it is for what does not happen at all. What is to happen soon
// is measured, by a [testenv.Watch].
const patience = time.Minute

// newIdentity makes an identity and returns its file and identifier.
func newIdentity(t *testing.T) (string, identity.Identifier) {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.key")
	if err := id.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	return file, id.Identifier()
}

// A logged process's log, as JSON lines.
type logBuffer struct {
	obs *obs.Obs

	mu      sync.Mutex
	buf     bytes.Buffer
	stalled chan struct{} // a write waits until it is closed; nil: it does not
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	stalled := l.stalled
	l.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// stall keeps writes waiting until release is called, which the test's end does.
func (l *logBuffer) stall(t *testing.T) (release func()) {
	stalled := make(chan struct{})
	l.mu.Lock()
	l.stalled = stalled
	l.mu.Unlock()
	release = sync.OnceFunc(func() {
		l.mu.Lock()
		l.stalled = nil
		l.mu.Unlock()
		close(stalled)
	})
	t.Cleanup(release)
	return release
}

// lines returns the entries that have all of the wanted fields.
func (l *logBuffer) lines(t *testing.T, want map[string]string) (found []map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l.obs.FlushLog(ctx)
	text := l.text()
	for line := range strings.Lines(text) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		ok := true
		for k, v := range want {
			ok = ok && entry[k] == v
		}
		if ok {
			found = append(found, entry)
		}
	}
	return found
}

func newObs(t *testing.T, command string) (*obs.Obs, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	o, err := obs.New(obs.Config{Command: command, LogFormat: "json", LogLevel: "debug", LogOutput: log})
	if err != nil {
		t.Fatal(err)
	}
	log.obs = o
	t.Cleanup(func() {
		if t.Failed() {
			log.mu.Lock()
			defer log.mu.Unlock()
			t.Logf("log of %s:\n%s", command, log.buf.String())
		}
	})
	return o, log
}

// run runs f until the test's end or until stop is called, which waits for it.
func run(t *testing.T, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(2 * patience): // one of them may be a drain time
				t.Error("Run does not return")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, patience, what, ok)
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

func local(port int) config.Address { return config.Address{Host: "127.0.0.1", Port: uint16(port)} }

func portOf(a net.Addr) int { return a.(*net.TCPAddr).Port }

func routeTo(a net.Addr, id identity.Identifier) route.Route {
	return route.Route{{Host: "127.0.0.1", Port: uint16(portOf(a)), Identifier: id}}
}

// serveTCP runs a TCP server until the test's end.
func serveTCP(t *testing.T, handle func(nc *net.TCPConn)) config.Address {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				handle(nc.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return local(portOf(ln.Addr()))
}

// echo answers with what it gets and passes the end on.
func echo(nc *net.TCPConn) { _, _ = io.Copy(nc, nc) }

func dialTCP(t *testing.T, a net.Addr) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn)
}

// wantEcho sends text through nc and wants it back.
func wantEcho(t *testing.T, nc net.Conn, text string) {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(patience)) // for this echo, however long ago it was dialled
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != text {
		t.Fatalf("echo: got %q, %v, want %q", got, err, text)
	}
}

// wantRefused dials and wants a reset. It can come before the dial is done.
func wantRefused(t *testing.T, a net.Addr) {
	t.Helper()
	nc, err := net.Dial("tcp", a.String())
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	wantReset(t, nc)
}

// wantReset wants a conn to end in a reset: not cleanly, and not never.
func wantReset(t *testing.T, nc net.Conn) {
	t.Helper()
	b, err := io.ReadAll(nc)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read %d bytes and %v, want a reset", len(b), err)
	}
}
