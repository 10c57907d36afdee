//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

// A stream that is refused at the outlet: its client sees a reset, and both
// ends' logs name the code.
func TestStreamRefusals(t *testing.T) {
	t.Parallel()
	good := serveTCP(t, echo)
	w := newWorld(t)
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	outlet := w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{
		{"good", good, []string{"inlet"}},
		{"for-others", good, []string{"somebody-else"}},
		{"for-nobody", good, nil},
		{"closed", freeAddr(t), []string{"inlet"}},
		{"hole", blackHole(t), []string{"inlet"}},
		{"nowhere", "no-such-host.invalid:5432", []string{"inlet"}},
	}})
	var services []local
	for _, name := range []string{"good", "for-others", "for-nobody", "closed", "hole", "nowhere", "unheard-of"} {
		services = append(services, local{name, "outlet", []string{w.hop("relay")}})
	}
	inlet := w.inlet("inlet", inletConfig{Services: services})
	wantEcho(t, w.at("inlet", "good"), patience)
	kept := dial(t, w.at("inlet", "good"))
	exchange(t, kept, "before")

	for _, tc := range []struct{ service, code string }{
		{"for-others", "stream_denied"},
		{"for-nobody", "stream_denied"},
		{"closed", "target_refused"},
		{"hole", "target_timeout"},
		{"nowhere", "target_unreachable"},
		{"unheard-of", "service_unknown"},
	} {
		t.Run(tc.service, func(t *testing.T) {
			wantNewReset(t, w.at("inlet", tc.service), patience)
			outlet.wantLog(t, patience, tc.code, tc.service, w.id("inlet"))
			inlet.wantLog(t, patience, tc.code, tc.service)
		})
	}
	// A refusal is a stream's own matter.
	exchange(t, kept, "after")
}

// blackHole listens with a full backlog: a dial gets no answer at all.
func blackHole(t *testing.T) (addr string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	addr = freeAddr(t)
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	sa := &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte{127, 0, 0, 1}}
	reuse := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) // of connections that are not forgotten yet
	if err := errors.Join(reuse, syscall.Bind(fd, sa), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		var timeout net.Error
		switch {
		case err == nil:
			t.Cleanup(func() { c.Close() })
		case errors.As(err, &timeout) && timeout.Timeout():
			return addr
		default:
			t.Fatal(err)
		}
	}
	t.Fatal("the backlog does not fill up")
	return ""
}

// A path that cannot be made: the inlet is not ready and says why, a local
// client waits connect_timeout and is then reset.
func TestPathRefusals(t *testing.T) {
	t.Parallel()
	const connectTimeout = 2 * time.Second
	w := newWorld(t)
	relays := []*node{
		w.relay("relay1", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}, Extend: []string{"relay2"}}),
		w.relay("relay2", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}}),
		w.relay("closed", relayConfig{}),
	}
	w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay2")}, Listen: true, Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}}})

	for _, tc := range []struct {
		name   string
		route  string
		outlet string
		log    []string // parts of one line of the inlet's log
		relay  int      // whose log has parts too, from 1
		parts  []string
	}{
		{name: "relay unknown", route: w.hop("nobody-listens"), log: []string{"connection refused", w.addr("nobody-listens")}},
		{name: "relay's host unknown", route: "tcp://no-such-host.invalid:4000/" + w.id("relay1"), log: []string{"no-such-host.invalid"}},
		{name: "relay proves another identity", route: w.hopAt(w.addr("relay1"), "somebody-else"), log: []string{w.id("somebody-else")}},
		{name: "second relay proves another identity", route: w.hop("relay1") + "," + w.hopAt(w.addr("relay2"), "somebody-else"), log: []string{w.id("somebody-else")}},
		{name: "outlet proves another identity", route: w.hopAt(w.addr("outlet"), "somebody-else"), outlet: "somebody-else", log: []string{w.id("somebody-else")}},
		{name: "outlet not registered", route: w.hop("relay1"), log: []string{"not_registered"}, relay: 1, parts: []string{"not_registered", w.id("outlet")}},
		{name: "connect not allowed", route: w.hop("closed"), log: []string{"connect_denied"}, relay: 3, parts: []string{"connect_denied", w.id("inlet")}},
		{name: "extend not allowed", route: w.hop("relay2") + "," + w.hop("relay1"), log: []string{"extend_denied"}, relay: 2, parts: []string{"extend_denied", w.addr("relay1")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := newWorld(t) // of its own, for its log; the identities are the outer world's
			in.ids, in.addrs["inlet/echo"] = map[string]string{"inlet": w.id("inlet"), "outlet": w.id("outlet")}, freeAddr(t)
			if tc.outlet != "" {
				in.ids["outlet"] = w.id(tc.outlet)
			}
			copyFile(t, w.key("inlet"), in.key("inlet"))
			inlet := in.startInlet("inlet", inletConfig{
				Services: []local{{"echo", "outlet", []string{tc.route}}},
				Extra:    fmt.Sprintf("connect_timeout: %v\n", connectTimeout),
			})
			started := time.Now()
			c := dial(t, in.at("inlet", "echo"))
			wantReset(t, c, connectTimeout+10*time.Second)
			if waited := time.Since(started); waited < connectTimeout*9/10 || waited > connectTimeout+7*time.Second { // and not the default of 10 s
				t.Errorf("the client was reset after %v, want about %v", waited, connectTimeout)
			}
			inlet.wantLog(t, patience, tc.log...)
			inlet.wantNotReady(patience, "echo")
			if tc.relay > 0 {
				relays[tc.relay-1].wantLog(t, patience, tc.parts...)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
	giveAway(t, to)
}

// An outlet that may not register says so, and so does the relay.
func TestRegisterRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	relay := w.relay("relay", relayConfig{Register: []string{"somebody-else"}})
	outlet := w.startOutlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", serveTCP(t, echo), nil}}})
	outlet.wantLog(t, patience, "register_denied")
	relay.wantLog(t, patience, "register_denied", w.id("outlet"))
	outlet.wantNotReady(patience, w.addr("relay"))
}

// Without a channel a local client waits for the default of 10 s; the inlet
// listens all the while and never hangs.
func TestConnectTimeoutDefault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startInlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}})
	started := time.Now()
	c := dial(t, w.at("inlet", "echo"))
	wantReset(t, c, patience)
	if waited := time.Since(started); waited < 9*time.Second || waited > 25*time.Second {
		t.Errorf("the client was reset after %v, want about 10 s", waited)
	}
}

// A client that waits is served when the channel comes in time, with what it
// has written meanwhile.
func TestClientWaitsForChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inlet := w.startInlet("inlet", inletConfig{Services: []local{{"echo", "outlet", []string{w.hop("relay")}}}, Extra: "connect_timeout: 1m\n"})
	inlet.wantNotReady(patience, "echo")
	c := dial(t, w.at("inlet", "echo"))
	if _, err := c.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"echo", serveTCP(t, echo), []string{"inlet"}}}})
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, 5)
	if n, err := c.Read(got); string(got[:n]) != "early" {
		t.Errorf("the waiting client read %q and %v, want %q", got[:n], err, "early")
	}
	if got := inlet.get("/healthz").code; got != http.StatusOK {
		t.Errorf("/healthz: got %d", got)
	}
}
