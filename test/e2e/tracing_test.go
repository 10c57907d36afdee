//go:build e2e && linux

package e2e

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/trace/tracetest"
)

// tracingTo are settings that record the share of what begins at a program.
func tracingTo(c *tracetest.Collector, share float64) string {
	return fmt.Sprintf("tracing: {endpoint: '%s', sample: %v, spans_per_second: 1000}\n", c.URL, share)
}

// A tracedWorld is an inlet and an outlet with wiretaps on both sides of a relay.
type tracedWorld struct {
	*world
	nearInlet, nearOutlet *wiretap
}

// newTracedWorld starts one whose service answers "hello" when it has held it for that
// long.
func newTracedWorld(t *testing.T, inlet, outlet string, held time.Duration) *tracedWorld {
	t.Helper()
	w := &tracedWorld{world: newWorld(t)}
	w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}})
	w.nearInlet, w.nearOutlet = tap(t, w.addr("relay")), tap(t, w.addr("relay"))
	target := serveTCP(t, func(nc *net.TCPConn) {
		if _, err := io.ReadFull(nc, make([]byte, 5)); err != nil {
			return
		}
		time.Sleep(held) // which the trace is to show
		_, _ = io.WriteString(nc, "worldly")
		_, _ = io.Copy(io.Discard, nc)
	})
	w.outlet("outlet", outletConfig{Relays: []string{w.hopAt(w.nearOutlet.addr, "relay")}, Services: []service{{"traced", target, []string{"inlet"}}}, Extra: outlet})
	w.inlet("inlet", inletConfig{Services: []local{{"traced", "outlet", []string{w.hopAt(w.nearInlet.addr, "relay")}}}, Extra: inlet})
	return w
}

// ask makes one connection: it asks, waits for the answer, and ends cleanly.
func (w *tracedWorld) ask() error {
	nc, err := net.DialTimeout("tcp", w.at("inlet", "traced"), 5*time.Second)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(nc, "hello"); err != nil {
		return err
	}
	if _, err := io.ReadFull(nc, make([]byte, 7)); err != nil {
		return err
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadAll(nc)
	return err
}

func (w *tracedWorld) mustAsk() {
	w.t.Helper()
	if err := w.ask(); err != nil {
		w.t.Fatalf("asking: %v", err)
	}
}

// TestTrace: one trace shows both programs as docs/tracing.md says, through a relay on
// whose wires its ids are nowhere.
func TestTrace(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	const held = 200 * time.Millisecond
	w := newTracedWorld(t, tracingTo(c, 1), tracingTo(c, 0), held)
	began := time.Now()
	w.mustAsk()
	ended := time.Now()
	var in, out, dial *tracetest.Span
	c.Wait(t, 20*time.Second, "three spans of one trace", func(spans []tracetest.Span) bool {
		for i := range spans {
			switch s := &spans[i]; s.Kind + " " + s.Name {
			case "CLIENT stream traced":
				in = s
			case "SERVER stream traced":
				out = s
			case "CLIENT dial traced":
				dial = s
			}
		}
		return len(spans) == 3 && in != nil && out != nil && dial != nil
	})
	if in.Parent != "" || out.Parent != in.SpanID || dial.Parent != out.SpanID || out.TraceID != in.TraceID || dial.TraceID != in.TraceID {
		t.Errorf("no tree: inlet %+v\noutlet %+v\ndial %+v", in, out, dial)
	}
	for _, s := range []*tracetest.Span{in, out} {
		first, ok := s.Has("first byte")
		if waited := first.Sub(s.Start); !ok || waited < held || s.End.Before(first) || s.Start.Before(began) {
			t.Errorf("%s: from %v to %v, first byte %v: want it %v after the start, between %v and %v", s.Kind, s.Start, s.End, first, held, began, ended)
		}
		for name, want := range map[string]any{
			"culvert.code": "ok", "culvert.bytes.to_service": int64(5), "culvert.bytes.to_client": int64(7), "culvert.service": "traced",
			"culvert.channel": in.Attrs["culvert.channel"], "culvert.stream": in.Attrs["culvert.stream"], "client.address": nil,
		} {
			if got := s.Attrs[name]; got != want {
				t.Errorf("%s: %s is %v, want %v", s.Kind, name, got, want)
			}
		}
	}
	if in.Attrs["culvert.peer"] != w.id("outlet") || out.Attrs["culvert.peer"] != w.id("inlet") {
		t.Errorf("peers %v and %v", in.Attrs["culvert.peer"], out.Attrs["culvert.peer"])
	}
	for where, tap := range map[string]*wiretap{"inlet and relay": w.nearInlet, "relay and outlet": w.nearOutlet} {
		for _, id := range []string{in.TraceID, in.SpanID, out.SpanID, dial.SpanID} {
			raw, err := hex.DecodeString(id)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{id, strings.ToUpper(id), string(raw)} {
				if found, seen := tap.holds(text); found || seen < 2000 {
					t.Errorf("between %s: id %s found %v in %d bytes", where, id, found, seen)
				}
			}
		}
	}
}

// TestTraceNone: with a share of 0 at both ends nothing is sent, and so with no settings.
func TestTraceNone(t *testing.T) {
	t.Parallel()
	c, _ := tracetest.Start(t, false)
	w := newTracedWorld(t, tracingTo(c, 0), tracingTo(c, 0), 0)
	for range 20 {
		w.mustAsk()
	}
	w.node("inlet").stop()
	w.node("outlet").stop()
	if n := len(c.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}

// TestTraceCollector: one that is away, hangs or refuses hurts no connection, and holds
// up the end of a program for a moment only.
func TestTraceCollector(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the caller has gone
			<-r.Context().Done()
		},
		"refuses": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
		"is busy": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			http.Error(w, "no", http.StatusTooManyRequests)
		},
		"is away": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, srv := tracetest.Start(t, false)
			if c.Answer(answer); answer == nil {
				srv.Close()
			}
			w := newTracedWorld(t, tracingTo(c, 1), tracingTo(c, 1), 0)
			var asking sync.WaitGroup
			for range 8 {
				asking.Go(func() {
					for range 10 {
						if err := w.ask(); err != nil {
							t.Errorf("asking: %v", err)
						}
					}
				})
			}
			asking.Wait()
			w.node("inlet").stop() // soon after its drain time, or it fails
			if n := len(c.Spans()); n != 0 {
				t.Errorf("%d spans have come, want none", n)
			}
		})
	}
}
