//go:build e2e && linux

package e2e

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"
)

// whoAnswers connects to addr and returns the name that the target gives.
func whoAnswers(addr string) (name string, err error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	name, err = bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(name), err
}

func wantAnswer(t *testing.T, addr string, within time.Duration, want string) {
	t.Helper()
	var (
		got string
		err error
	)
	if !eventually(within, func() bool { got, err = whoAnswers(addr); return err == nil && got == want }) {
		t.Errorf("%q answers (%v), want %q within %v", got, err, want, within)
	}
}

// TestFailover kills the relay of the first of two routes: new connections take
// the other.
func TestFailover(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}}
	first := w.relay("first", c)
	w.relay("second", c)
	w.outlet("outlet", outletConfig{
		Relays:   []string{w.hop("first"), w.hop("second")},
		Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}},
	})
	inlet := w.inlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("first"), w.hop("second")}}}})
	wantEcho(t, w.at("inlet", "echo"), patience)
	first.kill()
	wantEcho(t, w.at("inlet", "echo"), patience)
	inlet.wantReady()

	// From the start with a dead first route, too.
	again := w.startInlet("another-inlet", inletConfig{Identity: "inlet", Services: []local{{"echo", "outlet", []string{w.hop("first"), w.hop("second")}}}})
	again.wantReady()
	wantEcho(t, w.at("another-inlet", "echo"), patience)
}

// TestTwoRelays registers one outlet at two relays that know nothing of each
// other; an inlet reaches it through either.
func TestTwoRelays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}}
	w.relay("left", c)
	w.relay("right", c)
	w.outlet("outlet", outletConfig{
		Relays:   []string{w.hop("left"), w.hop("right")},
		Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}},
	})
	for _, side := range []string{"left", "right"} {
		w.inlet("inlet-"+side, inletConfig{Identity: "inlet", Services: []local{{"echo", "outlet", []string{w.hop(side)}}}})
		wantEcho(t, w.at("inlet-"+side, "echo"), patience)
	}
}

// TestTwoOutlets runs two outlet processes with one identity. Both stand beside
// each other; when the one that is in use dies, the other takes over, and a
// restarted one is found again.
func TestTwoOutlets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	nodes := map[string]*node{}
	for _, name := range []string{"one", "two"} {
		nodes[name] = w.outlet("outlet-"+name, outletConfig{
			Identity: "outlet",
			Relays:   []string{w.hop("relay")},
			Services: []service{{"who", serveTCP(t, named(name)), []string{"inlet"}}},
		})
	}
	w.inlet("inlet", inletConfig{Services: []local{{"who", "outlet", []string{w.hop("relay")}}}})
	addr := w.at("inlet", "who")
	other := map[string]string{"one": "two", "two": "one"}

	used, err := whoAnswers(addr)
	if err != nil || other[used] == "" {
		t.Fatalf("%q answers, %v", used, err)
	}
	nodes[used].kill()
	wantAnswer(t, addr, patience, other[used])

	nodes[used].restart().wantReady()
	nodes[other[used]].kill()
	wantAnswer(t, addr, patience, used)
}

// TestOutletReplacesItself kills an outlet and starts it again before its old
// registration can have expired: the new process is reached at once, not after
// the lease.
func TestOutletReplacesItself(t *testing.T) {
	t.Parallel()
	w := chain(t, 1, map[string]string{"echo": serveTCP(t, echo)})
	for range 3 {
		n := w.node("outlet")
		n.kill()
		n.restart().wantReady()
		wantEcho(t, w.at("inlet", "echo"), patience)
	}
}
