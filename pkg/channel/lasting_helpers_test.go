package channel

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/code"
)

// A lab is a caller and a table with paths between them that can be cut.
type lab struct {
	t      testing.TB
	caller *Caller
	table  *Table
	opened chan *Channel // at the table
	pair   func(testing.TB) (net.Conn, net.Conn)

	mu     sync.Mutex
	wrap   func(route int, a, b net.Conn) (net.Conn, net.Conn) // nil: as they are
	local  *Local                                              // the responder
	paths  []*labPath
	refuse func(route int) error // of the next paths; nil: none
	before func(route int)       // called before a path's handshake begins
	answer func(*Incoming)       // in the table's place; nil: the table

	serving sync.WaitGroup
}

// A labPath is one path between caller and table.
type labPath struct {
	route int
	a, b  net.Conn
}

// cut resets both ends.
func (p *labPath) cut() {
	_ = sock.ResetClose(p.a)
	_ = sock.ResetClose(p.b)
}

func newLab(t testing.TB, routes int, set Settings, timing Timing, limits Limits) *lab {
	t.Helper()
	return newLabOn(t, tcpPair, routes, set, timing, limits)
}

func newLabOn(t testing.TB, pair func(testing.TB) (net.Conn, net.Conn), routes int, set Settings, timing Timing, limits Limits) *lab {
	l := &lab{t: t, opened: make(chan *Channel, 16), pair: pair}
	l.local = newLocal(t)
	l.table = NewTable(set, limits)
	l.caller = &Caller{
		Local: newLocal(t), Peer: l.local.Identifier(), Routes: routes, Settings: set, Timing: timing,
		Path: func(ctx context.Context, route int, _ *Instance, address int) (net.Conn, error) {
			if address > 0 {
				return nil, ErrNoAddress
			}
			return l.path(ctx, route)
		},
	}
	t.Cleanup(func() {
		l.cutAll()
		l.serving.Wait()
	})
	return l
}

// path makes a path whose far end the table serves.
func (l *lab) path(ctx context.Context, route int) (net.Conn, error) {
	l.mu.Lock()
	refuse, before, wrap := l.refuse, l.before, l.wrap
	local, table, answer := l.local, l.table, l.answer
	l.mu.Unlock()
	if refuse != nil {
		if err := refuse(route); err != nil {
			return nil, err
		}
	}
	if before != nil {
		before(route)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	a, b := l.pair(l.t)
	if wrap != nil {
		a, b = wrap(route, a, b)
	}
	l.mu.Lock()
	l.paths = append(l.paths, &labPath{route: route, a: a, b: b})
	l.mu.Unlock()
	l.serving.Go(func() { l.serve(b, local, table, answer) })
	return a, nil
}

func (l *lab) serve(nc net.Conn, local *Local, table *Table, answer func(*Incoming)) {
	in, err := Respond(context.Background(), nc, local, PurposeChannel, table.set.Handshake)
	switch {
	case err != nil:
		return
	case answer != nil:
		answer(in)
		return
	}
	if in.Resumes() {
		_, _ = table.Resume(in, "lab")
		return
	}
	c, err := table.Open(in, "lab")
	if err == nil {
		l.opened <- c
	}
}

// restart puts another process of the same identity in the responder's place.
func (l *lab) restart(name string) {
	local, err := NewLocalWith(l.local.id, LocalConfig{Name: name})
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.local, l.table = local, NewTable(l.table.set, l.table.limits)
}

// refuseRoutes makes the next paths fail where refuse says so.
func (l *lab) refuseRoutes(refuse func(route int) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

var errNoRoute = errors.New("lab: no route")

func noRoutes(int) error { return errNoRoute }

func (l *lab) cutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.paths {
		p.cut()
	}
	l.paths = nil
}

// open returns both ends of a new channel, each with its Run.
func (l *lab) open() (x, y *Channel) {
	l.t.Helper()
	x, y, err := l.dial()
	if err != nil {
		l.t.Fatalf("Dial: %v", err)
	}
	l.run(x)
	l.run(y)
	return x, y
}

// dial returns both ends of a new channel. Where a lab has short times for handshakes, a
// slow machine may need several.
func (l *lab) dial() (x, y *Channel, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		x, err = l.caller.Dial(ctx, 0)
		if err == nil {
			break
		}
		if ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, nil, err
		}
	}
	for y = <-l.opened; y.id != x.id; y = <-l.opened {
		y.Fail(code.Aborted, errors.New("the caller has given it up"))
	}
	return x, y, nil
}

// run calls c's Run until the end of the test.
func (l *lab) run(c *Channel) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	l.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// closeChannels closes both ends at once and wants no error.
func closeChannels(t testing.TB, x, y *Channel) {
	t.Helper()
	errs := make(chan error, 2)
	go func() { errs <- x.Close() }()
	go func() { errs <- y.Close() }()
	for range 2 {
		if err := <-errs; err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
