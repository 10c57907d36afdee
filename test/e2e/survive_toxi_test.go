//go:build e2e && linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/rs/zerolog"
)

// toxics are what toxiproxy does to a leg, one after the other. Those that end
// connections do so again and again, but for reset_peer, which lets none live.
var toxics = []struct {
	kind       string
	attributes map[string]int
}{
	{"latency", map[string]int{"latency": 150, "jitter": 100}},                          // ms
	{"reset_peer", map[string]int{"timeout": 100}},                                      // ms
	{"timeout", map[string]int{"timeout": 300}},                                         // ms, nothing before
	{"slicer", map[string]int{"average_size": 200, "size_variation": 150, "delay": 50}}, // bytes, µs
	{"limit_data", map[string]int{"bytes": 200_000}},                                    // for each connection
	{"bandwidth", map[string]int{"rate": 1000}},                                         // kB/s
}

// TestSurviveToxics has toxiproxy on one leg do to one direction of it all that
// it can, one after the other. In the short form all legs and directions run at
// once.
func TestSurviveToxics(t *testing.T) {
	t.Parallel()
	var cases []toxiCase
	for _, l := range []leg{inletLeg, outletLeg} {
		cases = append(cases, toxiCase{l, "to-outlet"}, toxiCase{l, "to-inlet"})
	}
	if !*long {
		t.Run("all", func(t *testing.T) { testToxics(t, cases) })
		return
	}
	for _, c := range cases {
		t.Run(c.name(), func(t *testing.T) { testToxics(t, []toxiCase{c}) })
	}
}

// A toxiCase is one direction of one leg.
type toxiCase struct {
	leg leg
	dir string
}

func (c toxiCase) name() string { return fmt.Sprint(c.leg, "-", c.dir) }

// direction returns toxiproxy's word for it: downstream is towards who has
// connected.
func (c toxiCase) direction() stream.Direction {
	if (c.leg == inletLeg) == (c.dir == "to-outlet") {
		return stream.Upstream
	}
	return stream.Downstream
}

func testToxics(t *testing.T, cases []toxiCase) {
	w := newWorld(t)
	target := loadTarget(t)
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	var names []string
	for _, c := range cases {
		names = append(names, c.name())
	}
	pairRelays(w, 1, names...)
	each := howLong(time.Second, 8*time.Second)
	// A pause without a toxic is between two.
	over := time.Duration(len(toxics)) * each * 3 / 2
	var loads []*load
	proxies := make([]*toxiproxy.Proxy, len(cases))
	for i, c := range cases {
		p := w.pairOver(c.name(), 1, target, func(l leg, relay string) string {
			if l != c.leg {
				return relay
			}
			proxies[i] = toxiproxy.NewProxy(server, c.name(), freeAddr(t), relay)
			if err := proxies[i].Start(); err != nil {
				t.Fatal(err)
			}
			w.after = append(w.after, proxies[i].Stop)
			return proxies[i].Listen
		})
		l := startLoad(t, p.addr, howLong(3, 16), howLong[int64](1<<20, 16<<20), over)
		l.name = c.name()
		l.tick()
		loads = append(loads, l)
	}
	for _, toxic := range toxics {
		for i, c := range cases {
			def, err := json.Marshal(map[string]any{"name": "toxic", "type": toxic.kind, "stream": c.direction().String(), "attributes": toxic.attributes})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := proxies[i].Toxics.AddToxicJson(bytes.NewReader(def)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(each)
		for _, p := range proxies {
			if err := p.Toxics.RemoveToxic(t.Context(), "toxic"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(each / 2)
		var left []int64
		for _, l := range loads {
			left = append(left, l.resets.Load()+l.wrong.Load())
		}
		t.Logf("after %s: streams that have failed, by case: %v", toxic.kind, left)
	}
	for i, l := range loads {
		lost := w.node("inlet-" + cases[i].name()).metric("culvert_channel_path_losses_total")
		l.wait(func() int { return int(lost) })
	}
}
