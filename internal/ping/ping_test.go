package ping

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/remedy"
)

// Over one relay, two of them, and none: each hop is measured, both ends are proven,
// and the service is opened where that is asked for.
func TestWaysThatWork(t *testing.T) {
	w := newWorld(t)
	b, _ := w.relay("b", "127.0.0.1:0", "")
	a, _ := w.relay("a", "127.0.0.1:0", "extend: ['tcp://"+b.Addrs()[0].String()+"']\n")
	out := w.outlet("127.0.0.1:0", w.hop(b, "b"))
	one, two, direct := w.hop(b, "b"), w.hop(a, "a")+","+w.hop(b, "b"), w.hop(out, "outlet")

	r, text := w.ping(t.Context(), Config{Inlet: w.inlet("echo", one, two, direct), Count: 3, Open: true})
	if !r.Works || r.Interrupted || len(r.Ways) != 3 {
		t.Fatalf("report: works %v, interrupted %v, %d ways; want 3 that work\n%s", r.Works, r.Interrupted, len(r.Ways), text)
	}
	for i, want := range []string{
		"1 resolve, 1 connect, 1 handshake, 1 connect!, 2 handshake, 2 channel, 2 open",
		"1 resolve, 1 connect, 1 handshake, 1 extend!, 2 handshake, 2 connect!, 3 handshake, 3 channel, 3 open",
		"1 resolve, 1 connect, 1 handshake, 1 channel, 1 open",
	} {
		way := r.Ways[i]
		var steps []string
		for _, s := range way.Steps {
			step := s.Kind
			if s.Request != "" {
				step = s.Request + "!"
			}
			steps = append(steps, fmt.Sprintf("%d %s", s.Hop, step))
			if s.Seconds < 0 || s.Problem != nil {
				t.Errorf("way %d: step %+v", i+1, s)
			}
		}
		if got := strings.Join(steps, ", "); got != want {
			t.Errorf("way %d: steps %s\nwant %s", i+1, got, want)
		}
		if p := way.Pings; !way.Works || p == nil || p.Sent != 3 || p.Answered != 3 || p.Min <= 0 || p.Min > p.Median || p.Median > p.Max || len(p.Seconds) != 3 {
			t.Errorf("way %d: works %v, pings %+v", i+1, way.Works, p)
		}
		if way.Outlet != w.id("outlet") || len(way.Instance) != 32 || way.Problem != nil || len(way.Changes) > 0 {
			t.Errorf("way %d: %+v", i+1, way)
		}
	}
	for _, want := range []string{"route 2 of 3: ", "proved its identity", "joined to the outlet", "3 of 3 PINGs answered: min ", "\necho: 3 of 3 ways work\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("people do not read %q:\n%s", want, text)
		}
	}
	wantNarrow(t, text)
	b2, err := json.Marshal(r)
	if err != nil || strings.Contains(string(b2), `"error"`) {
		t.Errorf("as JSON: %s, %v", b2, err)
	}
}

// wantNarrow wants lines that a terminal of 80 columns shows whole, but for the routes.
func wantNarrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 && !strings.HasPrefix(line, "route ") {
			t.Errorf("a line of %d characters: %s", n, line)
		}
	}
}

// What does not work is told with the step at fault, a code and what to change; where
// one way works, that counts.
func TestWaysThatDoNotWork(t *testing.T) {
	w := newWorld(t)
	a, _ := w.relay("a", "127.0.0.1:0", "")
	b, _ := w.relay("b", "127.0.0.1:0", "connect: ['<another>']\n")
	c, _ := w.relay("c", "127.0.0.1:0", fmt.Sprintf("extend: ['tcp://%s', 'tcp://no-such-host.invalid:4000']\n", freeAddress(t)))
	w.outlet("", w.hop(a, "a"))
	dead := freeAddress(t)
	extends := c.Addrs()[0].String()
	noCulvert := serve(t, func(nc net.Conn) { _, _ = io.WriteString(nc, "SSH-2.0-OpenSSH_9.9\r\n") })
	silent := serve(t, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	good := w.hop(a, "a")

	for _, tt := range []struct {
		name, service, route string
		at, step, code       string // of the step at fault
		remedy               string // part of it
	}{
		{"nobody listens", "echo", "tcp://" + dead + "/" + w.id("a"), AtRelay, "connect", "unreachable", "the relay runs, and listens where"},
		{"no such name", "echo", "tcp://no-such-host.invalid:4000/" + w.id("a"), AtRelay, "resolve", "unreachable", ""},
		{"another relay", "echo", "tcp://" + a.Addrs()[0].String() + "/" + w.id("b"), AtRelay, "handshake", "wrong_identity", "write the identifier (" + w.id("a") + ")"},
		{"not a relay", "echo", "tcp://" + noCulvert + "/" + w.id("a"), AtRelay, "handshake", "handshake", "at that address is what the route says"},
		{"silence", "echo", "tcp://" + silent + "/" + w.id("a"), AtRelay, "handshake", "timeout", "does not answer"},
		{"may not connect", "echo", w.hop(b, "b"), AtRelay, "answer", "connect_denied", "add this inlet (" + w.id("inlet") + ") to connect"},
		{"not registered", "echo", w.hop(c, "c"), AtRelay, "answer", "not_registered", "the outlet (" + w.id("outlet") + ") runs"},
		{"may not extend", "echo", "tcp://" + extends + "/" + w.id("c") + "," + good, AtRelay, "answer", "extend_denied", "address (" + a.Addrs()[0].String() + ") to extend"},
		{"no such host there", "echo", "tcp://" + extends + "/" + w.id("c") + ",tcp://no-such-host.invalid:4000/" + w.id("a"), AtRelay, "answer", "no_address", "no-such-host.invalid:4000"},
		{"no such service", "ecoh", good, AtService, "open", "service_unknown", "the name of the service (ecoh)"},
		{"may not use it", "denied", good, AtService, "open", "stream_denied", "to allow of the service (denied)"},
		{"target refuses", "refused", good, AtService, "open", "target_refused", "the service (refused) listens"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, text := w.ping(t.Context(), Config{Inlet: w.inlet(tt.service, tt.route), Count: 1, Open: true, Timeout: 3 * time.Second})
			if r.Works || len(r.Ways) != 1 || r.Ways[0].Works {
				t.Fatalf("it works:\n%s", text)
			}
			way := r.Ways[0]
			last := way.Steps[len(way.Steps)-1]
			if last.Problem == nil || last.At != tt.at || last.Kind != tt.step || last.Code != tt.code || !strings.Contains(last.Remedy, tt.remedy) {
				t.Errorf("the last step is %+v: %+v\nwant %s %s with %s and %q", last, last.Problem, tt.at, tt.step, tt.code, tt.remedy)
			}
			if tt.step != "open" && (way.Problem == nil || way.Code != tt.code) {
				t.Errorf("the way's problem is %+v, want the step's", way.Problem)
			}
			if !strings.Contains(text, "0 of 1 way works") {
				t.Errorf("people do not read that it does not work:\n%s", text)
			}
			wantNarrow(t, text)
		})
	}
	t.Run("one of two", func(t *testing.T) {
		r, text := w.ping(t.Context(), Config{Inlet: w.inlet("echo", "tcp://"+dead+"/"+w.id("a"), good), Count: 1})
		if !r.Works || r.Ways[0].Works || !r.Ways[1].Works {
			t.Errorf("want the second way alone to work:\n%s", text)
		}
	})
}

// A ping beside the running inlet, which has a name, takes nothing from it, and is one
// channel at the outlet while it lasts.
func TestBesideTheInlet(t *testing.T) {
	w := newWorld(t)
	a, _ := w.relay("a", "127.0.0.1:0", "")
	out := w.outlet("", w.hop(a, "a"))
	cfg, err := config.LoadInlet(w.file("running", fmt.Sprintf(
		"identity: inlet.key\nname: only-one\nservices:\n  - {listen: 'tcp://127.0.0.1:0', service: echo, outlet: <outlet>, routes: ['%s']}\n", w.hop(a, "a"))))
	if err != nil {
		t.Fatal(err)
	}
	in, err := app.NewInlet(cfg, w.obs("inlet"))
	w.run(in, err)
	nc, err := net.Dial("tcp", in.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	wantEcho(t, nc, "before")
	channel := out.Status().Channels[0].Channel

	same := *cfg
	if r, text := w.ping(t.Context(), Config{Inlet: &same, Count: 2, Open: true}); !r.Works {
		t.Fatalf("the ping does not work:\n%s", text)
	}
	wantEcho(t, nc, "after")
	w.eventually("the ping's channel is gone", func() bool {
		all := out.Status().Channels
		return len(all) == 1 && all[0].Channel == channel && all[0].Streams == 1
	})
}

func wantEcho(t *testing.T, nc net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != text {
		t.Fatalf("echo: %q, %v; want %q", got, err, text)
	}
}

// When the path is lost, and another one comes, people hear of both; what there is when
// the ping is interrupted is told, too.
func TestPathIsLostMeanwhile(t *testing.T) {
	w := newWorld(t)
	address := freeAddress(t)
	a, stop := w.relay("a", address, "")
	out := w.outlet("", w.hop(a, "a"))
	ctx, cancel := context.WithCancelCause(t.Context())
	type result struct {
		r    *Report
		text string
	}
	done := make(chan result, 1)
	cfg := w.inlet("echo", w.hop(a, "a"))
	go func() {
		r, text := w.ping(ctx, Config{Inlet: cfg, Count: MaxCount})
		done <- result{r, text}
	}()
	pinged := func(r *app.Relay) func() bool {
		var last int64
		more := 0
		return func() bool { // PINGs go through it
			for _, j := range r.Status().Joins {
				if j.Caller == w.id("inlet") && j.BytesToTarget > last {
					last = j.BytesToTarget
					more++
				}
			}
			return more > 20
		}
	}
	w.eventually("there are PINGs", pinged(a))
	stop()
	a, _ = w.relay("a", address, "")
	w.registered(out, 1)
	w.eventually("there are PINGs again", pinged(a))
	cancel(errors.New("signal: interrupt"))
	got := <-done
	way := got.r.Ways[0]
	if !got.r.Works || !got.r.Interrupted || way.Pings.Answered == 0 || way.Pings.Sent >= MaxCount {
		t.Errorf("works %v, interrupted %v, pings %d of %d", got.r.Works, got.r.Interrupted, way.Pings.Answered, way.Pings.Sent)
	}
	if len(way.Changes) < 2 || way.Changes[0].Lost == "" || way.Changes[1].Down <= 0 {
		t.Errorf("changes of the path: %+v; want a loss and another path", way.Changes)
	}
	for _, want := range []string{"the path was lost: ", "another path took its place after ", "1 of 1 way works (interrupted)"} {
		if !strings.Contains(got.text, want) {
			t.Errorf("people do not read %q:\n%s", want, got.text)
		}
	}
}

// An interrupt while nothing works yet says so, and what has been found.
func TestInterruptedAtOnce(t *testing.T) {
	w := newWorld(t)
	silent := serve(t, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	cfg := w.inlet("echo", "tcp://"+silent+"/"+w.id("a"), "tcp://"+silent+"/"+w.id("b"))
	ctx, cancel := context.WithCancelCause(t.Context())
	began := make(chan struct{}, 2)
	p, err := New(Config{Inlet: cfg, Trace: Trace{Began: func(*Way) { began <- struct{}{} }}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-began
		cancel(errors.New("signal: interrupt"))
	}()
	r := p.Run(ctx)
	if r.Works || !r.Interrupted || len(r.Ways) != 1 || r.Ways[0].Problem == nil || r.Ways[0].Code != remedy.Cancelled {
		t.Errorf("report: %+v, of the way %+v", r, r.Ways[0].Problem)
	}
}

// A service that the inlet does not have is an error that names those that it has.
func TestNoSuchService(t *testing.T) {
	w := newWorld(t)
	w.id("inlet")
	cfg := w.inlet("echo", "tcp://127.0.0.1:1/"+w.id("a"))
	_, err := New(Config{Inlet: cfg, Service: "ecoh"})
	var none *ServiceError
	if !errors.As(err, &none) || err.Error() != `the inlet has no service "ecoh": there is echo` {
		t.Errorf("New: %v", err)
	}
	two := *cfg
	two.Services = append(two.Services, two.Services[0])
	two.Services[1].Service = "other"
	if _, err = New(Config{Inlet: &two}); err == nil || err.Error() != "name the service to ping: there are echo, other" {
		t.Errorf("New: %v", err)
	}
	two.Services[1].Service = "echo" // at another address, with the same ways
	p, err := New(Config{Inlet: &two})
	if err != nil || len(p.services) != 1 {
		t.Errorf("New: %v, want one way", err)
	}
}
