package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// fill writes until the stream's whole window is full, to the last byte.
func fill(t testing.TB, st *Stream) (written int) {
	t.Helper()
	buf := make([]byte, maxData)
	eventually(t, "the window is full", func() bool {
		for {
			n := min(len(buf), st.win.available()-frameHeader)
			if n <= 0 {
				return written > maxWindow/2 // else the peer's first update is on its way
			}
			if _, err := st.Write(buf[:n]); err != nil {
				t.Fatalf("filling the window: %v", err)
			}
			written += n
		}
	})
	return written
}

// come waits until n bytes that nobody reads have come. Those that are still with the
// carrier when the grace is over need not be read.
func come(t testing.TB, st *Stream, n int) {
	t.Helper()
	eventually(t, "all has come", func() bool { return st.win.stored() >= int64(n) })
}

// blocked returns the outcome of a Write that must wait for window.
func blocked(t testing.TB, st *Stream) <-chan error {
	t.Helper()
	return async(func() error {
		_, err := st.Write(make([]byte, 32<<10))
		return err
	})
}

// TestAbortWindowFull aborts a stream on which neither side can send in order
// behind the data: the peer, which does not read, is freed by ABORT.
func TestAbortWindowFull(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	fill(t, c)
	fill(t, s)
	mine, theirs := blocked(t, c), blocked(t, s)
	_ = c.Reset(code.ClientReset)
	wantReset(t, await(t, mine, "the aborting side's Write"), code.ClientReset, false)
	wantReset(t, await(t, theirs, "the peer's Write"), code.ClientReset, true)
	_, err := c.Read(make([]byte, 1))
	wantReset(t, err, code.ClientReset, false)
	p.forgotten(t)
}

// TestAbortAfterData: a peer that reads gets everything written before the
// RST, though ABORT is there long before.
func TestAbortAfterData(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	want := fill(t, c)
	come(t, s, want)
	_ = c.Reset(code.ClientReset)
	got, err := io.Copy(io.Discard, struct{ io.Reader }{s})
	if got != int64(want) {
		t.Errorf("got %d bytes before the reset, want %d", got, want)
	}
	wantReset(t, err, code.ClientReset, true)
	_, err = s.Write([]byte("x"))
	wantReset(t, err, code.ClientReset, true)
	p.forgotten(t)
}

// TestReadAfterGrace: the grace frees writers; bytes that are there can still
// be read, and the RST behind them.
func TestReadAfterGrace(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	want := fill(t, c)
	come(t, s, want)
	_ = c.Reset(code.ClientReset)
	await(t, s.gone, "the end of the grace")
	got, err := io.Copy(io.Discard, struct{ io.Reader }{s})
	if got != int64(want) {
		t.Errorf("got %d bytes, want %d", got, want)
	}
	wantReset(t, err, code.ClientReset, true)
}

// TestAbortBeforeAPause: an ABORT that has come before the carrier lost its path
// does not end a stream whose reader waits for what the next path brings. It does
// in the end, should that never come.
func TestAbortBeforeAPause(t *testing.T) {
	for _, comes := range []bool{true, false} {
		t.Run(fmt.Sprint(comes), func(t *testing.T) {
			t.Parallel()
			r := rawServerSide(t)
			r.client.cfg.Patience = patience
			if !comes {
				r.client.cfg.Patience = 5 * abortGrace / 2
			}
			st := r.open(t)
			r.write(t, appendFrame(nil, frameOpened))
			var got []byte
			reader := async(func() (err error) {
				got, err = io.ReadAll(st)
				return err
			})
			start := time.Now()
			if _, err := r.control.Write(appendAbort(nil, st.id, code.TargetReset)); err != nil {
				t.Fatal(err)
			}
			want := ""
			if comes {
				time.Sleep(3 * abortGrace / 2) // the pause
				want = "the last words"
				r.write(t, appendRst(appendFrame(nil, frameData, []byte(want)...), code.TargetReset))
			}
			err := await(t, reader, "the reader")
			took := time.Since(start)
			wantReset(t, err, code.TargetReset, true)
			if string(got) != want {
				t.Errorf("got %q before the reset, want %q", got, want)
			}
			if !comes && took < 2*abortGrace {
				t.Errorf("a stream of which nothing came ended after %v", took)
			}
		})
	}
}

// TestAbortAfterFin: where nobody reads on to the RST there is nothing to wait for. A
// busy machine may take as long as the grace all the same, though not each time.
func TestAbortAfterFin(t *testing.T) {
	p := newPair(t, Config{})
	for range 5 {
		c, s := p.open(t)
		_ = c.CloseWrite()
		if _, err := io.ReadAll(s); err != nil {
			t.Fatal(err)
		}
		fill(t, s)
		writer := blocked(t, s)
		start := time.Now()
		_ = c.Reset(code.ClientReset)
		wantReset(t, await(t, writer, "the writer"), code.ClientReset, true)
		if time.Since(start) < abortGrace {
			return
		}
	}
	t.Errorf("never freed before the grace of %v was over", abortGrace)
}

// TestOnEnd: whoever copies is told of an end that it cannot see, since it waits
// for its other side; not before what had come is read, while it is being read.
func TestOnEnd(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(t *testing.T, p *pair, c, s *Stream) // what has come, and is not read
		end    func(p *pair, c, s *Stream)
		want   func(t *testing.T, err error)
		least  time.Duration
	}{
		{
			"reset here, full", func(t *testing.T, _ *pair, c, _ *Stream) { fill(t, c) }, func(_ *pair, _, s *Stream) { _ = s.Reset(code.StreamDenied) },
			func(t *testing.T, err error) { wantReset(t, err, code.StreamDenied, false) }, 0,
		},
		{
			"reset there, full", func(t *testing.T, _ *pair, c, _ *Stream) { fill(t, c) }, func(_ *pair, c, _ *Stream) { _ = c.Reset(code.ClientReset) },
			func(t *testing.T, err error) { wantReset(t, err, code.ClientReset, true) }, abortGrace + stallTime,
		},
		{
			"reset there, after its end", func(t *testing.T, _ *pair, c, s *Stream) {
				_ = c.CloseWrite()
				if _, err := io.ReadAll(s); err != nil {
					t.Fatal(err)
				}
			}, func(_ *pair, c, _ *Stream) { _ = c.Reset(code.ClientReset) },
			func(t *testing.T, err error) { wantReset(t, err, code.ClientReset, true) }, 0,
		},
		{
			"lost, full", func(t *testing.T, _ *pair, c, _ *Stream) { fill(t, c) }, func(p *pair, _, _ *Stream) { p.client.Close(code.OK, "") },
			wantLossOf, stallTime,
		},
		{"lost before", func(t *testing.T, p *pair, _, s *Stream) {
			p.client.Close(code.OK, "")
			await(t, s.gone, "the stream's end")
		}, func(*pair, *Stream, *Stream) {}, wantLossOf, stallTime},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, Config{})
			c, s := p.open(t)
			tc.before(t, p, c, s)
			told := make(chan error, 2)
			start := time.Now()
			s.OnEnd(func(err error) { told <- err })
			tc.end(p, c, s)
			tc.want(t, await(t, told, "the call"))
			if took := time.Since(start); took < tc.least {
				t.Errorf("told after %v, want at least %v: it could still be read", took, tc.least)
			}
			_ = s.Reset(code.Aborted)
			if len(told) > 0 {
				t.Errorf("told twice, of %v too", <-told)
			}
		})
	}
}

// wantLossOf is wantLoss as a func of a test's table.
func wantLossOf(t *testing.T, err error) { wantLoss(t, err) }

// TestOnEndWaitsForAReader: all that had come is read, however long that takes,
// before the copy is told that there was an end.
func TestOnEndWaitsForAReader(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	fill(t, c)
	told := make(chan error, 1)
	s.OnEnd(func(err error) { told <- err })
	_ = c.Reset(code.ClientReset)
	await(t, s.gone, "the end of the grace")
	for end := time.Now().Add(2 * stallTime); time.Now().Before(end); {
		if _, err := io.ReadFull(s, make([]byte, 1000)); err != nil {
			t.Fatalf("reading on: %v", err)
		}
		select {
		case err := <-told:
			t.Fatalf("told of %v while somebody reads", err)
		case <-time.After(stallTime / 100): // in which the process may stand still
		}
	}
	wantReset(t, await(t, told, "the call, once nobody reads"), code.ClientReset, true)
}

// TestOnEndOfCleanEnds: an end that is none of these is not told of, nor is one
// that nobody wants to hear of any more.
func TestOnEndOfCleanEnds(t *testing.T) {
	p := newPair(t, Config{})
	told := make(chan error, 1)
	c, s := p.open(t)
	s.OnEnd(func(err error) { told <- err })
	_ = c.Close()
	if _, err := io.ReadAll(s); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	c, s = p.open(t)
	s.OnEnd(func(err error) { told <- err })
	s.OnEnd(nil)
	_ = s.Reset(code.Aborted)
	_ = c.Reset(code.Aborted)
	p.forgotten(t)
	if len(told) > 0 {
		t.Errorf("told of %v", <-told)
	}
}

// TestReaderGone: the reader ends while the writer waits for its window.
func TestReaderGone(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(*Stream)
		code code.Code
	}{
		"Close":           {func(st *Stream) { _ = st.Close() }, code.Aborted},
		"Reset":           {func(st *Stream) { _ = st.Reset(code.TargetReset) }, code.TargetReset},
		"CloseWriteClose": {func(st *Stream) { _, _ = st.CloseWrite(), st.Close() }, code.Aborted},
		"AbortNil":        {func(st *Stream) { st.Abort(nil) }, code.Aborted},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, Config{})
			c, s := p.open(t)
			fill(t, s)
			writer, reader := blocked(t, s), async(func() error {
				_, err := c.Read(make([]byte, 8<<20))
				for err == nil {
					_, err = c.Read(make([]byte, 8<<20))
				}
				return err
			})
			end.do(c)
			err := await(t, writer, "the writer")
			wantReset(t, err, end.code, true)
			if err := await(t, reader, "the reader on the ending side"); err == nil || err == io.EOF {
				t.Errorf("Read on the ended side: got %v", err)
			}
			_ = s.Close()
			p.forgotten(t)
		})
	}
}

// TestCloseAtOnce: what an opener wrote before Close arrives, though its STOP
// may be there before the stream is accepted.
func TestCloseAtOnce(t *testing.T) {
	p := newPair(t, Config{})
	for range 50 {
		c := p.request(t)
		if _, err := c.Write([]byte("good bye")); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		r := p.accept(t)
		eventually(t, "STOP is there", func() bool { return isClosed(r.st.noWrite) })
		s, err := r.Accept()
		if err != nil {
			t.Fatalf("Accept: %v", err)
		}
		if got, err := io.ReadAll(s); err != nil || string(got) != "good bye" {
			t.Fatalf("got %q, %v, want what was written and a clean end", got, err)
		}
		_, err = s.Write([]byte("x"))
		wantReset(t, err, code.Aborted, true)
		if err := s.CloseWrite(); err != nil {
			t.Fatalf("CloseWrite to a peer that reads no more: %v", err)
		}
		_ = s.Close()
	}
	p.forgotten(t)
}

// TestEarlyControl: STOP and ABORT that overtake the session's own accepting of
// the stream, which must write to the carrier, are not lost.
func TestEarlyControl(t *testing.T) {
	a, b := plainPair(t)
	v := newValve(b)
	p := startPair(t, a, v, Config{}, Config{})
	_, busy := p.open(t)
	v.shut()
	wrote := async(func() error {
		_, err := busy.Write([]byte("x"))
		return err
	})
	eventually(t, "the carrier is stuck", v.holds)
	var requests []*Stream
	for range 3 {
		requests = append(requests, p.request(t))
	}
	_ = requests[1].Close()
	_ = requests[2].Reset(code.ClientReset)
	eventually(t, "STOP and ABORT are there", func() bool {
		p.server.mu.Lock()
		defer p.server.mu.Unlock()
		stop := p.server.adapter.windows.get(requests[1].ID())
		abort := p.server.adapter.windows.get(requests[2].ID())
		return stop != nil && abort != nil && stop.early.stopped && abort.early.aborted
	})
	v.release()
	var stopped, aborted *Stream
	eventually(t, "the session has both streams", func() bool {
		p.server.mu.Lock()
		defer p.server.mu.Unlock()
		stopped, aborted = p.server.streams[requests[1].ID()], p.server.streams[requests[2].ID()]
		return stopped != nil && aborted != nil
	})
	await(t, stopped.noWrite, "STOP's effect")
	await(t, aborted.gone, "ABORT's effect")
	if err := await(t, wrote, "the write"); err != nil {
		t.Error(err)
	}
}

func TestRefuse(t *testing.T) {
	p := newPair(t, Config{})
	c := p.request(t)
	fill(t, c)
	writer := blocked(t, c)
	reader := async(func() error { return c.Answered(context.Background()) })
	p.accept(t).Refuse(code.StreamDenied, "not \x1b[31myou")
	for _, ch := range []<-chan error{reader, writer} {
		err := await(t, ch, "the refusal")
		var re *RefusedError
		if !errors.As(err, &re) || *re != (RefusedError{code.StreamDenied, "not ?[31myou"}) {
			t.Errorf("got %v (%T), want the refusal", err, err)
		}
	}
	p.forgotten(t)

	c = p.request(t)
	p.accept(t).Refuse(code.OK, "")
	if err := c.Answered(soon(t)); CodeOf(err) != code.Aborted {
		t.Errorf("refused with OK: got %v, want aborted", err)
	}
	p.forgotten(t)
}

// TestResetOK: no peer can make an abort look like a clean end.
func TestResetOK(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	_ = c.Reset(code.OK)
	_, err := s.Read(make([]byte, 1))
	wantReset(t, err, code.Aborted, true)

	r := rawServerSide(t)
	st := r.open(t)
	r.write(t, appendRst(appendFrame(nil, frameOpened), code.OK))
	_, err = st.Read(make([]byte, 1))
	wantReset(t, err, code.Aborted, true)
}

// TestEndWithoutFin: the mux's own end of a stream is no clean one.
func TestEndWithoutFin(t *testing.T) {
	r := rawServerSide(t)
	st := r.open(t)
	r.write(t, appendFrame(appendFrame(nil, frameOpened), frameData, 'a', 'b'))
	_ = r.stream.Close()
	got, err := io.ReadAll(st)
	if string(got) != "ab" {
		t.Errorf("got %q, want %q", got, "ab")
	}
	wantReset(t, err, code.Aborted, true)
}

// TestDeadlineBesideClose: moving a deadline while Close frees a Read must not
// make it wait again.
func TestDeadlineBesideClose(t *testing.T) {
	p := newPair(t, Config{})
	for range 100 {
		c, s := p.open(t)
		reader := async(func() error {
			_, err := c.Read(make([]byte, 1))
			return err
		})
		var movers sync.WaitGroup
		for range 4 {
			movers.Go(func() {
				for c.SetReadDeadline(time.Now().Add(time.Hour)) == nil {
				}
			})
		}
		_ = c.Close()
		if err := await(t, reader, "the Read"); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("Read: got %v, want net.ErrClosed", err)
		}
		movers.Wait()
		_ = s.Close()
	}
	p.forgotten(t)
}

// TestEveryEndIsForgotten ends 1,000 streams in every way there is.
func TestEveryEndIsForgotten(t *testing.T) {
	p := newPair(t, Config{Patience: time.Minute})
	ends := []func(a, b *Stream){
		func(a, b *Stream) { _, _ = a.Close(), b.Close() },
		func(a, b *Stream) { _ = a.Reset(code.ClientReset) },
		func(a, b *Stream) { _, _ = a.Reset(code.ClientReset), b.Reset(code.TargetReset) },
		func(a, b *Stream) { _, _ = a.CloseWrite(), b.CloseWrite(); _, _ = b.Close(), a.Close() },
		func(a, b *Stream) { _, _ = a.Write(bytes.Repeat([]byte("x"), 100<<10)); _ = a.Reset(code.Internal) },
		func(a, b *Stream) { _, _ = a.Write([]byte("x")); _, _ = a.Close(), b.Reset(code.TargetReset) },
		func(a, b *Stream) { _ = a.Close(); _, _ = io.ReadAll(b); _ = b.Close() },
		func(a, b *Stream) { a.Abort(io.ErrUnexpectedEOF) },
	}
	for i := range 1000 {
		switch end := i % (len(ends) + 2); end {
		case len(ends): // refused
			st := p.request(t)
			p.acceptSkip(t, st).Refuse(code.ServiceUnknown, "")
			_ = st.Answered(soon(t))
		case len(ends) + 1: // given up before the answer
			st := p.request(t)
			_ = st.Reset(code.ClientReset)
		default:
			a, b := p.openSkip(t)
			if i%4 >= 2 {
				a, b = b, a
			}
			ends[end](a, b)
		}
	}
	p.dropRequests(t)
	p.forgotten(t)
}

// openSkip opens a stream past requests that were given up.
func (p *pair) openSkip(t *testing.T) (client, server *Stream) {
	t.Helper()
	client = p.request(t)
	server, err := p.acceptSkip(t, client).Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// acceptSkip returns the request of a stream, past those that were given up.
func (p *pair) acceptSkip(t *testing.T, client *Stream) *Request {
	t.Helper()
	for {
		r := p.accept(t)
		if r.StreamID() == client.ID() {
			return r
		}
		r.Refuse(code.Aborted, "")
	}
}

// dropRequests refuses what waits to be accepted.
func (p *pair) dropRequests(t *testing.T) {
	t.Helper()
	eventually(t, "no request is left", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		if r, err := p.server.Accept(ctx); err == nil {
			r.Refuse(code.Aborted, "")
		}
		return p.server.Streams() == 0
	})
}
