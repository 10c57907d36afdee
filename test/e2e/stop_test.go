//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// longDrain is for tests of what does not wait for the drain time's end.
const longDrain = "drain_timeout: 1m\n"

// TestDrain asks each of the three programs to end while a stream is open: it
// goes on, new ones are refused, and the program exits with 0 once the stream
// has ended.
func TestDrain(t *testing.T) {
	for _, name := range []string{"inlet", "outlet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// While the only outlet drains, the inlet holds new clients as it does when
			// there is none.
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)}, "connect_timeout: 1s\n"+longDrain, longDrain)
			addr := w.at("inlet", "echo")
			c := dial(t, addr)
			exchange(t, c, "before")
			n := w.node(name)
			n.term()
			n.wantLog(t, patience, "drain")
			exchange(t, c, "while it drains")
			if name == "outlet" { // what comes before the inlet knows may still be served
				w.node("inlet").wantLog(t, patience, "draining")
			}
			wantRefused(t, addr)
			exchange(t, c, "still")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			wantEOF(t, c)
			n.wantExit(t, 0, patience/2) // not with the drain time
		})
	}
}

// A stream that does not end by itself is reset when the drain time is over,
// and the program still exits with 0.
func TestDrainTimeout(t *testing.T) {
	for _, name := range []string{"inlet", "outlet", "relay1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			others := ""
			if name == "relay1" { // without which they do not hear of each other's end
				others = "drain_timeout: 1s\n"
			}
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)}, others, others)
			c := dial(t, w.at("inlet", "echo"))
			exchange(t, c, "before")
			n := w.node(name)
			n.term()
			n.wantExit(t, 0, drainTimeout+20*time.Second)
			if name != "relay1" { // a relay's end is not the stream's, where another path can be found
				wantReset(t, c, patience)
			}
		})
	}
}

// shortGrace makes the ends of streams whose other side is gone come soon.
const shortGrace = "grace: 2s\n"

// A second signal ends at once, whatever is open. Who is left gives its streams
// up when the grace time is over.
func TestSecondSignal(t *testing.T) {
	for _, name := range []string{"inlet", "outlet", "relay1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)}, shortGrace+longDrain, shortGrace+longDrain, longDrain)
			c := dial(t, w.at("inlet", "echo"))
			exchange(t, c, "before")
			n := w.node(name)
			n.term()
			n.wantLog(t, patience, "drain")
			n.signal(syscall.SIGINT)
			select {
			case <-n.done:
			case <-time.After(patience / 2): // not with the drain time
				t.Errorf("%s still runs %s after the second signal", name, patience/2)
			}
			wantReset(t, c, patience/2)
		})
	}
}

// TestKilled ends a program without any warning, and it does not come back. The
// kernel closes its sockets; even so neither the client nor the target may read that as a clean end.
func TestKilled(t *testing.T) {
	for _, name := range []string{"inlet", "outlet", "relay1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ends := make(chan error, 1)
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, func(c *net.TCPConn) {
				_, err := io.Copy(c, c)
				ends <- err
			})}, shortGrace, shortGrace)
			c := dial(t, w.at("inlet", "echo"))
			exchange(t, c, "before")
			w.node(name).kill()
			wantReset(t, c, patience)
			select {
			case err := <-ends:
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the target read %v, want a reset", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the target saw no end")
			}
		})
	}
}

// TestStopWhileWaiting asks an inlet to end while a client waits for a channel
// that cannot be had.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inlet := w.startInlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}, Extra: "connect_timeout: 5m\n" + longDrain})
	c := dial(t, w.at("inlet", "echo"))
	inlet.wantNotReady(patience, "echo")
	inlet.term()
	wantReset(t, c, patience/2) // not with a time-out
	inlet.wantExit(t, 0, patience/2)
}

// TestIdleStop holds that a program without streams ends at once, with its
// channel closed for a reason that the other side logs.
func TestIdleStop(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)}, longDrain, longDrain, longDrain)
	exchangeOnce(t, w.at("inlet", "echo"))
	watch := testenv.Start(t)
	for _, name := range []string{"inlet", "outlet", "relay1"} {
		n := w.node(name)
		n.term()
		n.wantExit(t, 0, patience/2) // not with the drain time
	}
	if took := watch.Took(); took > drainTimeout {
		t.Errorf("stopping three idle programs took %v", took)
	}
	w.node("outlet").wantLog(t, patience, "shutdown")
}

func exchangeOnce(t *testing.T, addr string) {
	t.Helper()
	if err := tryEcho(addr, "once"); err != nil {
		t.Fatal(err)
	}
}

// TestInletReconnects kills and restarts what the inlet depends on; it comes
// back by itself each time.
func TestInletReconnects(t *testing.T) {
	for _, name := range []string{"relay1", "outlet"} {
		for _, how := range []string{"killed", "stopped"} {
			t.Run(fmt.Sprint(name, " ", how), func(t *testing.T) {
				t.Parallel()
				w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)}, shortGrace)
				addr := w.at("inlet", "echo")
				open := dial(t, addr)
				exchange(t, open, "before")
				n := w.node(name)
				if how == "killed" {
					n.kill()
				} else {
					n.stop()
				}
				if name == "outlet" {
					wantReset(t, open, patience)
				}
				w.node("inlet").wantNotReady(patience, "echo")
				n.restart().wantReady()
				w.node("inlet").wantReady()
				wantEcho(t, addr, patience)
			})
		}
	}
}
