package culvert_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/culvert-net/culvert"
)

// Wherever a dial is when its context ends, nothing is left of it at either end, and the
// dialer's conns go on.
func TestDialsEndAnywhere(t *testing.T) {
	r := newRelay(t)
	current := goleak.IgnoreCurrent()
	own, others := prometheus.NewRegistry(), prometheus.NewRegistry()
	p := newPair(t, pairing{
		relays:   []*testRelay{r},
		listener: func(c *culvert.ListenerConfig) { c.Metrics = others },
		dialer:   func(c *culvert.DialerConfig) { c.Metrics = own },
	})
	stop := p.serve(echo)
	dial := func(within time.Duration) {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		c, err := p.d.Dial(ctx, "echo")
		switch {
		case err == nil:
			_ = c.Close()
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("a dial of %s: %v", within, err)
		}
	}
	dial(time.Millisecond) // before there is a channel
	kept, err := p.d.Dial(withPatience(t), "echo")
	if err != nil {
		t.Fatal(err)
	}
	var dialing sync.WaitGroup
	for range 8 {
		dialing.Go(func() {
			for range 50 {
				dial(time.Duration(rand.Int64N(int64(5 * time.Millisecond))))
			}
		})
	}
	dialing.Wait()
	wantEcho(t, kept, "still here")
	_ = kept.Close()
	eventually(t, "no stream is left at the dialer", func() bool { return value(t, own, "culvert_inlet_streams_active") == 0 })
	eventually(t, "no stream is left at the listener", func() bool { return value(t, others, "culvert_outlet_streams_active") == 0 })
	if err := p.d.Shutdown(withPatience(t)); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	stop()
	goleak.VerifyNone(t, current)
}

// A conn that an http.Transport keeps for later outlives the relay under it.
func TestIdleHTTPConnOutlivesItsRelay(t *testing.T) {
	first, second := newRelay(t), newRelay(t)
	p := newPair(t, pairing{relays: []*testRelay{first, second}})
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(p.ln) })
	defer serving.Wait()
	defer srv.Close()
	var dials atomic.Int64
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return p.d.DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	get := func() {
		t.Helper()
		resp, err := client.Get("http://echo/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	get()
	first.kill()
	for range 3 {
		get()
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d dials for requests one after another, want 1", n)
	}
}
