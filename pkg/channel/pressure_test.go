package channel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// writeUntilBlocked writes in the background and returns how much was accepted
// by the time that nothing moves any more. The bubble's clock stands still.
func writeUntilBlocked(t *testing.T, c *Channel) int {
	t.Helper()
	go func() { _, _ = io.Copy(onlyWriter{c}, zeros{}) }()
	synctest.Wait()
	return int(c.State().Sent)
}

// TestProgramThatNeverReads carries bulk one way while the receiver of the
// other way's never reads: the bulk arrives, and what is held is the window.
func TestProgramThatNeverReads(t *testing.T) {
	const window = 1 << 20
	for _, side := range []string{"initiator", "responder"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 1, Settings{Window: window}, Timing{}, Limits{})
			x, y := l.open()
			if side == "responder" {
				x, y = y, x
			}
			// y sends without an end; x never reads.
			blocked := make(chan error, 1)
			go func() {
				_, err := io.Copy(onlyWriter{y}, zeros{})
				blocked <- err
			}()
			if s := transfer(t, x, y, 32<<20); s[0] != s[1] {
				t.Error("what arrived is not what was sent")
			}
			waitState(t, x, "a full window is held, and no more", func(s State) bool {
				return s.Received == window && s.Kept <= window+chunkSize
			})
			if s := y.State(); s.Sent > window {
				t.Errorf("the peer has accepted %d bytes, the window has %d", s.Sent, window)
			}
			// Through another path too.
			l.cutAll()
			if s := transfer(t, x, y, 4<<20); s[0] != s[1] {
				t.Error("what arrived over the next path is not what was sent")
			}
			go func() { _ = x.Close() }()
			if err := <-blocked; err == nil {
				t.Error("Write = nil after the peer has closed")
			}
			_ = y.Close()
		})
	}
}

type onlyWriter struct{ io.Writer }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// waitState waits for what no event announces.
func waitState(t testing.TB, c *Channel, what string, cond func(State) bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(c.State()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s: %+v", what, c.State())
		}
	}
}

// TestDownWriteBlocks fills a channel that has no path: it accepts 256 KiB,
// holds no more than that, and goes on when there is a path.
func TestDownWriteBlocks(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		x, y := l.open()
		synctest.Wait()
		l.refuseRoutes(noRoutes)
		l.cutAll()
		for _, c := range []*Channel{x, y} {
			waitUp(t, c, false)
			if n := writeUntilBlocked(t, c); n > unsentMax || n < unsentMax-10_000 {
				t.Errorf("accepted %d bytes without a path, want %d", n, unsentMax)
			}
		}
		time.Sleep(30 * time.Second)
		for _, c := range []*Channel{x, y} {
			if s := c.State(); s.Sent != unsentMax || s.Kept > unsentMax+chunkSize {
				t.Errorf("after 30 s %d bytes are accepted and %d kept, want %d and a chunk more at most", s.Sent, s.Kept, unsentMax)
			}
		}
		l.refuseRoutes(nil)
		for _, c := range []*Channel{x, y} {
			if n, err := io.CopyN(io.Discard, c, 8<<20); err != nil {
				t.Errorf("read %d bytes of the other side's, %v", n, err)
			}
		}
		x.Fail(code.Internal, errors.New("end of the test"))
		y.Fail(code.Internal, errors.New("end of the test"))
	})
}

// inChunks is how much of a stream is held in so many bytes of memory.
func inChunks(memory int) int { return memory / chunkSize * RecordData }

// TestBudget shares a small budget among channels that nobody acknowledges:
// each may hold its floor, no more in all than the budget and that; a writer
// that waits for the budget goes on when another gives some back.
func TestBudget(t *testing.T) {
	const channels, limit = 4, 1 << 20
	set := Settings{Buffers: NewBuffers(limit), Window: 4 << 20}
	inBubble(t, 1, set, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		var xs, ys []*Channel
		for range channels {
			x, y := l.open()
			xs, ys = append(xs, x), append(ys, y)
		}
		knownFast(xs...)
		synctest.Wait()
		// The peers' programs do not read, and the path takes a window: all
		// that is written is kept until they do.
		total := 0
		for _, x := range xs {
			n := writeUntilBlocked(t, x)
			if total += n; n < inChunks(floorBytes) {
				t.Errorf("a channel may hold %d bytes, want its floor at least", n)
			}
		}
		kept := 0
		for _, x := range xs {
			kept += x.State().Kept
		}
		if kept > limit+channels*floorBytes {
			t.Errorf("%d bytes are kept, of a budget of %d and floors", kept, limit)
		}
		time.Sleep(time.Second)
		// One after the other is read, and moves; the budget is always used up.
		for i, y := range ys {
			if n, err := io.CopyN(io.Discard, y, 4<<20); err != nil {
				t.Errorf("channel %d: %d bytes, %v", i, n, err)
			}
		}
		// One ends: what it has held is for the others.
		xs[0].Fail(code.Internal, errors.New("end of the test"))
		ys[0].Fail(code.Internal, errors.New("end of the test"))
		if n, err := io.CopyN(io.Discard, ys[1], 4<<20); err != nil {
			t.Errorf("after one has ended: %d bytes, %v", n, err)
		}
		for _, c := range append(xs, ys...) {
			c.Fail(code.Internal, errors.New("end of the test"))
		}
		synctest.Wait()
		if used := set.Buffers.Used(); used != 0 {
			t.Errorf("%d bytes are held at the end", used)
		}
	})
}

// TestBudgetWakes lets a writer wait for the budget alone, with window and path
// to spare: it goes on when another channel gives some back.
func TestBudgetWakes(t *testing.T) {
	const limit = 1 << 20
	set := Settings{Buffers: NewBuffers(limit)}
	inBubble(t, 1, set, Timing{}, func(t *testing.T, l *lab, _ *diary) {
		x1, y1 := l.open()
		x2, y2 := l.open()
		knownFast(x1, x2)
		if n := writeUntilBlocked(t, x1); n != inChunks(limit) {
			t.Errorf("accepted %d bytes, want the budget of %d", n, inChunks(limit))
		}
		if n := writeUntilBlocked(t, x2); n != inChunks(floorBytes) {
			t.Errorf("accepted %d bytes of a budget that is used up, want the floor of %d", n, inChunks(floorBytes))
		}
		x1.Fail(code.Internal, errors.New("end of the test"))
		synctest.Wait()
		if n := x2.State().Sent; n != uint64(inChunks(limit)) {
			t.Errorf("accepted %d bytes once the budget was free, want %d", n, inChunks(limit))
		}
		for _, c := range []*Channel{y1, x2, y2} {
			c.Fail(code.Internal, errors.New("end of the test"))
		}
		synctest.Wait()
		if used := set.Buffers.Used(); used != 0 {
			t.Errorf("%d bytes are held at the end", used)
		}
	})
}

// TestRunEndsWithItsContext frees a Write that waits, by Run's context.
func TestRunEndsWithItsContext(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, err := l.caller.Dial(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	y := <-l.opened
	l.run(y)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- x.Run(ctx) }()
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(onlyWriter{x}, zeros{})
		wrote <- err
	}()
	waitState(t, x, "Write waits", func(s State) bool { return s.Sent == maxWindow })
	cancel()
	var lost *LostError
	if err := <-ran; !errors.As(err, &lost) || lost.Code != code.Shutdown {
		t.Errorf("Run = %v, want a LostError of shutdown", err)
	}
	if err := <-wrote; !errors.As(err, &lost) {
		t.Errorf("Write = %v, want a LostError", err)
	}
	if err := x.Close(); !errors.As(err, &lost) {
		t.Errorf("Close = %v, want a LostError", err)
	}
}

// TestDetachedShareOfTheBudget: channels without a path hold half of the budget
// at most, and the one that has waited for longest makes room.
func TestDetachedShareOfTheBudget(t *testing.T) {
	const each = 16 * chunkSize
	l := newLab(t, 1, Settings{Buffers: NewBuffers(4 * each)}, Timing{}, Limits{})
	l.caller.Settings.Buffers = NewBuffers(64 << 20) // the other process's
	var xs, ys [3]*Channel
	want := bytes.Repeat([]byte("ke"), inChunks(each)/2)
	for i := range xs {
		xs[i], ys[i] = l.open()
		knownFast(ys[i])
		if _, err := ys[i].Write(want); err != nil { // nobody reads
			t.Fatal(err)
		}
	}
	l.refuseRoutes(noRoutes)
	l.mu.Lock()
	paths := l.paths
	l.mu.Unlock()
	for i, p := range paths {
		p.cut()
		select {
		case <-ys[0].Done():
		case <-downOf(ys[i]):
		}
	}
	<-ys[0].Done()
	var lost *LostError
	if err := ys[0].Err(); !errors.As(err, &lost) || lost.Code != code.Limit {
		t.Errorf("the first channel ended with %v, want limit", err)
	}
	l.refuseRoutes(nil)
	for i := 1; i < len(xs); i++ {
		waitUp(t, xs[i], true)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(xs[i], got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("channel %d: %v, or other bytes than were written", i, err)
		}
	}
	if n, held := l.table.Detached(), l.table.held; n != 0 || held != 0 {
		t.Errorf("%d channels are counted without a path, holding %d bytes", n, held)
	}
}

// downOf returns a channel that is closed when c has no path.
func downOf(c *Channel) <-chan struct{} {
	down := make(chan struct{})
	go func() {
		defer close(down)
		for {
			up, changed := c.Up()
			if !up {
				return
			}
			<-changed
		}
	}()
	return down
}
