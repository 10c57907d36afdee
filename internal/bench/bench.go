// Package bench owns the load that Culvert is measured with: a target, the
// cases that talk to it over any path that carries TCP, what a path's processes
// cost meanwhile, and the report. Who makes the paths hands them in; it starts
// no process and knows nothing of Culvert.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"time"
)

// A Path is one way to a target ([Serve]).
type Path struct {
	Name string
	Addr string // where to dial; behind it, some way on, stands a target
	// Processes lists the processes that make the path, nil when they are
	// unknown: their cost is not measured then.
	Processes func() []int
	// Part is a part of Processes whose processor time is measured for itself,
	// such as a relay's; nil for none.
	Part func() []int
	// Limit is how many connections the path takes at once; 0 is no limit.
	Limit int
}

// A Metric names one figure of a case, with its unit.
type Metric string

// The metrics.
const (
	Throughput Metric = "MB/s"     // 10^6 bytes received a second
	CPU        Metric = "CPU s/GB" // of all the path's processes, for 10^9 bytes
	PartCPU    Metric = "relay CPU s/GB"
	Rate       Metric = "1/s"
	P50        Metric = "p50 µs"
	P99        Metric = "p99 µs"
	P999       Metric = "p99.9 µs"
	CPUEach    Metric = "CPU µs each" // of all the path's processes, for one request or connection
	Memory     Metric = "kB each"     // 10^3 bytes resident, of all processes, for one connection, above those of none
	MemoryBase Metric = "MB without"  // 10^6 bytes resident without connections
	Ready      Metric = "ms"
)

// LowerIsBetter reports whether less of m is better.
func (m Metric) LowerIsBetter() bool { return m != Throughput && m != Rate }

// Figures are what one round of a case has measured.
type Figures map[Metric]float64

// A Case is one thing to measure.
type Case struct {
	Name    string
	What    string   // one line, for the report
	Main    Metric   // what paths are compared by
	Metrics []Metric // in the report's order, Main among them
	// Once is for a case that is not repeated, since a round takes minutes.
	Once  bool
	conns int
	run   func(ctx context.Context, p *Path) (Figures, error)
}

// Run measures p once.
func (c *Case) Run(ctx context.Context, p *Path) (Figures, error) {
	if p.Limit > 0 && c.conns > p.Limit {
		return nil, fmt.Errorf("%w: %d at most, %d wanted", ErrTooMany, p.Limit, c.conns)
	}
	f, err := c.run(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%s over %s: %w", c.Name, p.Name, err)
	}
	maps.DeleteFunc(f, func(m Metric, _ float64) bool { return !slices.Contains(c.Metrics, m) })
	return f, nil
}

// ErrTooMany says that a path does not take as many connections as a case has.
var ErrTooMany = errors.New("path does not take so many connections")

// Windows are how long a case measures.
type Windows struct {
	Warm    time.Duration // before anything counts
	Measure time.Duration
	Idle    time.Duration // how long idle connections rest before memory is read
}

// DefaultWindows are long enough for medians of three to agree within a few
// per cent on a quiet machine.
func DefaultWindows() Windows {
	return Windows{Warm: 300 * time.Millisecond, Measure: 1500 * time.Millisecond, Idle: time.Minute}
}

// LineWindows are for lines, which take some round trips to fill.
func LineWindows() Windows {
	return Windows{Warm: 2 * time.Second, Measure: 4 * time.Second}
}

// Cases returns all cases, in the report's order.
func Cases(w Windows) []*Case {
	var cases []*Case
	for _, up := range []bool{true, false} {
		for _, n := range []int{1, 8, 64} {
			cases = append(cases, bulkCase(w, up, n))
		}
	}
	for _, n := range []int{1, 64, 1000} {
		cases = append(cases, requestCase(w, n))
	}
	return append(cases, connectCase(w), besideCase("beside-bulk", 2, 2, w), amongCase(w, few, false), amongCase(w, idleConns, false), amongCase(w, idleConns, true), idleCase(w))
}

// LineCases returns the cases for a slow line, whose name goes before theirs.
func LineCases(line string, w Windows) []*Case {
	cases := []*Case{
		bulkCase(w, true, 1), bulkCase(w, false, 1), bulkCase(w, false, 16),
		besideCase("beside-up", 2, 0, w), besideCase("beside-down", 0, 2, w),
	}
	for _, c := range cases {
		c.Name = line + "-" + c.Name
	}
	return cases
}

// dial opens a connection to a path and tells the target what it is for.
func dial(ctx context.Context, p *Path, op opcode) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", p.Addr)
	if err != nil {
		return nil, err
	}
	if _, err := nc.Write([]byte{byte(op)}); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return nc.(*net.TCPConn), nil
}

// dialTime bounds a dial, stallTime a connection on which nothing comes.
const (
	dialTime  = 30 * time.Second
	stallTime = 20 * time.Second
)

// closeAll closes what a case has opened.
func closeAll[C io.Closer](conns []C) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// dialMany opens n connections, some at a time, or none. Those for echoes have
// had an answer: a proxy accepts long before it has made its way to the target.
func dialMany(ctx context.Context, p *Path, op opcode, n int) ([]*net.TCPConn, error) {
	conns := make([]*net.TCPConn, n)
	err := each(ctx, n, 16, func(i int) (err error) {
		if conns[i], err = dial(ctx, p, op); err != nil || op != opEcho {
			return err
		}
		_ = conns[i].SetDeadline(time.Now().Add(stallTime)) // a closed one says so itself
		return request(conns[i])
	})
	if err != nil {
		closeAll(slices.DeleteFunc(conns, func(c *net.TCPConn) bool { return c == nil }))
		return nil, fmt.Errorf("opening %d connections: %w", n, err)
	}
	return conns, nil
}
