//go:build e2e && linux

package e2e

import (
	"bytes"
	"encoding/base32"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// A wiretap stands between two neighbors and keeps every byte that passes.
type wiretap struct {
	addr string

	mu   sync.Mutex
	seen [2]bytes.Buffer // towards the listener's side, and back
}

// tap returns a wiretap before addr.
func tap(t *testing.T, addr string) *wiretap {
	t.Helper()
	w := &wiretap{}
	w.addr = serveTCP(t, func(near *net.TCPConn) {
		nc, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return
		}
		far := nc.(*net.TCPConn)
		var back sync.WaitGroup
		back.Go(func() {
			w.copy(near, far, 1)
			near.Close()
		})
		w.copy(far, near, 0)
		far.Close()
		back.Wait()
	})
	return w
}

func (w *wiretap) copy(to, from *net.TCPConn, direction int) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		w.seen[direction].Write(buf[:n])
		w.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				_ = to.CloseWrite()
			}
			return
		}
	}
}

// holds reports whether the text passed, in either direction, and how much did.
func (w *wiretap) holds(text string) (found bool, bytesSeen int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.seen {
		found = found || bytes.Contains(w.seen[i].Bytes(), []byte(text))
		bytesSeen += w.seen[i].Len()
	}
	return found, bytesSeen
}

// TestCiphertext taps both sides of a relay while psql asks for something, and
// searches what passed for the question, the answer and the service's name. The
// same search finds them on a connection without Culvert.
func TestCiphertext(t *testing.T) {
	t.Parallel()
	direct := postgresServer.at(t)
	w := newWorld(t)
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	nearInlet, nearOutlet := tap(t, w.addr("relay")), tap(t, w.addr("relay"))
	const name = "very-secret-orders-db"
	w.outlet("outlet", outletConfig{
		Relays:   []string{w.hopAt(nearOutlet.addr, "relay")},
		Services: []service{{name, direct, []string{"inlet"}}},
	})
	w.inlet("inlet", inletConfig{Services: []local{{name, "outlet", []string{w.hopAt(nearInlet.addr, "relay")}}}})

	// The answer is no part of the question, so each is searched for alone.
	const sql, answer = "select upper('marker of the plain text') || ' ' || repeat('xy', 4)", "MARKER OF THE PLAIN TEXT xyxyxyxy"
	ask := func(addr string) {
		t.Helper()
		out, errOut, code := tryCommand(t, patience, exec.Command(tool(t, "psql"), pg(addr, "-d", "postgres", "-X", "-A", "-t", "-c", sql)...))
		if strings.TrimSpace(out) != answer {
			t.Fatalf("psql: got %q, want %q (exit code %d, %s)", out, answer, code, errOut)
		}
	}
	ask(w.at("inlet", name))
	for where, tap := range map[string]*wiretap{"inlet and relay": nearInlet, "relay and outlet": nearOutlet} {
		for _, text := range []string{sql, "marker of", answer, name, "postgres", "127.0.0.1", w.id("inlet"), rawIdentifier(t, w.id("inlet")), rawIdentifier(t, w.id("outlet"))} {
			found, seen := tap.holds(text)
			if found {
				t.Errorf("between %s: %q passed in the clear", where, text)
			}
			if seen < 2000 {
				t.Errorf("between %s: only %d bytes passed, less than a handshake", where, seen)
			}
		}
	}

	plain := tap(t, direct)
	ask(plain.addr)
	for _, text := range []string{sql, "marker of", answer} {
		if found, _ := plain.holds(text); !found {
			t.Errorf("the search does not find %q where it passes in the clear", text)
		}
	}
}

// rawIdentifier returns the 32 bytes that an identifier stands for.
func rawIdentifier(t *testing.T, id string) string {
	t.Helper()
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(id))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
