package app

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/config"
)

// statusAt asks an admin server, and decodes its answer into v unless that is nil.
func statusAt(t *testing.T, a net.Addr, path string, v any) (status int, text string) {
	t.Helper()
	status, text = get(t, a, path)
	if v != nil {
		if status != 200 {
			t.Fatalf("%s: %d %s", path, status, text)
		}
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatalf("%s: %v in %s", path, err, text)
		}
	}
	return status, text
}

// withAdmin is a setup whose processes have admin servers.
func withAdmin() setup {
	return setup{
		relay:  func(c *config.Relay) { c.Admin = "127.0.0.1:0" },
		outlet: func(c *config.Outlet) { c.Admin = "127.0.0.1:0" },
		inlet:  func(c *config.Inlet) { c.Admin = "127.0.0.1:0" },
	}
}

// carried reports whether n bytes are counted each way.
func carried(t TotalsStatus, n int64) bool { return t.BytesToService == n && t.BytesToClient == n }

// While a stream runs, and not only at its end, both ends and the relay between them
// show what it has carried so far: in /status and in /metrics, and the same.
func TestLiveStreams(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, withAdmin())
	began := time.Now()
	client := sys.dial(t)
	wantEcho(t, client, "hello")
	var in InletStatus
	var out OutletStatus
	eventually(t, "both ends have counted it, both ways", func() bool {
		statusAt(t, sys.inlet.Endpoints().AdminAddr(), "/status", &in)
		statusAt(t, sys.outlet.Endpoints().AdminAddr(), "/status", &out)
		return carried(in.Totals, 5) && carried(out.Totals, 5)
	})
	want := TotalsStatus{StreamsActive: 1, StreamsOpened: 1, BytesToService: 5, BytesToClient: 5}
	if in.Totals != want || out.Totals != want {
		t.Errorf("totals: inlet %+v, outlet %+v, want %+v", in.Totals, out.Totals, want)
	}
	if len(in.Services) != 1 || len(out.Services) != 1 || in.Services[0].CarriedStatus != (CarriedStatus{1, 5, 5}) || out.Services[0].CarriedStatus != in.Services[0].CarriedStatus {
		t.Errorf("services: inlet %+v, outlet %+v", in.Services, out.Services)
	}
	if len(in.Streams) != 1 || len(out.Streams) != 1 || in.LeftOff != 0 || out.LeftOff != 0 {
		t.Fatalf("streams: inlet %+v, outlet %+v, want one at each", in.StreamsStatus, out.StreamsStatus)
	}
	i, o := in.Streams[0], out.Streams[0]
	if i.Service != "echo" || o.Service != "echo" || i.Client != client.LocalAddr().String() || o.Client != i.Client {
		t.Errorf("inlet %+v, outlet %+v: want the service echo and the client's address", i, o)
	}
	if i.Peer != sys.outlet.Identifier().String() || o.Peer != sys.inlet.Identifier().String() || i.Channel == "" || i.Channel != o.Channel || i.Channel != in.Channels[0].Channel || i.AuditID == "" || i.AuditID != o.AuditID {
		t.Errorf("inlet %+v, outlet %+v: want each other, on one channel", i, o)
	}
	for _, s := range []StreamStatus{i, o} {
		if s.BytesToService != 5 || s.BytesToClient != 5 || s.ID == "" || s.Since.Before(began) || s.Active.Before(s.Since) || time.Since(s.Active) > time.Minute {
			t.Errorf("stream %+v", s)
		}
	}
	here, there := in.Channels[0], out.Channels[0]
	if here.Channel != there.Channel || here.Sent < 5 || here.Received < 5 || there.Sent < 5 || there.Received < 5 {
		t.Errorf("inlet's channel %+v, outlet's %+v: want the same, and that it has carried the stream", here, there)
	}
	for _, p := range []*PathStatus{here.Path, there.Path} {
		if p.KeysSince.IsZero() || p.KeysSince.After(time.Now()) || p.Changes != 0 || p.Ping < 0 {
			t.Errorf("path %+v", p)
		}
	}
	if in.Role != "inlet" || out.Role != "outlet" || in.Version == "" || in.Started.After(began) || in.Now.Before(began) {
		t.Errorf("processes: %+v, %+v", in.ProcessStatus, out.ProcessStatus)
	}
	for side, o := range map[string]float64{
		"inlet":  metric(t, sys.inlet.obs, "culvert_inlet_bytes_total", "echo", toService),
		"outlet": metric(t, sys.outlet.obs, "culvert_outlet_bytes_total", "echo", toClient),
		"relay":  min(5, metric(t, sys.relay.obs, "culvert_relay_bytes_total", "to_target")),
	} {
		if o != 5 {
			t.Errorf("%s: %v bytes counted while the stream runs, want 5", side, o)
		}
	}
	_ = client.CloseWrite()
	if _, err := io.ReadAll(client); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream has ended", func() bool { return sys.inlet.countStreams()+sys.outlet.countStreams() == 0 })
	eventually(t, "its bytes stay counted, once", func() bool {
		i, o := sys.inlet.Status(), sys.outlet.Status()
		want := TotalsStatus{StreamsOpened: 1, BytesToService: 5, BytesToClient: 5}
		return i.Totals == want && o.Totals == want && len(i.Streams)+len(o.Streams) == 0
	})
}

// So many streams and joins are listed as the parameter says, 100 by default, the
// newest first; how many there are beside them is said.
func TestStatusParameters(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, withAdmin())
	const streams = 3
	var clients []string
	for range streams {
		nc := sys.dial(t)
		wantEcho(t, nc, "x")
		clients = append(clients, nc.LocalAddr().String())
	}
	admin := sys.inlet.Endpoints().AdminAddr()
	for _, tt := range []struct {
		query        string
		list, others int
	}{
		{"", 3, 0},
		{"?streams=0", 0, 3},
		{"?streams=2", 2, 1},
		{"?streams=3", 3, 0},
		{"?streams=10000", 3, 0},
		{"?joins=0", 3, 0},
		{"?joins=0&streams=1", 1, 2},
	} {
		var st StreamsStatus
		statusAt(t, admin, "/status"+tt.query, &st)
		if len(st.Streams) != tt.list || st.LeftOff != int64(tt.others) {
			t.Errorf("%q: %d streams and %d left off, want %d and %d", tt.query, len(st.Streams), st.LeftOff, tt.list, tt.others)
		}
		for i, s := range st.Streams {
			if want := clients[streams-1-i]; s.Client != want {
				t.Errorf("%q: stream %d is that of %s, want %s: the newest first", tt.query, i, s.Client, want)
			}
		}
	}
	var joins struct {
		Joins  []RelayJoin `json:"joins"`
		Totals JoinsStatus `json:"totals"`
		Left   int         `json:"joins_left_off"`
	}
	for query, want := range map[string]int{"": 1, "?joins=0": 0, "?joins=1": 1, "?streams=0": 1} {
		statusAt(t, sys.relay.Endpoints().AdminAddr(), "/status"+query, &joins)
		if len(joins.Joins) != want || joins.Left != 1-want || joins.Totals.JoinsActive != 1 || joins.Totals.JoinsOpened != 1 || joins.Totals.BytesToTarget == 0 {
			t.Errorf("relay %q: %+v, want %d of one join", query, joins, want)
		}
	}
	for _, query := range []string{
		"streams=-1", "streams=x", "streams=", "streams=1.5", "streams=10001", "streams=99999999999999999999", "streams=1&streams=2", "stream=1", "joins=x", "a;b=1", "%zz",
	} {
		for role, a := range map[string]net.Addr{"inlet": admin, "relay": sys.relay.Endpoints().AdminAddr()} {
			if status, text := statusAt(t, a, "/status?"+query, nil); status != 400 || strings.Count(text, "\n") != 1 {
				t.Errorf("%s: ?%s: %d %q, want 400 and why", role, query, status, text)
			}
		}
	}
}

// A client that waits for a channel is among the streams, without one.
func TestWaitingStream(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{})
	sys.stopOutlet()
	eventually(t, "the channel is gone", func() bool { return sys.inlet.countChannels() == 0 })
	_ = sys.dial(t)
	eventually(t, "the client waits", func() bool { return len(sys.inlet.Status().Streams) == 1 })
	s := sys.inlet.Status().Streams[0]
	if s.Channel != "" || s.AuditID != "" || s.Peer != sys.outlet.Identifier().String() || s.BytesToService != 0 || !s.Active.Equal(s.Since) {
		t.Errorf("a client that waits: %+v", s)
	}
}

// A history has a sample from the start on and one each 5 s, at most those of half an
// hour, oldest first.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := int64(0)
		h := newHistory(func(at time.Time) JoinSample { n++; return JoinSample{At: at, Joins: n} })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.run(ctx) }()
		start := time.Now()
		for _, want := range []struct {
			after       time.Duration
			first, last int64
		}{
			{time.Second, 1, 1}, {10 * time.Second, 1, 3}, {30*time.Minute - time.Second, 1, 360}, {30 * time.Minute, 2, 361}, {30*time.Minute + 5*time.Second, 3, 362}, {3 * time.Hour, 1802, 2161},
		} {
			time.Sleep(want.after - time.Since(start))
			synctest.Wait()
			got := h.show().(HistoryStatus[JoinSample])
			if got.Interval != 5 || int64(len(got.Samples)) != want.last-want.first+1 {
				t.Fatalf("after %s: %d samples each %v s", want.after, len(got.Samples), got.Interval)
			}
			for i, s := range got.Samples {
				if k := want.first + int64(i); s.Joins != k || s.At.Sub(start) != time.Duration(k-1)*5*time.Second {
					t.Fatalf("after %s: sample %d is %+v, want the %dth", want.after, i, s, k)
				}
			}
		}
		cancel()
		<-done
	})
}

// Each kind of process has a history with what it carries.
func TestHistoriesOfProcesses(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, withAdmin())
	wantEcho(t, sys.dial(t), "hello")
	eventually(t, "both ends have counted it, both ways", func() bool {
		return carried(sys.inlet.Status().Totals, 5) && carried(sys.outlet.Status().Totals, 5)
	})
	for _, tt := range []struct {
		role string
		v    *view
		at   net.Addr
		has  []string
	}{
		{"inlet", &sys.inlet.base.view, sys.inlet.Endpoints().AdminAddr(), []string{`"streams": 1`, `"bytes_to_service": 5`, `"bytes_to_client": 5`, `"rtt_seconds": `}},
		{"outlet", &sys.outlet.base.view, sys.outlet.Endpoints().AdminAddr(), []string{`"streams": 1`, `"bytes_to_service": 5`, `"bytes_to_client": 5`, `"rtt_seconds": `}},
		{"relay", &sys.relay.base.view, sys.relay.Endpoints().AdminAddr(), []string{`"joins": 1`, `"bytes_to_target": `, `"bytes_to_caller": `}},
	} {
		switch h := tt.v.history.(type) { // what the timer does each 5 s
		case *history[StreamSample]:
			h.take()
		case *history[JoinSample]:
			h.take()
		}
		status, text := statusAt(t, tt.at, "/status/history", nil)
		for _, want := range append(tt.has, `"interval_seconds": 5`, `"at": "`) {
			if status != http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%s: %d, no %s in %s", tt.role, status, want, text)
			}
		}
	}
}

// No parameters make an answer that cannot be told from a real one, and none a panic.
func FuzzStatusParameters(f *testing.F) {
	for _, query := range []string{"", "streams=5", "joins=10000", "streams=5&joins=x", "streams=10001", "x=1"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		v := view{many: "streams", status: func(most int) any { return most }}
		got, err := v.answer(q)
		if err != nil {
			return
		}
		want := defaultEntries
		if q.Has("streams") {
			if want, err = strconv.Atoi(q.Get("streams")); err != nil {
				t.Fatalf("%q is taken", query)
			}
		}
		if got != want || want < 0 || want > maxEntries {
			t.Errorf("%q: %v streams", query, got)
		}
	})
}
