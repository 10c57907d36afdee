package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

func bulkCase(w Windows, up bool, n int) *Case {
	way, op := "down", opSource
	if up {
		way, op = "up", opSink
	}
	return &Case{
		Name:    fmt.Sprintf("throughput-%s-%d", way, n),
		What:    fmt.Sprintf("bulk %s, %s", way, plural(n, "stream")),
		Main:    Throughput,
		conns:   n,
		Metrics: []Metric{Throughput, CPU, PartCPU},
		run: func(ctx context.Context, p *Path) (Figures, error) {
			return bulk(ctx, p, op, n, w)
		},
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// maxWindows is for how many windows a path may bring nothing, as on a machine that has
// more to do than to run it, before it counts as one that brings nothing.
const maxWindows = 10

// bulk measures n streams one way, by what arrives: for the window, and others like it
// until something has.
func bulk(ctx context.Context, p *Path, op opcode, n int, w Windows) (Figures, error) {
	f, err := startFlood(ctx, p, op, n)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	if err := f.wait(ctx, w.Warm); err != nil {
		return nil, err
	}
	before, began, use := f.arrived(), time.Now(), p.usage()
	var bytes float64
	for windows := 0; bytes == 0; windows++ {
		if windows == maxWindows {
			return nil, fmt.Errorf("nothing has arrived in %v", maxWindows*w.Measure)
		}
		if err := f.wait(ctx, w.Measure); err != nil {
			return nil, err
		}
		bytes = float64(f.arrived() - before)
	}
	took, cost := time.Since(began).Seconds(), p.usage().sub(use)
	figures := Figures{Throughput: bytes / took / 1e6}
	if cost.known {
		figures[CPU] = cost.cpu.Seconds() / (bytes / 1e9)
	}
	if cost.partKnown {
		figures[PartCPU] = cost.part.Seconds() / (bytes / 1e9)
	}
	return figures, nil
}

// A flood is streams that run one way, as fast as they can.
type flood struct {
	conns  []*net.TCPConn
	counts []atomic.Uint64 // bytes that have arrived, by stream
	broken chan error      // capacity 1: the first stream's end
	ended  atomic.Bool     // by stop
	wg     sync.WaitGroup
}

// startFlood opens n streams of op, which is opSource or opSink.
func startFlood(ctx context.Context, p *Path, op opcode, n int) (*flood, error) {
	conns, err := dialMany(ctx, p, op, n)
	if err != nil {
		return nil, err
	}
	f := &flood{conns: conns, counts: make([]atomic.Uint64, n), broken: make(chan error, 1)}
	for i, nc := range conns {
		if op == opSink {
			f.wg.Go(func() { f.breaks(upload(nc)) })
			f.wg.Go(func() { f.breaks(reports(nc, &f.counts[i])) })
		} else {
			f.wg.Go(func() { f.breaks(download(nc, &f.counts[i])) })
		}
	}
	return f, nil
}

func (f *flood) breaks(err error) {
	if f.ended.Load() {
		return
	}
	select {
	case f.broken <- err:
	default:
	}
}

// wait waits for d, unless a stream breaks or ctx ends.
func (f *flood) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case err := <-f.broken:
		return fmt.Errorf("a bulk stream broke: %w", err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *flood) arrived() (n uint64) {
	for i := range f.counts {
		n += f.counts[i].Load()
	}
	return n
}

func (f *flood) stop() {
	f.ended.Store(true)
	closeAll(f.conns)
	f.wg.Wait()
}

func upload(nc net.Conn) error {
	for {
		if _, err := nc.Write(zeros[:]); err != nil {
			return err
		}
	}
}

func reports(nc net.Conn, count *atomic.Uint64) error {
	var b [8]byte
	for {
		if _, err := io.ReadFull(nc, b[:]); err != nil {
			return err
		}
		count.Store(binary.BigEndian.Uint64(b[:]))
	}
}

func download(nc net.Conn, count *atomic.Uint64) error {
	buf := make([]byte, chunk)
	for {
		n, err := nc.Read(buf)
		count.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}
