package ping

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
)

// The stream that a ping opens ends as streams do, whatever the target does: to the
// outlet it is never one that was lost with its channel.
func TestOpenedServiceIsLeftCleanly(t *testing.T) {
	gone := make(chan struct{})
	targets := map[string]func(net.Conn){
		"echo": func(nc net.Conn) { _, _ = io.Copy(nc, nc) },
		"greets": func(nc net.Conn) { // as MariaDB does
			_, _ = io.WriteString(nc, strings.Repeat("hello ", 1000))
			_, _ = io.Copy(io.Discard, nc)
		},
		"half": func(nc net.Conn) { // says its end first, and waits for the client's
			_ = nc.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, nc)
		},
		"deaf": func(net.Conn) { <-gone }, // goes on when its client has ended
	}
	want := map[string]string{"echo": "ok", "greets": "ok", "half": "ok", "deaf": "aborted"}
	w := newWorld(t)
	a, _ := w.relay("a", "127.0.0.1:0", "")
	settings := "identity: outlet.key\ndrain_timeout: 1ms\nrelays: ['" + w.hop(a, "a") + "']\nservices:\n"
	for name, handle := range targets {
		settings += "  - {name: " + name + ", target: 'tcp://" + serve(t, handle) + "', allow: ['<inlet>']}\n"
	}
	t.Cleanup(func() { close(gone) }) // before the targets are waited for
	w.id("outlet")
	cfg, err := config.LoadOutlet(w.file("outlet", settings))
	if err != nil {
		t.Fatal(err)
	}
	o := w.obs("outlet")
	out, err := app.NewOutlet(cfg, o)
	w.run(out, err)
	w.registered(out, 1)
	for name := range targets {
		t.Run(name, func(t *testing.T) {
			in := w.inlet(name, w.hop(a, "a"))
			in.Keepalive = patience // nothing is lost, however slow the machine is
			r, text := w.pingWith(t.Context(), Config{Inlet: in, Count: 1, Open: true}, func(p *Pinger) {
				p.targetEnds, p.outletHears = patience, patience
				if want[name] == "aborted" {
					p.targetEnds = 10 * time.Millisecond // it does not, whenever
				}
			})
			if !r.Works {
				t.Fatalf("the ping does not work:\n%s", text)
			}
			w.eventually("the ping's channel is gone", func() bool { return len(out.Status().Channels) == 0 })
			if got := endings(t, o, name); got[want[name]] != 1 || len(got) > 2 || got["ok"]+got["aborted"] != 1 {
				t.Errorf("the outlet counts the stream under %v, want one that is %s", got, want[name])
			}
			if lost := endings(t, o, "")["lost"]; lost != 0 {
				t.Errorf("the outlet counts %v channels as lost", lost)
			}
		})
	}
}

// endings returns how an outlet's streams to a service have ended, by code; for the service
// "" how many channels were lost, as lost.
func endings(t *testing.T, o *obs.Obs, service string) map[string]float64 {
	t.Helper()
	families, err := o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch {
			case f.GetName() == "culvert_outlet_streams_total" && service != "" && labels["service"] == service:
				all[labels["code"]] += m.GetCounter().GetValue()
			case f.GetName() == "culvert_outlet_channels_lost_total" && service == "":
				all["lost"] += m.GetCounter().GetValue()
			}
		}
	}
	return all
}
