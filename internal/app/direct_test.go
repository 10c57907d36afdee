package app

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A wire carries TCP connections to an address, until they are cut.
type wire struct {
	ln net.Listener
	to string

	mu   sync.Mutex
	ends map[net.Conn]bool
	down bool
}

func newWire(t *testing.T, to net.Addr) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{ln: ln, to: to.String(), ends: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { w.carry(a) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		w.setDown(true)
		wg.Wait()
	})
	return w
}

func (w *wire) carry(a net.Conn) {
	defer sock.ResetClose(a)
	b, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer sock.ResetClose(b)
	w.mu.Lock()
	down := w.down
	w.ends[a], w.ends[b] = true, true
	w.mu.Unlock()
	if down {
		return
	}
	var wg sync.WaitGroup
	for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(p[0], p[1])
			_ = p[0].(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
	w.mu.Lock()
	delete(w.ends, a)
	delete(w.ends, b)
	w.mu.Unlock()
}

// cut resets what there is, and goes on.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for nc := range w.ends {
		_ = sock.ResetClose(nc)
	}
	clear(w.ends)
}

// setDown cuts what there is and what comes.
func (w *wire) setDown(down bool) {
	w.mu.Lock()
	w.down = down
	w.mu.Unlock()
	w.cut()
}

// A direct system is an outlet that listens, a wire to it, and an inlet.
func startDirect(t *testing.T, outlet func(*config.Outlet), inlet func(*config.Inlet)) (sys *system, w *wire) {
	t.Helper()
	sys = &system{}
	outletKey, outletID := newIdentity(t)
	inletKey, inletID := newIdentity(t)
	oc := config.Outlet{
		Common: config.Common{Identity: outletKey, DrainTimeout: time.Second}, Listen: []config.Address{local(0)},
		Services: []config.OutletService{{Name: "echo", Target: serveTCP(t, echo), Allow: policy.List(inletID)}},
	}
	if outlet != nil {
		outlet(&oc)
	}
	sys.outlet, sys.outletLog, sys.stopOutlet = startOutlet(t, oc)
	w = newWire(t, sys.outlet.Addrs()[0])
	ic := config.Inlet{
		Common:         config.Common{Identity: inletKey, DrainTimeout: time.Second},
		Services:       []config.InletService{{Listen: local(0), Service: "echo", Outlet: outletID, Routes: []route.Route{routeTo(w.ln.Addr(), outletID)}}},
		ConnectTimeout: patience,
	}
	if inlet != nil {
		inlet(&ic)
	}
	sys.inlet, sys.inletLog, sys.stopInlet = startInlet(t, ic)
	return sys, w
}

// An outlet that drains is still found by the channels that it has, when their
// paths end; it opens no new ones.
func TestDrainingOutletIsResumedDirectly(t *testing.T) {
	t.Parallel()
	sys, w := startDirect(t, func(c *config.Outlet) { c.DrainTimeout = patience }, nil)
	nc := dialTCP(t, sys.inlet.Addrs()[0])
	wantEcho(t, nc, "hello")
	done := startStop(sys.stopOutlet)
	eventually(t, "the inlet knows", func() bool {
		return len(sys.inletLog.lines(t, map[string]string{"msg": "outlet is draining, opening another channel"})) == 1
	})
	for range 3 {
		w.cut()
		wantEcho(t, nc, "still here")
	}
	eventually(t, "the inlet is told why there is no other channel", func() bool {
		return len(sys.inletLog.lines(t, map[string]string{"msg": "cannot reach the outlet, trying on", "code": "draining"})) > 0
	})
	_ = nc.CloseWrite()
	if _, err := io.ReadAll(nc); err != nil {
		t.Errorf("the stream ends with %v, want a clean end", err)
	}
	<-done
	if _, err := net.Dial("tcp", sys.outlet.Addrs()[0].String()); err == nil {
		t.Error("the outlet still listens")
	}
}

// After many outages, each long enough for another channel, nothing is left of
// them but the channels that carry streams.
func TestManyOutagesLeaveNothing(t *testing.T) {
	t.Parallel()
	// What is cut while it is opened is nobody's, which the outlet cannot know.
	const grace = 20 * time.Second
	sys, w := startDirect(t, func(c *config.Outlet) { c.Grace = grace }, nil)
	nc := dialTCP(t, sys.inlet.Addrs()[0])
	wantEcho(t, nc, "hello")
	times := 4
	if testing.Short() {
		times = 1
	}
	for range times {
		w.setDown(true)
		waiting := dialTCP(t, sys.inlet.Addrs()[0])
		time.Sleep(pathPatience + 100*time.Millisecond) // the outage
		w.setDown(false)
		wantEcho(t, waiting, "here again")
		wantEcho(t, nc, "still here")
		_ = waiting.Close()
	}
	for range 20 {
		w.cut()
		wantEcho(t, nc, "still here")
	}
	within(t, grace+patience, "two channels at most", func() bool {
		st := sys.inlet.Status().Channels[0]
		return len(st.Finishing) <= 1 && sys.outlet.channels.count() <= 2 && sys.outlet.table.Detached() == 0
	})
	st := sys.inlet.Status().Channels[0]
	t.Logf("%d finishing channels, %v path changes, %v bytes again", len(st.Finishing),
		metric(t, sys.inlet.obs, "culvert_channel_path_changes_total", "lost"), metric(t, sys.inlet.obs, "culvert_channel_resent_bytes_total"))
	_ = nc.Close()
	eventually(t, "one channel", func() bool { return sys.outlet.channels.count() == 1 && sys.inlet.countChannels() == 1 })
	eventually(t, "no streams", func() bool { return sys.inlet.countStreams() == 0 && sys.outlet.countStreams() == 0 })
}
