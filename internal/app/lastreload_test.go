package app

import (
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
)

// The last reading of the settings file is shown, and since when what holds does: a
// file that cannot be taken changes the one and not the other.
func TestLastReload(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	o := f.outlet.obs
	success := func() float64 { return metric(t, o, "culvert_config_last_reload_success") }
	at := func() float64 { return metric(t, o, "culvert_config_last_reload_success_timestamp_seconds") }
	started := at()
	if success() != 1 || started == 0 {
		t.Errorf("after the start: success %v at %v, want 1 at the start", success(), started)
	}
	f.outletFile.write(strings.Replace(f.outletFile.text, "services:", "servces:", 1))
	eventually(t, "the bad file is seen", func() bool { return success() == 0 })
	if at() != started {
		t.Errorf("what holds is from %v, want %v as before", at(), started)
	}
	f.outletFile.change("log_level: debug", "log_level: info")
	eventually(t, "the good file is seen", func() bool { return success() == 1 && at() > started })
}

// What is known of the channels together: how far the peer of the slowest is, how old
// the oldest keys are, and how many wait for a path, for how long.
func TestChannelGauges(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{inlet: func(c *config.Inlet) { c.Keepalive = time.Second }}) // so that there are PINGs soon
	wantEcho(t, sys.dial(t), "hello")
	for command, o := range map[string]*base{"inlet": sys.inlet.base, "outlet": sys.outlet.base} {
		eventually(t, command+" has a ping and the age of its keys", func() bool {
			ping, keys := metric(t, o.obs, "culvert_channel_slowest_ping_seconds"), metric(t, o.obs, "culvert_channel_oldest_keys_seconds")
			return ping > 0 && ping < patience.Seconds() && keys > 0 && keys < patience.Seconds() &&
				metric(t, o.obs, "culvert_"+command+"_channels_detached") == 0 && metric(t, o.obs, "culvert_"+command+"_channels_detached_seconds") == 0
		})
	}
	sys.stopRelay() // and no other
	for command, o := range map[string]*base{"inlet": sys.inlet.base, "outlet": sys.outlet.base} {
		eventually(t, command+" has a channel without a path", func() bool {
			waited := metric(t, o.obs, "culvert_"+command+"_channels_detached_seconds")
			return metric(t, o.obs, "culvert_"+command+"_channels_detached") == 1 && waited > 0 && waited < patience.Seconds()
		})
	}
}

// From the moment on that a process is to stop it says that it drains, and is not ready
// for that reason.
func TestDrainingIsShown(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{
		outlet: func(c *config.Outlet) { c.DrainTimeout = patience }, inlet: func(c *config.Inlet) { c.DrainTimeout = patience },
	})
	nc := sys.dial(t)
	wantEcho(t, nc, "hello")
	for _, p := range []struct {
		command string
		*base
		stop func()
	}{{"inlet", sys.inlet.base, sys.stopInlet}, {"outlet", sys.outlet.base, sys.stopOutlet}} {
		draining := func() float64 { return metric(t, p.obs, "culvert_"+p.command+"_draining") }
		if draining() != 0 {
			t.Errorf("%s: draining before its end", p.command)
		}
		stopped := startStop(p.stop)
		eventually(t, p.command+" drains", func() bool { return draining() == 1 && metric(t, p.obs, "culvert_"+p.command+"_ready") == 0 })
		_ = nc.Close() // the last stream
		<-stopped
	}
}
