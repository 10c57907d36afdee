package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// A mesh is some nodes, each of which reaches each other one in every way that there is:
// by its transport's address, by a channel, and, where the one is the relay, by a name.
// Each has hops, a probe that answers with the return route that it sees, and a worker
// that forwards.
type mesh struct {
	nodes    []*Node
	addrs    []Address
	channels [][]Address // from, to; "" to itself
	names    []Address   // at the first node's relay; "" of itself
}

var meshHops = []Address{"h0", "h1", "h2"}

const forwards = "forwards"

func newMesh(t *testing.T, size int, trace *Trace) *mesh {
	t.Helper()
	x := &mesh{channels: make([][]Address, size), names: make([]Address, size)}
	for range size {
		local, _ := newLocal(t)
		n, a := listening(t, Config{Local: local, Trace: trace, Transit: func(Origin, Address) error { return nil }})
		x.nodes, x.addrs = append(x.nodes, n), append(x.addrs, a)
		start(t, n, "probe", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
			return self.Reply(ctx, m, []byte(m.Return.String()))
		}), Options{Allow: Anyone})
		start(t, n, forwards, WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
			return self.Forward(ctx, m)
		}), Options{Allow: Anyone})
		if err := n.ServeChannels("channels", func(channel.Peer) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.nodes[0].StartRelay("relay", Relay{Allow: Anyone}); err != nil {
		t.Fatal(err)
	}
	for i, n := range x.nodes {
		x.channels[i] = make([]Address, size)
		for j, o := range x.nodes {
			if i == j {
				continue
			}
			c, err := n.OpenChannel(inTime(t), Route{x.addrs[j], "channels"}, o.Local().Identifier())
			if err != nil {
				t.Fatal(err)
			}
			x.channels[i][j] = c.Address()
		}
		to := slices.DeleteFunc(append(slices.Clone(x.addrs), x.channels[i]...), func(a Address) bool { return a == "" })
		for _, h := range meshHops {
			if err := n.StartHop(h, Hop{Allow: Anyone, To: to}); err != nil {
				t.Fatal(err)
			}
		}
		if i > 0 {
			x.names[i] = Address(n.Local().Identifier().String())
			if _, err := n.Register(inTime(t), Route{x.channels[i][0], "relay"}, x.names[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return x
}

// walk draws a way from the node at that the walk begins at to a probe. mirror says what
// stands on the return route there, the last place first, as far as that can be known:
// names of hops, and the prefixes of nodes' own addresses.
func (x *mesh) walk(t *rapid.T, at int) (onward Route, mirror []string) {
	for range rapid.IntRange(0, 4).Draw(t, "conns") {
		onward, mirror = x.stroll(t, onward, mirror)
		others := make([]int, 0, len(x.nodes))
		for i := range x.nodes {
			if i != at {
				others = append(others, i)
			}
		}
		to := rapid.SampledFrom(others).Draw(t, "to")
		ways := []string{"transport", "channel"}
		if at == 0 {
			ways = append(ways, "name")
		}
		switch rapid.SampledFrom(ways).Draw(t, "way") {
		case "transport":
			onward, mirror = append(onward, x.addrs[to]), append(mirror, own+"conn-")
		case "channel":
			// It is the node's, and others get there by a hop that names it.
			onward, mirror = append(onward, "h1", x.channels[at][to]), append(mirror, "h1", own+"channel-")
		case "name": // by the channel that the node has registered by
			// What the node registers is not to go on to a third one: its hop is.
			onward, mirror = append(onward, x.names[to], "h2"), append(mirror, own+"channel-", own+"registered-", "h2")
		}
		at = to
	}
	onward, mirror = x.stroll(t, onward, mirror)
	slices.Reverse(mirror)
	return append(onward, "probe"), mirror
}

// tooLong reports whether onward is, or becomes so where a name stands for more.
func (x *mesh) tooLong(onward Route) bool {
	for i, a := range onward {
		if slices.Contains(x.names, a) && len(onward)-i+1 > MaxRoute {
			return true
		}
	}
	return len(onward) > MaxRoute
}

// stroll passes some places of one node.
func (x *mesh) stroll(t *rapid.T, onward Route, mirror []string) (Route, []string) {
	for _, h := range rapid.SliceOfN(rapid.SampledFrom(append(slices.Clone(meshHops), forwards)), 0, 3).Draw(t, "hops") {
		onward, mirror = append(onward, h), append(mirror, string(h))
	}
	return onward, mirror
}

// TestMirror: along whatever hops, workers, transports, channels and names a request
// goes, the return route is the mirror of its way: the answer comes, and its own return
// route leads the same way again.
func TestMirror(t *testing.T) {
	x := newMesh(t, 4, nil)
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(x.nodes)-1).Draw(t, "from")
		n := x.nodes[at]
		onward, mirror := x.walk(t, at)
		mirror = append(mirror, own+"requests-")
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		m, err := n.Request(ctx, onward, nil)
		if x.tooLong(onward) || len(mirror) > MaxRoute {
			var de *DeliveryError
			if !errors.As(err, &de) || de.Code != code.TooManyHops && de.Code != code.Protocol {
				t.Fatalf("over %s: %v, %v", onward, m, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("over %s: %v", onward, err)
		}
		seen := strings.Split(string(m.Body), ",")
		if !slices.EqualFunc(seen, mirror, strings.HasPrefix) {
			t.Fatalf("over %s the return route is %s, want %s", onward, m.Body, mirror)
		}
		if len(m.Return) > MaxRoute {
			t.Fatalf("over %s the answer has come by %s", onward, m.Return)
		}
		again, err := n.Request(ctx, m.Return, nil)
		if err != nil {
			t.Fatalf("over %s, from %s: %v", m.Return, onward, err)
		}
		if string(again.Body) != string(m.Body) {
			t.Fatalf("over %s the return route is %s, and by its mirror %s it is %s", onward, m.Body, m.Return, again.Body)
		}
	})
}

// TestNoMessageLoops: whatever workers and names send in circles, over however many nodes,
// comes to an end, after as many hops as there may be at most.
func TestNoMessageLoops(t *testing.T) {
	lost := make(chan *DeliveryError, 100)
	x := newMesh(t, 3, &Trace{Lost: func(err *DeliveryError) { lost <- err }})
	var mu sync.Mutex
	var table map[string]Route // where the workers forward to
	passes := 0
	for i, n := range x.nodes {
		for j := range 3 {
			name := fmt.Sprint("loop", j)
			start(t, n, Address(name), WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
				mu.Lock()
				passes++
				to := table[fmt.Sprint(i, name)]
				mu.Unlock()
				m.Onward = nil // as it may: else the route grows
				return self.ForwardTo(ctx, m, to)
			}), Options{Allow: Anyone})
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		drawn := map[string]Route{}
		for i := range x.nodes {
			for j := range 3 {
				to := rapid.IntRange(0, len(x.nodes)-1).Draw(t, "to")
				var r Route
				r, _ = x.stroll(t, r, nil)
				if to != i {
					r = append(r, x.way(t, i, to)...)
				}
				drawn[fmt.Sprint(i, fmt.Sprint("loop", j))] = append(r, Address(fmt.Sprint("loop", rapid.IntRange(0, 2).Draw(t, "next"))))
			}
		}
		mu.Lock()
		table, passes = drawn, 0
		mu.Unlock()
		at := rapid.IntRange(0, len(x.nodes)-1).Draw(t, "from")
		if err := x.nodes[at].Send(context.Background(), Route{"loop0"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-lost; err.Code != code.TooManyHops {
			t.Fatalf("the message has ended as %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if passes > maxHops+1 || passes == 0 {
			t.Fatalf("the message has passed workers %d times", passes)
		}
	})
}

// way draws a way from one node to another one.
func (x *mesh) way(t *rapid.T, at, to int) Route {
	ways := []Route{{x.addrs[to]}, {"h1", x.channels[at][to]}}
	if x.names[to] != "" && at == 0 {
		ways = append(ways, Route{x.names[to]})
	}
	return rapid.SampledFrom(ways).Draw(t, "way")
}
