package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short windows make figures that mean nothing, which is enough here.
var short = Windows{Warm: 10 * time.Millisecond, Measure: 250 * time.Millisecond, Idle: time.Millisecond}

// startTarget serves a target until the test ends.
func startTarget(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// startProxy joins each conn to one of the target's by carry, which closes
// both, until the test ends.
func startProxy(t *testing.T, target string, carry func(near, far net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			go carry(near, far)
		}
	}()
	return ln.Addr().String()
}

func ownProcess() []int { return []int{os.Getpid()} }

// TestCases runs every case over a direct path and looks at what must hold of
// its figures.
func TestCases(t *testing.T) {
	p := &Path{Name: "direct", Addr: startTarget(t), Processes: ownProcess, Part: ownProcess}
	cases := append(Cases(short), LineCases("line", short)...)
	names := map[string]bool{}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if names[c.Name] {
				t.Error("two cases of that name")
			}
			names[c.Name] = true
			if c.conns > 1000 {
				t.Skip("covered by TestIdle and TestAmong with fewer connections")
			}
			f := runShort(t, c, p)
			if !slices.Contains(c.Metrics, c.Main) {
				t.Errorf("the main metric %s is not among %v", c.Main, c.Metrics)
			}
			for m, v := range f {
				if !slices.Contains(c.Metrics, m) {
					t.Errorf("metric %s is not among %v", m, c.Metrics)
				}
				if v < 0 || v == 0 && m != CPU && m != PartCPU && m != CPUEach {
					t.Errorf("%s is %v", m, v)
				}
			}
			if f[P50] > f[P99] || f[P99] > f[P999] && c.Metrics[len(c.Metrics)-1] == P999 {
				t.Errorf("quantiles out of order: %v", f)
			}
		})
	}
}

// runShort runs a case, again where the machine has kept the process from running for
// much of the window, in which nothing was measured then.
func runShort(t *testing.T, c *Case, p *Path) Figures {
	t.Helper()
	for try := 1; ; try++ {
		watch := testenv.Start(t)
		f, err := c.Run(t.Context(), p)
		if try < 3 && watch.Lost() > short.Measure/4 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

func TestIdle(t *testing.T) {
	p := &Path{Name: "direct", Addr: startTarget(t), Processes: ownProcess}
	f, err := idle(t.Context(), p, 50, short)
	if err != nil {
		t.Fatal(err)
	}
	if f[MemoryBase] <= 0 {
		t.Errorf("memory without connections: %v", f)
	}
	if _, err := idle(t.Context(), &Path{Name: "unknown", Addr: p.Addr}, 1, short); err == nil {
		t.Error("a path of unknown processes has a figure for memory")
	}
}

func TestAmong(t *testing.T) {
	p := &Path{Name: "direct", Addr: startTarget(t), Processes: ownProcess}
	if _, err := among(t.Context(), p, 35, 35, short); err != nil {
		t.Fatal(err)
	}
}

// TestThroughputCountsArrivals: bytes that a path has swallowed and not handed
// on do not count.
func TestThroughputCountsArrivals(t *testing.T) {
	swallow := startProxy(t, startTarget(t), func(near, far net.Conn) {
		defer near.Close()
		defer far.Close()
		var op [1]byte
		if _, err := io.ReadFull(near, op[:]); err != nil {
			return
		}
		far.Write(op[:])
		_, _ = io.Copy(io.Discard, near)
	})
	_, err := bulk(t.Context(), &Path{Name: "swallow", Addr: swallow}, opSink, 2, short)
	if err == nil || !strings.Contains(err.Error(), "nothing has arrived") {
		t.Errorf("error %v, want that nothing has arrived", err)
	}
}

// TestBrokenPaths: a path that closes, or changes bytes, is an error and no
// figure.
func TestBrokenPaths(t *testing.T) {
	target := startTarget(t)
	closing := startProxy(t, target, func(near, far net.Conn) {
		far.Close()
		_, _ = io.CopyN(io.Discard, near, 40) // in the middle of a request
		near.Close()
	})
	changing := startProxy(t, target, func(near, far net.Conn) {
		defer near.Close()
		defer far.Close()
		go func() { _, _ = io.Copy(far, near) }()
		b := make([]byte, requestSize)
		for {
			if _, err := io.ReadFull(far, b); err != nil {
				return
			}
			b[7] ^= 1
			if _, err := near.Write(b); err != nil {
				return
			}
		}
	})
	for _, tt := range []struct {
		name string
		run  func(p *Path) error
		addr string
	}{
		{"requests, closed", func(p *Path) error { _, err := requests(t.Context(), p, 3, short); return err }, closing},
		{"requests, changed", func(p *Path) error { _, err := requests(t.Context(), p, 3, short); return err }, changing},
		{"bulk, closed", func(p *Path) error { _, err := bulk(t.Context(), p, opSource, 2, short); return err }, closing},
		{"beside, closed", func(p *Path) error { _, err := beside(t.Context(), p, 1, 1, short); return err }, closing},
		{"idle, closed", func(p *Path) error { _, err := idle(t.Context(), p, 3, short); return err }, closing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.run(&Path{Name: "broken", Addr: tt.addr, Processes: ownProcess}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestLimit(t *testing.T) {
	c := &Case{Name: "many", conns: 11}
	if _, err := c.Run(t.Context(), &Path{Limit: 10}); !errors.Is(err, ErrTooMany) {
		t.Errorf("error %v, want %v", err, ErrTooMany)
	}
}

// TestMeasure looks at the order of turns, at a path that fails, and at the
// medians.
func TestMeasure(t *testing.T) {
	var turns []string
	value := 0.0
	c := &Case{Name: "case", Main: Rate, Metrics: []Metric{Rate}, run: func(_ context.Context, p *Path) (Figures, error) {
		turns = append(turns, p.Name)
		if p.Name == "bad" {
			return nil, errors.New("broken")
		}
		value++
		return Figures{Rate: value}, nil
	}}
	paths := []*Path{{Name: "a"}, {Name: "bad"}, {Name: "b"}}
	told := 0
	r, err := Measure(t.Context(), c, paths, 3, func(string, Figures, error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(turns, " "), "a bad b b a a b"; got != want {
		t.Errorf("turns %q, want %q", got, want)
	}
	if told != len(turns) {
		t.Errorf("told of %d turns, want %d", told, len(turns))
	}
	if a, b := r.Get("a")[Rate], r.Get("b")[Rate]; a != 4 || b != 3 {
		t.Errorf("medians %v and %v, want 4 and 3", a, b)
	}
	if s := r.Series[1]; s.Medians != nil || !strings.Contains(s.Missing, "broken") {
		t.Errorf("the failed path: %+v", s)
	}
	var out strings.Builder
	if err := r.Write(&out, "b"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.33", "1.00", "bad: case over bad: broken"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the report:\n%s", want, out.String())
		}
	}
}

func TestMeasureStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := &Path{Name: "direct", Addr: startTarget(t)}
	c := requestCase(Windows{Measure: time.Hour}, 2)
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := Measure(ctx, c, []*Path{p}, 2, func(string, Figures, error) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := Median(slices.Clone(tt.values)); got != tt.want {
			t.Errorf("Median(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var times []time.Duration
	for i := range 1000 {
		times = append(times, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0.5: 500, 0.99: 990, 0.999: 999} {
		if got := quantile(times, q); got != want {
			t.Errorf("quantile %v: %d, want %d", q, got, want)
		}
	}
	if got := quantile(times[:1], 0.999); got != 0 {
		t.Errorf("of one: %d", got)
	}
}

func TestAwaitAnswer(t *testing.T) {
	if err := AwaitAnswer(t.Context(), &Path{Addr: startTarget(t)}, time.Minute); err != nil {
		t.Error(err)
	}
	nobody := fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))
	err := AwaitAnswer(t.Context(), &Path{Name: "nobody", Addr: nobody}, 30*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "nobody does not answer") {
		t.Errorf("error %v, want one that names the path", err)
	}
}
