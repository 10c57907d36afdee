//go:build e2e && linux

package e2e

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A change gives one program other settings than it began with.
type change struct {
	node string
	edit func(good string) string
	// fault is what the log has to say of settings that cannot be taken; nil: they can.
	fault []string
}

// replaced returns an edit that exchanges parts of the settings, in pairs, each of
// which has to be there.
func replaced(t *testing.T, pairs ...string) func(string) string {
	return func(text string) string {
		t.Helper()
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				t.Fatalf("no %q in %s", pairs[i], text)
			}
			text = strings.Replace(text, pairs[i], pairs[i+1], 1)
		}
		return text
	}
}

func unchanged(text string) string { return text }

// TestReloadUnderLoad gives an inlet, an outlet and two relays other settings, good and
// broken ones, while streams run that check every byte: what holds is what was good, and
// no stream notices.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hops := []string{w.hop("relay1"), w.hop("relay2")}
	for i := range hops {
		w.relay(relayName(i), relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	}
	w.outlet("outlet", outletConfig{Relays: hops, Services: []service{{Name: "load", Target: loadTarget(t), Allow: []string{"inlet"}}}})
	w.inlet("inlet", inletConfig{Services: []local{{Service: "load", Outlet: "outlet", Routes: hops}}})
	names := []string{"inlet", "outlet", "relay1", "relay2"}
	warm := startLoad(t, w.at("inlet", "load"), 4, 1<<20, 0)
	warm.wait(func() int { return 0 })
	before := map[string]usage{}
	good := map[string]string{}
	for _, name := range names {
		before[name], good[name] = w.node(name).usage(), w.node(name).settings()
	}
	mounted := w.node("inlet").mount()

	l := startLoad(t, w.at("inlet", "load"), 10, howLong[int64](4<<20, 64<<20), howLong(8*time.Second, time.Minute))
	l.tick()
	reloads := 0
	for range howLong(1, 5) {
		for _, c := range w.changes(hops) {
			n := w.node(c.node)
			failed, ok := n.metric(`culvert_config_reloads_total{result="failed"}`), n.metric(`culvert_config_reloads_total{result="ok"}`)
			if text := c.edit(good[c.node]); c.node == "inlet" {
				mounted.publish(text)
				n.signal(syscall.SIGHUP)
			} else {
				n.hangup(text)
			}
			reloads++
			if !eventually(patience, func() bool {
				return n.metric(`culvert_config_reloads_total{result="failed"}`) > failed || n.metric(`culvert_config_reloads_total{result="ok"}`) > ok
			}) {
				t.Fatalf("%s does not read its settings again", c.node)
			}
			if taken := n.metric("culvert_config_file_in_use") == 1; taken != (c.fault == nil) {
				t.Errorf("%s: settings taken %v, want them refused with %q\n%s", c.node, taken, c.fault, n.log.tail(5))
			}
			if c.fault != nil {
				n.wantLog(t, patience, append(c.fault, "settings file cannot be taken, what holds stays")...)
			}
			time.Sleep(100 * time.Millisecond) // traffic flows
		}
	}
	n := w.node("inlet")
	ok := n.metric(`culvert_config_reloads_total{result="ok"}`)
	mounted.publish(good["inlet"] + "# without a signal\n")
	if !eventually(patience, func() bool { return n.metric(`culvert_config_reloads_total{result="ok"}`) > ok }) {
		t.Error("the inlet does not notice that its settings were exchanged")
	}
	l.wait(func() int { return reloads })
	l.pauseBelow(8 * time.Second) // a path that nobody leaves is found dead after 10 s
	if lost := w.node("inlet").metric("culvert_channel_path_losses_total"); lost != 0 {
		t.Errorf("the inlet has lost %v paths, want each left before it ends", lost)
	}
	for _, name := range names {
		w.node(name).wantUsage(before[name])
	}
}

// changes returns what TestReloadUnderLoad does.
func (w *world) changes(hops []string) []change {
	t := w.t
	t.Helper()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.after = append(w.after, func() { taken.Close() })
	inlet, both := list([]string{w.id("inlet")}), list(hops)
	first, second, reversed := list(hops[:1]), list(hops[1:]), list([]string{hops[1], hops[0]})
	more := func(text string) string {
		return text + fmt.Sprintf("  - listen: tcp://%s\n    service: more\n    outlet: %s\n    routes: %s\n", w.at("inlet", "more"), w.id("outlet"), both)
	}
	services := func(edit func(string) string) func(string) string { // the list is the last but for drain_timeout
		return func(text string) string {
			head, tail, _ := strings.Cut(text, "drain_timeout:")
			return edit(head) + "drain_timeout:" + tail
		}
	}
	allow := "allow: " + inlet
	return []change{
		{"inlet", replaced(t, "routes: "+both, "routes: "+reversed), nil},
		{"inlet", replaced(t, "services:", "services: ]"), []string{"inlet.yaml:4:"}},
		{"outlet", replaced(t, "relays: "+both, "relays: "+second), nil},
		{"outlet", replaced(t, "services:", "servces:"), []string{"outlet.yaml:5:1", "servces"}},
		{"relay1", replaced(t, "connect: "+inlet, `connect: 'peer.id == "`+w.id("inlet")+`"'`), nil},
		{"relay1", replaced(t, "connect: "+inlet, "connect: peer.name == 1"), []string{"relay1.yaml:6:", "connect"}},
		{"inlet", replaced(t, "routes: "+both, "routes: "+second), nil},
		{"inlet", replaced(t, w.at("inlet", "load"), taken.Addr().String()), []string{"inlet.yaml:5:", "address already in use"}},
		{"outlet", services(func(text string) string {
			return text + fmt.Sprintf("  - name: more\n    target: tcp://%s\n    %s\n", taken.Addr(), allow)
		}), nil},
		{"inlet", services(more), nil},
		{"inlet", replaced(t, "    outlet: "+w.id("outlet")+"\n", ""), []string{"inlet.yaml:5:", "outlet"}},
		{"relay2", func(text string) string { return text + "log_level: warn\n" }, nil},
		{"outlet", func(text string) string { return text + "authorities: [nobody]\n" }, []string{"outlet.yaml:10:", "authorities"}},
		{"inlet", services(func(text string) string {
			return more(replaced(t, "routes: "+both, "routes: "+first)(text))
		}), nil},
		{"outlet", replaced(t, allow, `allow: 'peer.id == "`+w.id("inlet")+`"'`), nil},
		{"inlet", unchanged, nil},
		{"relay2", replaced(t, "extend: []", "extend: [nowhere]"), []string{"relay2.yaml:7:", "extend"}},
		{"outlet", replaced(t, "relays: "+both, "relays: "+first), nil},
		{"inlet", replaced(t, "routes: "+both, "routes: "+reversed), nil},
		{"relay2", unchanged, nil},
		{"outlet", unchanged, nil},
		{"relay1", unchanged, nil},
		{"inlet", unchanged, nil},
	}
}

// A usage is what a program takes of its machine.
type usage struct{ goroutines, resident float64 }

func (n *node) usage() usage {
	n.w.t.Helper()
	return usage{n.metric("go_goroutines"), n.metric("process_resident_memory_bytes")}
}

// wantUsage waits until the program takes about what it took before: some goroutines
// more, since channels have come by other ways, and memory that the runtime has not
// given back yet.
func (n *node) wantUsage(before usage) {
	n.w.t.Helper()
	const goroutines, memory = 8, 64 << 20
	var now usage
	if !eventually(patience, func() bool {
		now = n.usage()
		return now.goroutines <= before.goroutines+goroutines && now.resident <= before.resident+memory
	}) {
		n.w.t.Errorf("%s: %v goroutines and %v MiB, before %v and %v", n.name, now.goroutines, int(now.resident)>>20, before.goroutines, int(before.resident)>>20)
	}
}
