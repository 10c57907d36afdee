package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
)

// One connection more than there may be is refused at once, whoever has the limit, and
// its place is there again when one has ended.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	limits := config.ServiceLimits{Connections: 2}
	for name, s := range map[string]setup{
		"inlet":  {inlet: func(c *config.Inlet) { c.Services[0].Limits = limits }},
		"outlet": {outlet: func(c *config.Outlet) { c.Services[0].Limits = limits }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys := startSystem(t, s)
			var open []*net.TCPConn
			for range limits.Connections {
				nc := sys.dial(t)
				wantEcho(t, nc, "hello")
				open = append(open, nc)
			}
			for range 3 {
				wantRefused(t, sys.inlet.Addrs()[0])
			}
			eventually(t, "the refusals are counted", func() bool {
				return metric(t, sys.inlet.obs, "culvert_inlet_streams_total", "echo", "limit") == 3
			})
			if line := waitLine(t, sys.inletLog, map[string]string{"msg": "stream refused", "code": "limit"}); !strings.Contains(line["reason"].(string), "limits.connections") {
				t.Errorf("the log does not say which limit it is: %v", line)
			}
			_ = open[0].CloseWrite()
			if _, err := io.ReadAll(open[0]); err != nil {
				t.Fatal(err)
			}
			eventually(t, "there is a place again", func() bool { return sys.inlet.countStreams() == 1 && sys.outlet.countStreams() == 1 })
			wantEcho(t, sys.dial(t), "hello")
			wantEcho(t, open[1], "still here")
		})
	}
}

// A connection that moves nothing is reset at both ends, whoever has the limit.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	limits := config.ServiceLimits{IdleTimeout: 20 * time.Millisecond}
	for name, bounds := range map[string]func(*system) *serviceLimits{
		"inlet":  func(sys *system) *serviceLimits { services, _ := sys.inlet.offered(); return services[0].bounds },
		"outlet": func(sys *system) *serviceLimits { return sys.outlet.offered.Load().services[0].bounds },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, address := startSleeper(t)
			sys := startSystem(t, setup{target: address})
			nc := sys.dial(t)
			<-target.accepted
			eventually(t, "the stream is carried", func() bool {
				list := sys.outlet.channels.list()
				return len(list) == 1 && len(list[0].carried()) == 1
			})
			bounds(sys).set(limits)
			wantReset(t, nc)
			target.wantReset(t)
			wantEnds(t, sys, "idle_timeout")
		})
	}
}

// A connection of which one end has sent all that the other may hold for now is not
// idle while that hands it on, however little at a time; whoever has the idle time.
func TestIdleTimeoutOfTheOtherEnd(t *testing.T) {
	t.Parallel()
	slow := config.ServiceLimits{BytesPerSecond: 32 << 10}
	for name, tt := range map[string]struct {
		target func(nc *net.TCPConn)
		client func(nc *net.TCPConn) error
		s      func(quiet config.ServiceLimits) setup
	}{
		"inlet": {
			func(nc *net.TCPConn) { _, _ = io.Copy(io.Discard, nc) },
			cram,
			func(quiet config.ServiceLimits) setup {
				return setup{
					inlet:  func(c *config.Inlet) { c.Services[0].Limits = quiet },
					outlet: func(c *config.Outlet) { c.Services[0].Limits = slow },
				}
			},
		},
		"outlet": {
			func(nc *net.TCPConn) {
				b := make([]byte, 64<<10)
				for {
					if _, err := nc.Write(b); err != nil {
						return
					}
				}
			},
			func(nc *net.TCPConn) error { go func() { _, _ = io.Copy(io.Discard, nc) }(); return nil },
			func(quiet config.ServiceLimits) setup {
				return setup{
					inlet:  func(c *config.Inlet) { c.Services[0].Limits = slow },
					outlet: func(c *config.Outlet) { c.Services[0].Limits = quiet },
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantNotIdle(t, func(quiet config.ServiceLimits) (*system, error) {
				s := tt.s(quiet)
				s.target = serveTCP(t, tt.target)
				sys := startSystem(t, s)
				nc := sys.dial(t)
				_ = nc.SetDeadline(time.Time{})
				return sys, tt.client(nc)
			})
		})
	}
}

// A connection whose program takes its time with what the kernel holds for it is not
// idle, at either end: a socket has room again only once a third of its buffer is free.
func TestIdleTimeoutOfASlowProgram(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell what is acknowledged")
	}
	wantNotIdle(t, func(quiet config.ServiceLimits) (*system, error) {
		sys := startSystem(t, setup{
			target: serveTCP(t, func(nc *net.TCPConn) {
				_ = nc.SetReadBuffer(16 << 10) // so that it acknowledges bit by bit
				for b := make([]byte, 2<<10); ; time.Sleep(20 * time.Millisecond) {
					if _, err := nc.Read(b); err != nil {
						return
					}
				}
			}),
			inlet:  func(c *config.Inlet) { c.Services[0].Limits = quiet },
			outlet: func(c *config.Outlet) { c.Services[0].Limits = quiet },
		})
		return sys, cram(sys.dial(t))
	})
}

// wantNotIdle wants the one stream of a system, which begin starts with an idle time-out,
// to be carried at both ends for several times as long: for longer ones where the machine
// has kept the process from moving its bytes.
func wantNotIdle(t *testing.T, begin func(quiet config.ServiceLimits) (*system, error)) {
	t.Helper()
	for idle := time.Second; ; idle *= 4 {
		watch := testenv.Start(t)
		sys, err := begin(config.ServiceLimits{IdleTimeout: idle})
		var since time.Time // when it was first carried
		for began := time.Now(); err == nil && (since.IsZero() || time.Since(since) < 4*idle); time.Sleep(idle / 25) {
			switch carried := sys.inlet.countStreams() == 1 && sys.outlet.countStreams() == 1; {
			case carried && since.IsZero():
				since = time.Now()
			case !carried && !since.IsZero():
				err = fmt.Errorf("the stream has ended after %v, while bytes moved", time.Since(since))
			case !carried && time.Since(began) > patience:
				err = errors.New("no stream is carried")
			}
		}
		sys.stopInlet()
		if err == nil {
			return
		}
		if lost := watch.Lost(); lost < idle/4 || idle > 10*time.Second {
			t.Fatalf("with an idle time-out of %s, on a machine that has lost %s: %v", idle, lost, err)
		}
	}
}

// A connection that has ended well is handed on to its end, at its rate, though the
// outlet has gone away meanwhile, whose part of it was over.
func TestDrainAtALowRate(t *testing.T) {
	t.Parallel()
	const rate, size = 32 << 10, 96 << 10
	sys := startSystem(t, setup{
		target: serveTCP(t, func(nc *net.TCPConn) {
			_, _ = io.Copy(io.Discard, nc)
			_, _ = nc.Write(make([]byte, size))
		}),
		inlet: func(c *config.Inlet) { c.Services[0].Limits = config.ServiceLimits{BytesPerSecond: rate} },
	})
	nc := sys.dial(t)
	if err := nc.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the outlet's part is over", func() bool {
		return metric(t, sys.outlet.obs, "culvert_outlet_streams_total", "echo", "ok") == 1
	})
	sys.stopOutlet()
	if got, err := io.ReadAll(nc); err != nil || len(got) != size {
		t.Errorf("the client got %d bytes of %d, and then %v", len(got), size, err)
	}
	eventually(t, "it has ended well", func() bool {
		return metric(t, sys.inlet.obs, "culvert_inlet_streams_total", "echo", "ok") == 1
	})
}

// All connections of a service together have its rate.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	const rate, clients, size = 512 << 10, 4, 160 << 10
	endless := func(nc *net.TCPConn) {
		for b := make([]byte, 16<<10); ; {
			if _, err := nc.Write(b); err != nil {
				return
			}
		}
	}
	limits := config.ServiceLimits{BytesPerSecond: rate}
	for name, s := range map[string]setup{
		"inlet":  {target: serveTCP(t, endless), inlet: func(c *config.Inlet) { c.Services[0].Limits = limits }},
		"outlet": {target: serveTCP(t, endless), outlet: func(c *config.Outlet) { c.Services[0].Limits = limits }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys := startSystem(t, s)
			start := time.Now()
			var reading sync.WaitGroup
			for range clients {
				nc := sys.dial(t)
				reading.Go(func() {
					defer nc.Close()
					if _, err := io.CopyN(io.Discard, nc, size); err != nil {
						t.Error(err)
					}
				})
			}
			reading.Wait()
			// Each may be ahead by a chunk, a hundredth of a second's worth.
			least := time.Duration(clients*(size-rate/100)) * time.Second / rate
			if took := time.Since(start); took < least*99/100 {
				t.Errorf("%d bytes took %v at %d a second, want %v", clients*size, took, rate, least)
			}
		})
	}
}

// What waits for its turn is neither lost nor changed.
func TestRateLimitIsExact(t *testing.T) {
	t.Parallel()
	limits := config.ServiceLimits{BytesPerSecond: 4 << 20}
	sys := startSystem(t, setup{
		inlet:  func(c *config.Inlet) { c.Services[0].Limits = limits },
		outlet: func(c *config.Outlet) { c.Services[0].Limits = limits },
	})
	nc := sys.dial(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = nc.Write(data)
		_ = nc.CloseWrite()
	}()
	if got, err := io.ReadAll(nc); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("echo of %d bytes: got %d, %v", len(data), len(got), err)
	}
	eventually(t, "it has ended well", func() bool {
		return metric(t, sys.inlet.obs, "culvert_inlet_streams_total", "echo", "ok") == 1
	})
}

// Connections that are open follow an outlet's new limits.
func TestLimitsReload(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	first, second, other := f.dialService(0), f.dialService(0), f.dialService(1)
	for _, nc := range []net.Conn{first, second, other} {
		wantEcho(t, nc, "hello")
	}
	limits := func(text string) string { return fmt.Sprintf("] # echo\n    limits: {%s}\n", text) }
	f.outletFile.change("] # echo\n", limits("connections: 1"))
	wantRefused(t, f.inlet.Addrs()[0])
	wantEcho(t, second, "still here") // more than may be, and not cut
	f.outletFile.change(limits("connections: 1"), limits("connections: 3"))
	wantEcho(t, f.dialService(0), "one more")

	f.outletFile.change(limits("connections: 3"), limits("bytes_per_second: 1KiB"))
	if n := len(f.outlet.offered.Load().byName["echo"].bounds.live); n == 0 {
		t.Error("the connections that are open are not kept to the limits")
	}
	f.outletFile.change(limits("bytes_per_second: 1KiB"), limits("idle_timeout: 1s"))
	wantReset(t, first)
	wantReset(t, second)
	wantEcho(t, other, "another service's")
	eventually(t, "they have ended for that", func() bool {
		return metric(t, f.outlet.obs, "culvert_outlet_streams_total", "echo", "idle_timeout") >= 2
	})
}
