package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// idleConns is how many connections memory is measured with, and idleBytes how
// much each moves before, both ways together.
const (
	idleConns = 5000
	idleBytes = 1 << 20
)

func idleCase(w Windows) *Case {
	return &Case{
		Name:    "memory-idle",
		What:    fmt.Sprintf("memory of %d connections, %v after each has moved 1 MB", idleConns, w.Idle),
		Main:    Memory,
		Metrics: []Metric{Memory, MemoryBase},
		Once:    true,
		conns:   idleConns,
		run: func(ctx context.Context, p *Path) (Figures, error) {
			return idle(ctx, p, idleConns, w)
		},
	}
}

// idle measures what n connections that rest take. Memory without them is read
// before, after a single connection has shown that the path works.
func idle(ctx context.Context, p *Path, n int, w Windows) (Figures, error) {
	if err := visit(ctx, p); err != nil {
		return nil, err
	}
	base, ok := p.resident()
	if !ok {
		return nil, errors.New("the path's processes are not known")
	}
	conns, err := dialMany(ctx, p, opEcho, n)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	err = each(ctx, n, 16, func(i int) error { return exchange(conns[i], idleBytes/2) })
	if err != nil {
		return nil, fmt.Errorf("moving bytes: %w", err)
	}
	pause(ctx, w.Idle)
	full, ok := p.resident()
	if !ok {
		return nil, errors.New("the path's processes have ended")
	}
	// All of them are still there.
	bound(conns, w)
	if err := each(ctx, n, 16, func(i int) error { return request(conns[i]) }); err != nil {
		return nil, fmt.Errorf("after the rest: %w", err)
	}
	return Figures{Memory: float64(full-base) / float64(n) / 1e3, MemoryBase: float64(base) / 1e6}, context.Cause(ctx)
}

// exchange sends n bytes to an echo and reads them back, in pieces that no
// path's buffers are too small for.
func exchange(nc interface {
	io.ReadWriter
	SetDeadline(t time.Time) error
}, n int,
) error {
	buf := make([]byte, 16<<10)
	for ; n > 0; n -= len(buf) {
		if err := nc.SetDeadline(time.Now().Add(stallTime)); err != nil {
			return err
		}
		if _, err := nc.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(nc, buf); err != nil {
			return err
		}
	}
	return nc.SetDeadline(time.Time{})
}
