package tunnel

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// looked looks, waits until the peer has answered if it is asked, and returns for how
// long nothing has moved for all that is known then.
func looked(t testing.TB, w *IdleWatch) time.Duration {
	t.Helper()
	w.Look()
	eventually(t, "the peer has answered", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.asked.IsZero()
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.quiet.Sub(w.moved)
}

// lastMoved returns when the watch has seen something move last.
func (w *IdleWatch) lastMoved() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moved
}

// still has the watch see that nothing moves any more, at either end.
func still(t testing.TB, w *IdleWatch) {
	t.Helper()
	eventually(t, "nothing moves", func() bool { return looked(t, w) > 0 })
}

// What moves at either end, in either direction, is seen at both; and what does not
// is not.
func TestIdleWatch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, c, s *Stream)
		move   func(t *testing.T, c, s *Stream)
	}{
		{"written here", nil, func(t *testing.T, c, _ *Stream) {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}},
		{"read here", func(t *testing.T, c, s *Stream) {
			if _, err := s.Write(make([]byte, 2)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it has come", func() bool { return c.win.stored() > 0 })
		}, func(t *testing.T, c, _ *Stream) {
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}},
		{"come here", nil, func(t *testing.T, c, s *Stream) {
			if _, err := s.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}},
		// The mux of a peer that reads says nothing before it has read megabytes.
		{"read there, full", func(t *testing.T, c, _ *Stream) { fill(t, c) }, func(t *testing.T, _, s *Stream) {
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}},
		{"read there, sent long ago", func(t *testing.T, c, _ *Stream) {
			if _, err := c.Write(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, _, s *Stream) {
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, Config{})
			c, s := p.open(t)
			if err := c.Answered(soon(t)); err != nil {
				t.Fatal(err)
			}
			if tt.before != nil {
				tt.before(t, c, s)
			}
			w := c.WatchIdle()
			still(t, w)
			for range 3 {
				before := w.lastMoved()
				quiet := looked(t, w)
				if again := looked(t, w); again < quiet || !w.lastMoved().Equal(before) {
					t.Fatalf("nothing has moved, for %v and then for %v", quiet, again)
				}
			}
			before := w.lastMoved()
			tt.move(t, c, s)
			eventually(t, "it is seen", func() bool {
				looked(t, w)
				return w.lastMoved().After(before)
			})
			still(t, w)
			_ = s.Reset(code.Aborted)
		})
	}
}

// A writer that takes nothing and whose bytes move on counts as moving, and so does one
// that waits for its rate; at the other end, too.
func TestIdleWatchAsksTheWriter(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	slow := newSlowWriter()
	defer slow.release()
	s.Deliver(slow, func(int64, error) {})
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-slow.entered
	for _, w := range []*IdleWatch{c.WatchIdle(), s.WatchIdle()} {
		still(t, w)
		before := w.lastMoved()
		slow.moved.Add(1)
		eventually(t, "it is seen", func() bool {
			looked(t, w)
			return w.lastMoved().After(before)
		})
		still(t, w)
	}
}

// A slowWriter takes nothing until it is released, and what moves meanwhile is what the
// test says.
type slowWriter struct {
	moved   atomic.Uint64
	entered chan struct{} // receives when a Write has begun
	wait    chan struct{}
	over    atomic.Bool
}

func newSlowWriter() *slowWriter {
	return &slowWriter{entered: make(chan struct{}, 100), wait: make(chan struct{})}
}

func (w *slowWriter) Moved() uint64 { return w.moved.Load() }

func (w *slowWriter) Write(b []byte) (int, error) {
	select {
	case w.entered <- struct{}{}:
	default:
	}
	<-w.wait
	return len(b), nil
}

func (w *slowWriter) release() {
	if w.over.CompareAndSwap(false, true) {
		close(w.wait)
	}
}

// Data that waits for the carrier is not idle, however long that is stuck.
func TestIdleWatchOfAStuckCarrier(t *testing.T) {
	a, b := plainPair(t)
	v := newValve(a)
	p := startPair(t, v, b, Config{}, Config{})
	c, _ := p.open(t)
	w := c.WatchIdle()
	still(t, w)
	v.shut()
	wrote := async(func() error {
		_, err := c.Write([]byte("x"))
		return err
	})
	eventually(t, "the carrier is stuck", v.holds)
	for range 10 {
		if quiet := w.Look(); quiet != 0 {
			t.Fatalf("idle for %v while data waits", quiet)
		}
	}
	v.release()
	if err := await(t, wrote, "the write"); err != nil {
		t.Error(err)
	}
	still(t, w)
}

// movedHere reports whether something has moved at this end since the last look.
func (w *IdleWatch) movedHere() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.movedHereLocked()
}

// aged has the watch take all that it knows to be so much longer ago.
func (w *IdleWatch) aged(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved, w.quiet = w.moved.Add(-d), w.quiet.Add(-d)
	if !w.asked.IsZero() {
		w.asked = w.asked.Add(-d)
	}
}

// The word of a peer that answers is waited for; one that never does is idle when this
// end is, once it had the session's patience.
func TestIdleWatchUnanswered(t *testing.T) {
	const patience, moment = time.Hour, time.Minute // of which this test waits for nothing
	r := rawServerSide(t)
	r.client.cfg.Patience = patience
	watch := func() *IdleWatch {
		w := r.open(t).WatchIdle()
		eventually(t, "nothing is in its turn", func() bool { return !w.movedHere() })
		return w
	}
	first, second := watch(), watch()
	first.Look()
	readFrame(t, r.control, controlProbe)
	first.aged(patience - moment)
	if quiet := first.Look(); quiet > 0 {
		t.Errorf("idle for %v, and the peer has not answered yet", quiet)
	}
	first.aged(moment)
	if quiet := first.Look(); quiet < patience {
		t.Errorf("idle for %v, and the peer has not answered for %v", quiet, patience)
	}
	second.aged(moment)
	if quiet := second.Look(); quiet < moment {
		t.Errorf("idle for %v: a peer that does not answer is asked again", quiet)
	}
	// It does, after all.
	if _, err := r.control.Write(appendProgress(nil, first.st.id, 7)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its answer counts", func() bool { return !r.client.isMute() })
	third := watch()
	third.Look()
	third.aged(patience - moment)
	if quiet := third.Look(); quiet > 0 {
		t.Errorf("idle for %v, and the peer that answers was not waited for", quiet)
	}
}

// A peer is told of a stream that it alone has that nothing moves, and a number that
// nobody has asked for says nothing.
func TestProbeOfNoStream(t *testing.T) {
	r := rawServerSide(t)
	st := r.open(t)
	w := st.WatchIdle()
	began := w.lastMoved()
	frames := appendProgress(appendProgress(nil, st.id, 5), 4711, 6)
	if _, err := r.control.Write(appendProbe(frames, 4711)); err != nil {
		t.Fatal(err)
	}
	id, moved, err := parseProgress(readFrame(t, r.control, controlProgress))
	if id != 4711 || moved != 0 || err != nil {
		t.Errorf("PROGRESS of stream %d with %d, %v, want 4711 with 0", id, moved, err)
	}
	if !w.lastMoved().Equal(began) {
		t.Error("what nobody has asked for counts")
	}
}

// What had come before the loss of the session is handed on for as long as it moves,
// though the writer takes nothing for longer than a stall may last.
func TestOnEndAsksTheWriter(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	slow := newSlowWriter()
	defer slow.release()
	delivered := make(chan error, 1)
	s.Deliver(slow, func(_ int64, err error) { delivered <- err })
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	<-slow.entered
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "more has come", func() bool { return s.win.stored() > 0 })
	told := make(chan error, 1)
	s.OnEnd(func(err error) { told <- err })
	p.client.Close(code.OK, "")
	await(t, s.gone, "the stream's end")
	for end := time.Now().Add(3 * stallTime); time.Now().Before(end); time.Sleep(stallTime / 100) {
		slow.moved.Add(1)
		select {
		case err := <-told:
			t.Fatalf("told of %v while it moves", err)
		default:
		}
	}
	wantLoss(t, await(t, told, "the call, once nothing moves"))
	slow.release()
	wantLoss(t, await(t, delivered, "the end of what had come"))
}

// A process that stood still takes nobody for stalled who could not run either: it looks
// once more, and not for ever.
func TestOnEndOfWhoStoodStill(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	come(t, s, 1)
	p.client.Close(code.OK, "")
	await(t, s.gone, "the stream's end")
	told := make(chan error, 2)
	s.OnEnd(func(err error) { told <- err })
	before := endLook{moved: s.moved(), due: time.Now().Add(-3 * stallTime), patient: true}
	s.tellEnd(&before)
	select {
	case err := <-told:
		t.Fatalf("told of %v, and nobody could have read", err)
	default:
	}
	before.patient = false
	s.tellEnd(&before)
	select {
	case err := <-told:
		wantLoss(t, err)
	default:
		t.Error("late again, and not told")
	}
}

// An end behind that of both directions is no news, and nobody's loss.
func TestOnEndAfterBothEnds(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	told := make(chan error, 1)
	s.OnEnd(func(err error) { told <- err })
	for _, st := range []*Stream{c, s} {
		if err := st.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadAll(s); err != nil {
		t.Fatal(err)
	}
	p.client.Close(code.Shutdown, "")
	await(t, s.gone, "the stream's end")
	if len(told) > 0 {
		t.Errorf("told of %v", <-told)
	}
}

// A writer that is kept to a rate gets no more at a time than it takes without a pause,
// and no pause begins before there is something to write.
func TestWriteToPauser(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	k := &pausingSink{t: t, st: s, most: 700}
	done := deliver(s, k)
	if _, err := c.Write(make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all has come", func() bool { return k.len() == 5000 })
	if n := k.pauses.Load(); n != 8 {
		t.Errorf("%d pauses, want one before each of 8 pieces", n)
	}
	_ = c.CloseWrite()
	if got := await(t, done, "the end"); got != (delivered{5000, nil}) {
		t.Errorf("got %+v", got)
	}
	if n := k.pauses.Load(); n != 8 {
		t.Errorf("%d pauses, the last before the end", n)
	}
}

// A pausingSink is a sink that is kept to a rate.
type pausingSink struct {
	sink
	t      *testing.T
	st     *Stream
	most   int
	pauses atomic.Int32
}

func (k *pausingSink) Pause() (int, error) {
	k.pauses.Add(1)
	if k.st.win.drained() {
		k.t.Error("a pause, and nothing to write")
	}
	return k.most, nil
}

func (k *pausingSink) Write(b []byte) (int, error) {
	if len(b) > k.most {
		k.t.Errorf("%d bytes at a time, want %d at most", len(b), k.most)
	}
	return k.sink.Write(b)
}
