package node

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A wordless error panics where there is none.
type wordless struct{ text string }

func (w *wordless) Error() string { return w.text }

// TestPanicInAsking: who makes a func panic that says who may, as one that looks at the peer
// where there is none, is refused, and does not end the program; its owner is told.
func TestPanicInAsking(t *testing.T) {
	var (
		mu    sync.Mutex
		where []Address
		stack string
	)
	trace := &Trace{Panicked: func(at Address, _ any, s []byte) {
		mu.Lock()
		defer mu.Unlock()
		where = append(where, at)
		stack = string(s)
	}}
	careless := func(from Origin) error {
		if from.Peer.Identifier.IsZero() {
			return errors.New("nobody")
		}
		return nil
	}
	local, id := newLocal(t)
	b, addr := listening(t, Config{Local: local, Trace: trace, Transit: func(from Origin, _ Address) error { return careless(from) }})
	for at, w := range map[Address]Worker{"worker": echo, "echo": echo} {
		allow := careless
		if at == "echo" {
			allow = Anyone
		}
		start(t, b, at, w, Options{Allow: allow})
	}
	if err := b.StartHop("hop", Hop{Allow: careless}); err != nil {
		t.Fatal(err)
	}
	register := func(from Origin, name Address) error {
		if name == "mallory" {
			return careless(from)
		}
		return nil
	}
	if err := b.StartRelay("relay", Relay{Register: register, Allow: careless}); err != nil {
		t.Fatal(err)
	}
	if err := b.ServeChannels("channels", func(channel.Peer) error { panic("nobody knows") }); err != nil {
		t.Fatal(err)
	}
	start(t, b, "no-word", echo, Options{Allow: func(Origin) error {
		var none *wordless
		return none
	}})
	aLocal, _ := newLocal(t)
	a := newNode(t, Config{Local: aLocal})
	if _, err := a.Register(inTime(t), Route{addr, "relay"}, "alice"); err != nil {
		t.Fatal(err)
	}
	request := func(r Route) func() error {
		return func() error { _, err := a.Request(inTime(t), r, []byte("x")); return err }
	}
	for _, c := range []struct {
		name string
		do   func() error
		code code.Code
		at   Address
	}{
		{"a worker's Allow", request(Route{addr, "worker"}), code.WorkerDenied, "worker"},
		{"the error of a worker's Allow", request(Route{addr, "no-word"}), code.WorkerDenied, "no-word"},
		{"a hop's Allow", request(Route{addr, "hop", "echo"}), code.WorkerDenied, "hop"},
		{"a relay's Allow", request(Route{addr, "alice", "echo"}), code.WorkerDenied, "alice"},
		{"Transit", request(Route{addr, "tcp://127.0.0.1:1", "echo"}), code.WorkerDenied, ""},
		{"Register", func() error { _, err := a.Register(inTime(t), Route{addr, "relay"}, "mallory"); return err }, code.RegisterDenied, "relay"},
		{"ServeChannels", func() error { _, err := a.OpenChannel(inTime(t), Route{addr, "channels"}, id); return err }, code.ChannelDenied, "channels"},
	} {
		mu.Lock()
		where = nil
		mu.Unlock()
		err := c.do()
		var de *DeliveryError
		var refused *channel.RefusedError
		switch {
		case errors.As(err, &de) && de.Code == c.code && strings.Contains(de.Reason, errPanicked.Error()):
		case errors.As(err, &refused) && refused.Code == c.code && strings.Contains(refused.Reason, errPanicked.Error()):
		default:
			t.Errorf("%s: got %v, want %s: %v", c.name, err, c.code, errPanicked)
		}
		mu.Lock()
		if !slices.Equal(where, []Address{c.at}) || !strings.Contains(stack, "ask_test.go") {
			t.Errorf("%s: told of panics at %q, want %q; the last one's stack:\n%s", c.name, where, c.at, stack)
		}
		mu.Unlock()
		wantEcho(t, a, Route{addr, "echo"}, "behind it")
	}
}

// TestPanicInAttributes: where a peer's attributes cannot be said, there is no channel, at
// either end.
func TestPanicInAttributes(t *testing.T) {
	attributes := func(channel.Peer) (map[string]string, error) { panic("no credential") }
	for _, c := range []struct {
		opens, serves func(channel.Peer) (map[string]string, error)
	}{{opens: attributes}, {serves: attributes}} {
		bLocal, id := newLocal(t)
		b, addr := listening(t, Config{Local: bLocal, Attributes: c.serves})
		if err := b.ServeChannels("channels", func(channel.Peer) error { return nil }); err != nil {
			t.Fatal(err)
		}
		aLocal, _ := newLocal(t)
		a := newNode(t, Config{Local: aLocal, Attributes: c.opens})
		if _, err := a.OpenChannel(inTime(t), Route{addr, "channels"}, id); err == nil || !strings.Contains(err.Error(), errPanicked.Error()) {
			t.Errorf("got %v, want %v", err, errPanicked)
		}
	}
}
