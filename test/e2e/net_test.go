//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// listenTCP listens on a loopback port of the test's own.
func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// freeAddr returns a loopback address that nothing listens on and that no other
// test gets, until this one has ended.
func freeAddr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))
}

// serveTCP hands each connection to handle until the test ends, and then waits
// for all that it started.
func serveTCP(t *testing.T, handle func(*net.TCPConn)) (addr string) {
	t.Helper()
	ln := listenTCP(t)
	var (
		running sync.WaitGroup
		mu      sync.Mutex
		conns   = map[*net.TCPConn]bool{}
	)
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := nc.(*net.TCPConn)
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			running.Go(func() {
				defer func() {
					c.Close()
					mu.Lock()
					delete(conns, c)
					mu.Unlock()
				}()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return ln.Addr().String()
}

// echo sends back what it gets, and ends when the other side has ended.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// named answers every connection with a name and then echoes: who was reached?
func named(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		_, _ = io.WriteString(c, name+"\n")
		echo(c)
	}
}

// dial connects to addr and closes at the end of the test.
func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// exchange sends message and wants it back.
func exchange(t testing.TB, c net.Conn, message string) {
	t.Helper()
	if err := tryExchange(c, message, patience); err != nil {
		t.Fatal(err)
	}
}

func tryExchange(c net.Conn, message string, within time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(within))
	defer func() { _ = c.SetDeadline(time.Time{}) }()
	if _, err := io.WriteString(c, message); err != nil {
		return fmt.Errorf("writing %q: %w", cut(message), err)
	}
	got := make([]byte, len(message))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("reading the echo of %q: %q, %w", cut(message), cut(string(got[:n])), err)
	}
	if string(got) != message {
		return fmt.Errorf("echo: got %q, want %q", cut(string(got)), cut(message))
	}
	return nil
}

// tryEcho makes a new connection to addr and has one message echoed over it.
func tryEcho(addr, message string) error {
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	return tryExchange(c, message, 30*time.Second)
}

// wantEcho retries [tryEcho] with new connections until one works: the state
// that the test waits for has come.
func wantEcho(t testing.TB, addr string, within time.Duration) {
	t.Helper()
	var err error
	if !eventually(within, func() bool { err = tryEcho(addr, "are you there?"); return err == nil }) {
		t.Fatalf("no new connection works within %v: %v", within, err)
	}
}

// wantReset reads until c ends and wants a reset: whatever was not finished must
// not look finished.
func wantReset(t testing.TB, c net.Conn, within time.Duration) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(within))
	got, err := io.ReadAll(c)
	switch {
	case err == nil:
		t.Errorf("the client read a clean end after %q, want a reset", cut(string(got)))
	case !errors.Is(err, syscall.ECONNRESET):
		t.Errorf("the client read %q and %v, want a reset", cut(string(got)), err)
	}
}

// wantEOF reads a clean end with nothing before it.
func wantEOF(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Errorf("read %q and %v, want a clean end", cut(string(got)), err)
	}
}

// wantNewReset wants a new connection to addr to be accepted and then reset. On
// a loopback the reset can come before the dial is done, which then returns it.
func wantNewReset(t testing.TB, addr string, within time.Duration) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	switch {
	case errors.Is(err, syscall.ECONNRESET):
	case err != nil:
		t.Errorf("dialing %s: %v, want a connection and its reset", addr, err)
	default:
		defer c.Close()
		wantReset(t, c, within)
	}
}

// wantRefused wants a new connection to addr to be refused or reset: nobody
// takes new work there.
func wantRefused(t testing.TB, addr string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
	case err != nil:
		t.Errorf("dialing %s: %v, want a refusal", addr, err)
	default:
		defer c.Close()
		wantReset(t, c, patience)
	}
}

// eventually asks ok again and again until it says yes or the time is over.
func eventually(within time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(within)
	for {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		// What is polled has no event to wait for: other processes' state.
		time.Sleep(20 * time.Millisecond)
	}
}
