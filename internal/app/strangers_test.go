package app

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
)

// What strangers can cause does not use up the lines for what an outlet's own
// peers cause, and none of it fills the log.
func TestStrangersDoNotSilenceAnOutlet(t *testing.T) {
	key, _ := newIdentity(t)
	o, log := newObs(t, "outlet")
	out, err := NewOutlet(&config.Outlet{
		Common: config.Common{Identity: key}, Listen: []config.Address{local(0)},
		Services: []config.OutletService{{Name: "echo", Target: local(1), Allow: policy.List(id(1))}},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	at := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	for i := range 2 * quietKinds {
		out.handshakeFailed(at, "", fmt.Errorf("junk %d", i))
	}
	for i := range 2 * quietKinds {
		stranger := identity.Identifier{2, byte(i), byte(i >> 8)}
		out.refused(zapcore.InfoLevel, "path refused", stranger, "", "unknown_channel", "no such channel")
		out.refused(zapcore.WarnLevel, "channel refused", stranger, "", "limit", "too many")
	}
	loud := len(log.lines(t, map[string]string{"level": "info"})) + len(log.lines(t, map[string]string{"level": "warn"}))
	if loud != 2*quietKinds {
		t.Errorf("%d lines about strangers, want %d about failed handshakes and as many about what was refused", loud, quietKinds)
	}
	for _, msg := range []string{"path refused", "channel refused"} {
		for range 3 {
			out.refused(zapcore.WarnLevel, msg, id(1), "", "limit", "too many")
		}
		if n := len(log.lines(t, map[string]string{"msg": msg, "peer": id(1).String(), "level": "warn"})); n != 1 {
			t.Errorf("a peer's %q is told %d times, want once", msg, n)
		}
	}
	c := &channel.Channel{}
	for range 3 {
		out.pathLost(c, -1, errors.New("reset"))
		out.pathMoved(c, channel.Move{Cause: channel.Lost})
	}
	for _, msg := range []string{"path lost, streams wait for another", "path changed"} {
		if n := len(log.lines(t, map[string]string{"msg": msg, "level": "info"})); n > 1 {
			t.Errorf("a stranger's %q is told %d times", msg, n)
		}
	}
}

// Whoever can cut paths, a relay or the network, does not fill the log with that.
func TestPathLinesAreBounded(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{})
	const times = 3 * pathLines
	l, peer := sys.inlet.wanted()[0].(*inletLink), &channel.Channel{}
	for i := range times {
		l.pathLost(peer, 0, errors.New("reset"))
		l.pathMoved(peer, channel.Move{Cause: channel.Lost})
		if i%100 == 0 {
			sys.inlet.obs.FlushLog(t.Context()) // or there would be too many at once
		}
	}
	count := func(level string) int {
		return len(sys.inletLog.lines(t, map[string]string{"msg": "path lost, streams wait for another", "level": level})) +
			len(sys.inletLog.lines(t, map[string]string{"msg": "path changed", "level": level}))
	}
	loud, low := count("info"), count("debug")
	if loud < pathLines || loud > 2*pathLines || loud+low != 2*times {
		t.Errorf("%d lines and %d for those who look closely, want about %d of %d", loud, low, pathLines, 2*times)
	}
	if got := metric(t, sys.inlet.obs, "culvert_channel_path_changes_total", "lost"); got != times {
		t.Errorf("%v changes counted, want %d", got, times)
	}
}

// A stranger who tries again and again is told about once, and counted each
// time.
func TestStrangersStreamsAreToldOnce(t *testing.T) {
	t.Parallel()
	_, other := newIdentity(t)
	sys := startSystem(t, setup{outlet: func(c *config.Outlet) { c.Services[0].Allow = policy.List(other) }})
	const times = 5
	for range times {
		wantRefused(t, sys.inlet.Addrs()[0])
	}
	eventually(t, "all are counted", func() bool {
		return metric(t, sys.outlet.obs, "culvert_outlet_streams_total", "echo", "stream_denied") == times
	})
	eventually(t, "all are told of to those who look closely, one to all", func() bool { // once counted
		loud, low := sys.outletLog.lines(t, map[string]string{"msg": "stream refused", "level": "warn"}), sys.outletLog.lines(t, map[string]string{"msg": "stream refused", "level": "debug"})
		if len(loud) > 1 {
			t.Fatalf("%d warnings, want 1", len(loud))
		}
		return len(loud) == 1 && len(low) == times-1
	})
	// A client is sent away before the inlet writes its line.
	eventually(t, "the inlet has a warning for each: they are its own", func() bool {
		return len(sys.inletLog.lines(t, map[string]string{"msg": "stream refused", "level": "warn"})) == times
	})
}

// synOf is what opens a stream of the mux, and says no more (hashicorp/yamux, spec.md).
func synOf(stream uint32) []byte {
	h := make([]byte, 12)
	h[1] = 1 // window update
	binary.BigEndian.PutUint16(h[2:], 1)
	binary.BigEndian.PutUint32(h[4:], stream)
	return h
}

// A stranger can have few streams wait that do not say what they want.
func TestStrangersHaveFewStreams(t *testing.T) {
	t.Parallel()
	key, _ := newIdentity(t)
	as, err := identity.ReadFile(key)
	must(t, err)
	outletKey, _ := newIdentity(t)
	out, _, _ := startOutlet(t, config.Outlet{
		Common: config.Common{Identity: outletKey, DrainTimeout: time.Millisecond}, Listen: []config.Address{local(0)},
		Services: []config.OutletService{{Name: "echo", Target: local(1), Allow: policy.List(id(1))}},
	})
	var reading sync.WaitGroup
	t.Cleanup(reading.Wait)
	r, err := startReplica(t, out, as)
	must(t, err)
	var refusals atomic.Int64
	reading.Go(func() {
		var all []byte
		b := make([]byte, 4<<10)
		for {
			n, err := r.ch.Read(b)
			all = append(all, b[:n]...)
			refusals.Store(int64(bytes.Count(all, []byte("which is the most"))))
			if err != nil {
				return
			}
		}
	})
	const more = 100
	syns := synOf(1)
	for i := range uint32(maxStrangerStreams + more) {
		syns = append(syns, synOf(3+2*i)...)
	}
	_, err = r.ch.Write(syns)
	must(t, err)
	eventually(t, "the rest is refused", func() bool { return refusals.Load() == more })
	for _, ch := range out.channels.list() {
		eventually(t, "as many wait as may", func() bool { return ch.session.Streams() == maxStrangerStreams })
	}
}

// Who is let in while it has a stranger's channel gets another one, which has no
// stranger's place and bounds, and no client notices.
func TestStrangersThatAreLetInAreNoneAnyMore(t *testing.T) {
	t.Parallel()
	f := startFiled(t)
	f.outletFile.change("["+f.inletID+"]", "["+strangerID(t)+"]")
	stranger := func(want bool) func() bool {
		return func() bool {
			list := f.outlet.channels.list()
			return len(list) == 1 && list[0].listed != want
		}
	}
	eventually(t, "the inlet has a stranger's channel", stranger(true))
	wantRefused(t, f.inlet.Addrs()[0])
	f.outletFile.change("allow: [", "allow: ["+f.inletID+", ")
	nc := f.dialService(0)
	wantEcho(t, nc, "hello")
	eventually(t, "the inlet has a channel of its own", func() bool {
		other := f.dialService(1)
		wantEcho(t, other, "hello")
		_ = other.Close()
		for _, ch := range f.outlet.channels.list() {
			if ch.listed {
				return true
			}
		}
		return false
	})
	wantEcho(t, nc, "still here")
	_ = nc.Close()
	eventually(t, "that is the only one", stranger(false))
	eventually(t, "no stranger's place is taken", func() bool {
		f.outlet.channels.mu.Lock()
		defer f.outlet.channels.mu.Unlock()
		return len(f.outlet.channels.strangers) == 0 && f.outlet.channels.listed == 1
	})
}
