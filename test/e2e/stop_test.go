//go:build e2e && linux

package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// TestDrain asks each of the three programs to end while a stream is open: it
// goes on, new ones are refused, and the program exits with 0 once the stream
// has ended.
func TestDrain(t *testing.T) {
	for _, name := range []string{"inlet", "outlet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
			addr := w.at("inlet", "echo")
			c := dial(t, addr)
			exchange(t, c, "before")
			n := w.node(name)
			n.term()
			n.wantLog(t, 5*time.Second, "drain")
			exchange(t, c, "while it drains")
			wantRefused(t, addr)
			exchange(t, c, "still")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			wantEOF(t, c)
			n.wantExit(t, 0, drainTimeout/2)
		})
	}
}

// A stream that does not end by itself is reset when the drain time is over,
// and the program still exits with 0.
func TestDrainTimeout(t *testing.T) {
	for _, name := range []string{"inlet", "outlet", "relay1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
			c := dial(t, w.at("inlet", "echo"))
			exchange(t, c, "before")
			n := w.node(name)
			n.term()
			n.wantExit(t, 0, drainTimeout+3*time.Second)
			if name != "relay1" { // a relay's end is not the stream's, where another path can be found
				wantReset(t, c, 5*time.Second)
			}
		})
	}
}

// A second signal ends at once, whatever is open.
func TestSecondSignal(t *testing.T) {
	for _, name := range []string{"inlet", "outlet", "relay1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
			c := dial(t, w.at("inlet", "echo"))
			exchange(t, c, "before")
			n := w.node(name)
			n.term()
			n.wantLog(t, 5*time.Second, "drain")
			n.signal(syscall.SIGINT)
			select {
			case <-n.done:
			case <-time.After(2 * time.Second):
				t.Errorf("%s still runs 2 s after the second signal", name)
			}
			wantReset(t, c, 15*time.Second)
		})
	}
}

// TestIdleStop holds that a program without streams ends at once, with its
// channel closed for a reason that the other side logs.
func TestIdleStop(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
	exchangeOnce(t, w.at("inlet", "echo"))
	started := time.Now()
	for _, name := range []string{"inlet", "outlet", "relay1"} {
		n := w.node(name)
		n.term()
		n.wantExit(t, 0, drainTimeout)
	}
	if took := time.Since(started); took > drainTimeout {
		t.Errorf("stopping three idle programs took %v", took)
	}
	w.node("outlet").wantLog(t, time.Second, "shutdown")
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
				w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
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
					wantReset(t, open, 20*time.Second)
				}
				w.node("inlet").wantNotReady(20*time.Second, "echo")
				n.restart().wantReady()
				w.node("inlet").wantReady()
				wantEcho(t, addr, 10*time.Second)
			})
		}
	}
}
