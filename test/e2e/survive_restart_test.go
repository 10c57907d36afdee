//go:build e2e && linux

package e2e

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// restartWorld starts a relay, an outlet that offers "echo", and an inlet. ends
// brings how each connection to the target has ended.
func restartWorld(t *testing.T, outletExtra, inletExtra string) (w *world, addr string, ends <-chan error) {
	t.Helper()
	ch := make(chan error, 100)
	target := serveTCP(t, func(c *net.TCPConn) {
		_, err := io.Copy(c, c)
		ch <- err
	})
	w = newWorld(t)
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", target, []string{"inlet"}}}, Extra: outletExtra})
	w.inlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}, Extra: inletExtra})
	return w, w.at("inlet", "echo"), ch
}

// wantTargetReset waits for the next end of a connection to the target.
func wantTargetReset(t *testing.T, ends <-chan error, within time.Duration) {
	t.Helper()
	select {
	case err := <-ends:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target read %v, want a reset", err)
		}
	case <-time.After(within):
		t.Errorf("the target saw no end within %v", within)
	}
}

// TestSurviveOutletCrash kills an outlet and starts it again. Streams cannot
// survive that, but how they end is promised.
func TestSurviveOutletCrash(t *testing.T) {
	t.Parallel()
	t.Run("with a name", func(t *testing.T) {
		w, addr, _ := restartWorld(t, "name: outlet-0\n", "")
		c := dial(t, addr)
		exchange(t, c, "before")
		began := time.Now()
		w.node("outlet").kill()
		w.node("outlet").restart().wantReady()
		wantReset(t, c, 30*time.Second) // the grace time is 60 s
		t.Logf("the old stream was reset %v after the crash", time.Since(began).Round(time.Millisecond))
		wantEcho(t, addr, patience)
		w.node("inlet").wantLog(t, patience, "channel lost", `"code":"replaced"`)
	})
	t.Run("without", func(t *testing.T) {
		const grace = 10 * time.Second
		w, addr, _ := restartWorld(t, "", "grace: 10s\n")
		c := dial(t, addr)
		exchange(t, c, "before")
		began := time.Now()
		w.node("outlet").kill()
		w.node("outlet").restart().wantReady()
		wantEcho(t, addr, grace)
		t.Logf("a new stream worked %v after the crash", time.Since(began).Round(time.Millisecond))
		if took := time.Since(began); took > grace-500*time.Millisecond {
			t.Errorf("a new stream worked after %v only", took)
		}
		wantReset(t, c, grace+20*time.Second)
		took := time.Since(began)
		t.Logf("the old stream was reset %v after the crash", took.Round(time.Millisecond))
		if took < grace-500*time.Millisecond {
			t.Errorf("the old stream was reset %v after the crash, want the grace of %v", took, grace)
		}
	})
}

// TestSurviveOutletStop stops an outlet with an open stream, which ends with the
// drain time and not with the grace.
func TestSurviveOutletStop(t *testing.T) {
	t.Parallel()
	const drain = 2 * time.Second
	w, addr, _ := restartWorld(t, "drain_timeout: 2s\n", "")
	c := dial(t, addr)
	exchange(t, c, "before")
	began := time.Now()
	w.node("outlet").term()
	wantReset(t, c, drain+20*time.Second) // the grace time is 60 s
	took := time.Since(began)
	t.Logf("the stream was reset %v after SIGTERM, at a drain time of %v", took.Round(time.Millisecond), drain)
	if took < drain/2 {
		t.Errorf("the stream was reset after %v, want the drain time of %v", took, drain)
	}
	w.node("outlet").wantExit(t, 0, 5*time.Second)
	w.node("outlet").restart().wantReady()
	wantEcho(t, addr, patience)
}

// TestSurviveInletCrash kills an inlet and starts it again: the outlet ends the
// connections to targets that were its clients'.
func TestSurviveInletCrash(t *testing.T) {
	t.Parallel()
	t.Run("with a name", func(t *testing.T) {
		w, addr, ends := restartWorld(t, "", "name: inlet-0\n")
		exchange(t, dial(t, addr), "before")
		began := time.Now()
		w.node("inlet").kill()
		w.node("inlet").restart().wantReady()    // so it has a channel
		wantTargetReset(t, ends, 30*time.Second) // the grace time is 60 s
		t.Logf("the target's connection was reset %v after the crash", time.Since(began).Round(time.Millisecond))
		wantEcho(t, addr, patience)
	})
	t.Run("without", func(t *testing.T) {
		const grace = 4 * time.Second
		w, addr, ends := restartWorld(t, "grace: 4s\n", "")
		exchange(t, dial(t, addr), "before")
		began := time.Now()
		w.node("inlet").kill()
		w.node("inlet").restart().wantReady()
		wantTargetReset(t, ends, grace+20*time.Second)
		took := time.Since(began)
		t.Logf("the target's connection was reset %v after the crash", took.Round(time.Millisecond))
		if took < grace-500*time.Millisecond {
			t.Errorf("the target's connection was reset %v after the crash, want the grace of %v", took, grace)
		}
	})
}
