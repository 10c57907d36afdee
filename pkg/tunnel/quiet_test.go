package tunnel

import (
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/hashicorp/yamux"

	"github.com/culvert-net/culvert/pkg/code"
)

// quietCost is what a quiet stream may hold, heap and stacks, at both ends
// together. About a third of that is used, most of it by the mux, and what the
// runtime keeps differs from run to run; one buffer that is kept is ten times as
// much.
const quietCost = 12 << 10

// TestQuietStreams has streams move data and measures what they hold when they
// are quiet: no buffer and no goroutine; and when they have ended: nothing.
func TestQuietStreams(t *testing.T) {
	p := newPair(t, Config{})
	p.controlled(t)
	const n = 100
	p.endQuiet(t, p.quietStreams(t, n)) // what the process keeps for its peak is there from now on
	heapBefore, stacksBefore := memory()
	streams := p.quietStreams(t, n)
	heap, stacks := memory()
	if each := (heap + stacks - heapBefore - stacksBefore) / n; each > quietCost {
		t.Errorf("a quiet stream holds %d bytes at both ends, want %d at most", each, quietCost)
	} else {
		t.Logf("a quiet stream holds %d bytes at both ends", each)
	}
	p.endQuiet(t, streams)
	// Of stacks the runtime keeps some for what comes next: goroutines that are
	// left are found by TestMain.
	if heap, _ := memory(); (heap-heapBefore)/n > quietCost/4 {
		t.Errorf("a stream that has ended holds %d bytes", (heap-heapBefore)/n)
	}
}

// quietStreams opens n streams, moves more than the first window both ways on
// each, and waits until they are quiet.
func (p *pair) quietStreams(t *testing.T, n int) (streams []*Stream) {
	t.Helper()
	const size = 300 << 10
	data := make([]byte, size)
	goroutines := runtime.NumGoroutine()
	for range n {
		c, s := p.open(t)
		var come sync.WaitGroup
		for _, st := range []*Stream{c, s} {
			come.Add(size)
			st.Deliver(countdown{&come}, func(int64, error) {})
		}
		for _, st := range []*Stream{c, s} {
			if _, err := st.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		come.Wait()
		streams = append(streams, c, s)
	}
	eventually(t, "all deliveries rest", func() bool { return runtime.NumGoroutine() <= goroutines })
	return streams
}

func (p *pair) endQuiet(t *testing.T, streams []*Stream) {
	t.Helper()
	for _, st := range streams {
		_ = st.Close()
	}
	clear(streams)
	p.forgotten(t)
	for _, s := range []*Session{p.client, p.server} {
		eventually(t, "no stream has read a short time ago", func() bool {
			s.recent.mu.Lock()
			defer s.recent.mu.Unlock()
			return s.recent.streams == nil
		})
	}
}

// A countdown counts the bytes that are still to come.
type countdown struct{ *sync.WaitGroup }

func (c countdown) Write(p []byte) (int, error) {
	c.Add(-len(p))
	return len(p), nil
}

// memory returns what the heap and the stacks hold after a collection; the second
// one empties what pools held before the first.
func memory() (heap, stacks int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), int(m.StackInuse)
}

// TestRecent: a stream is left alone as long as it reads, is settled when it has
// not for a while, and comes onto the list once.
func TestRecent(t *testing.T) {
	s := &Session{recent: recent{added: make(chan struct{}, 1)}}
	newStream := func() *Stream { return &Stream{s: s, y: new(yamux.Stream), win: new(window)} }
	st, other := newStream(), newStream()
	check := func(step string, want ...*Stream) {
		t.Helper()
		if got := len(s.recent.streams); got != len(want) {
			t.Fatalf("%s: got %d streams listed, want %d", step, got, len(want))
		}
		if told := len(s.recent.added) == 1; told != (len(want) > 0) {
			t.Fatalf("%s: another look is asked for: %v, want %v", step, told, len(want) > 0)
		}
		for i := range want {
			if s.recent.streams[i] != want[i] {
				t.Fatalf("%s: stream %d of the list is another one", step, i)
			}
		}
	}
	look := func() {
		<-s.recent.added
		s.recent.settle()
	}
	st.touch()
	st.touch()
	check("after it has read", st)
	look()
	check("at the first look", st)
	st.touch()
	other.touch()
	look()
	check("at the second look", st, other)
	other.touch()
	look()
	check("when one is quiet", other)
	look()
	check("when the other is quiet, too")
	st.touch()
	check("when it reads again", st)
}

// TestQuietInsideFrame has the peer fall silent in the middle of a frame of the
// mux, in a stream that becomes quiet meanwhile: the session still ends.
func TestQuietInsideFrame(t *testing.T) {
	for name, end := range map[string]func(s *Session, peer io.Closer){
		"the carrier": func(_ *Session, peer io.Closer) { _ = peer.Close() },
		"Close":       func(s *Session, _ io.Closer) { s.Close(code.OK, "") },
	} {
		t.Run(name, func(t *testing.T) {
			server, _, peer := attack(t, joined(syn(1), syn(3), data(3, openFrame(t))))
			var st *Stream
			eventually(t, "the stream has read OPEN", func() bool {
				server.mu.Lock()
				defer server.mu.Unlock()
				st = server.streams[3]
				return st != nil && st.recency.Load() != unlisted
			})
			if _, err := peer.Write(muxFrame(0, muxData, 0, 3, 100, 1)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the stream is quiet", func() bool { return st.recency.Load() == unlisted && !st.win.drained() })
			end(server, peer)
			await(t, server.Done(), "the end of the session")
		})
	}
}
