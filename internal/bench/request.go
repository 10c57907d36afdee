package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// requestSize is how many bytes a request and its answer have.
const requestSize = 64

func requestCase(w Windows, n int) *Case {
	return &Case{
		Name:    fmt.Sprintf("request-%d", n),
		What:    fmt.Sprintf("requests of 64 B and their answers, one after another on %s", plural(n, "connection")),
		Main:    Rate,
		Metrics: []Metric{Rate, P50, P99, P999, CPUEach},
		conns:   n,
		run: func(ctx context.Context, p *Path) (Figures, error) {
			return requests(ctx, p, n, w)
		},
	}
}

func connectCase(w Windows) *Case {
	const wide = 16
	return &Case{
		Name:    "connect",
		What:    fmt.Sprintf("connect, one request of 64 B, close; %d at once", wide),
		Main:    Rate,
		Metrics: []Metric{Rate, P50, P99, P999, CPUEach},
		conns:   wide,
		run: func(ctx context.Context, p *Path) (Figures, error) {
			return measure(ctx, p, wide, w, func(int) error { return visit(ctx, p) })
		},
	}
}

func besideCase(name string, up, down int, w Windows) *Case {
	return &Case{
		Name:    name,
		What:    fmt.Sprintf("requests of 64 B on 1 connection beside bulk, %d up and %d down", up, down),
		Main:    P99,
		Metrics: []Metric{P50, P99, P999, Throughput},
		conns:   1 + up + down,
		run: func(ctx context.Context, p *Path) (Figures, error) {
			return beside(ctx, p, up, down, w)
		},
	}
}

// few is how many requests are under way at once in amongCase.
const few = 10

// amongCase has n connections open, of which few are in use, or all in turn.
func amongCase(w Windows, n int, all bool) *Case {
	name, used, what := "among", few, fmt.Sprintf("on %d of %d connections", few, n)
	if all {
		name, used, what = "around", n, fmt.Sprintf("on %d connections in turn", n)
	}
	return &Case{
		Name:    fmt.Sprintf("%s-%d", name, n),
		What:    fmt.Sprintf("requests of 64 B, %d at once, %s", few, what),
		Main:    CPUEach,
		Metrics: []Metric{CPUEach, Rate, P50, P99},
		conns:   n,
		run: func(ctx context.Context, p *Path) (Figures, error) {
			return among(ctx, p, n, used, w)
		},
	}
}

// among measures requests that take turns on the first used of n connections.
func among(ctx context.Context, p *Path, n, used int, w Windows) (Figures, error) {
	conns, err := dialMany(ctx, p, opEcho, n)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	bound(conns, w)
	turns := make([]int, few)
	return measure(ctx, p, few, w, func(i int) error {
		turns[i]++
		return request(conns[i+turns[i]%(used/few)*few]) // no two at once on one
	})
}

// requests measures n connections that each have one request under way.
func requests(ctx context.Context, p *Path, n int, w Windows) (Figures, error) {
	conns, err := dialMany(ctx, p, opEcho, n)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	bound(conns, w)
	return measure(ctx, p, n, w, func(i int) error { return request(conns[i]) })
}

// beside measures requests on one connection while bulk streams run.
func beside(ctx context.Context, p *Path, up, down int, w Windows) (Figures, error) {
	var floods []*flood
	defer func() {
		for _, f := range floods {
			f.stop()
		}
	}()
	arrived := func() (n uint64) {
		for _, f := range floods {
			n += f.arrived()
		}
		return n
	}
	for _, s := range []struct {
		op opcode
		n  int
	}{{opSink, up}, {opSource, down}} {
		if s.n == 0 {
			continue
		}
		f, err := startFlood(ctx, p, s.op, s.n)
		if err != nil {
			return nil, err
		}
		floods = append(floods, f)
		if err := f.wait(ctx, w.Warm); err != nil {
			return nil, err
		}
	}
	before, began := arrived(), time.Now()
	figures, err := requests(ctx, p, 1, w)
	if err != nil {
		return nil, err
	}
	figures[Throughput] = float64(arrived()-before) / time.Since(began).Seconds() / 1e6
	for _, f := range floods {
		if err := f.wait(ctx, 0); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

// bound makes conns fail that stall until long after the windows: once for all
// requests, since it takes time.
func bound(conns []*net.TCPConn, w Windows) {
	until := time.Now().Add(w.Warm + w.Measure + stallTime)
	for _, nc := range conns {
		_ = nc.SetDeadline(until) // a closed one says so itself
	}
}

// request sends one request and reads its answer.
func request(nc net.Conn) error {
	var b [requestSize]byte
	b[0], b[requestSize-1] = 0x5a, 0xa5
	if _, err := nc.Write(b[:]); err != nil {
		return err
	}
	var answer [requestSize]byte
	if _, err := io.ReadFull(nc, answer[:]); err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	if answer != b {
		return fmt.Errorf("an answer that is not its request")
	}
	return nil
}

// visit connects, makes one request and closes.
func visit(ctx context.Context, p *Path) error {
	nc, err := dial(ctx, p, opEcho)
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(stallTime)) // a closed one says so itself
	return request(nc)
}

// measure runs f on wide goroutines, one call after another on each, and times
// the calls that begin and end inside the window.
func measure(ctx context.Context, p *Path, wide int, w Windows, f func(i int) error) (Figures, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var counting, done atomic.Bool
	times := make([][]time.Duration, wide)
	var wg sync.WaitGroup
	for i := range wide {
		times[i] = make([]time.Duration, 0, 4096)
		wg.Go(func() {
			for !done.Load() {
				counts, began := counting.Load(), time.Now()
				if err := f(i); err != nil {
					cancel(err)
					return
				}
				if counts && counting.Load() {
					times[i] = append(times[i], time.Since(began))
				}
			}
		})
	}
	pause(ctx, w.Warm)
	use, began := p.usage(), time.Now()
	counting.Store(true)
	pause(ctx, w.Measure)
	counting.Store(false)
	took, cost := time.Since(began), p.usage().sub(use)
	done.Store(true)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	all := slices.Concat(times...)
	if len(all) == 0 {
		return nil, fmt.Errorf("no request was answered in %v", w.Measure)
	}
	slices.Sort(all)
	figures := Figures{
		Rate: float64(len(all)) / took.Seconds(),
		P50:  micros(quantile(all, 0.5)), P99: micros(quantile(all, 0.99)), P999: micros(quantile(all, 0.999)),
	}
	if cost.known {
		figures[CPUEach] = micros(cost.cpu) / float64(len(all))
	}
	return figures, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// quantile returns the smallest of the sorted times that a share q of them does
// not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(q * float64(len(sorted)))
	return sorted[min(i, len(sorted)-1)]
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
