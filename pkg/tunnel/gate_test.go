package tunnel

import (
	"bytes"
	"io"
	"net"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A gateModel is the gate as its comment says it, with slices.
type gateModel struct {
	free        int
	small, bulk []int // indexes of waiters
	streak      int
	inside      []int
}

func (m *gateModel) grant(sizes []int) {
	for {
		fromBulk := len(m.small) == 0 || m.streak >= smallStreak && len(m.bulk) > 0
		q := &m.small
		if fromBulk {
			q = &m.bulk
		}
		if len(*q) == 0 || sizes[(*q)[0]] > m.free {
			return
		}
		i := (*q)[0]
		*q = (*q)[1:]
		m.free -= sizes[i]
		m.inside = append(m.inside, i)
		if fromBulk || len(m.bulk) == 0 {
			m.streak = 0
		} else {
			m.streak++
		}
	}
}

func TestGateModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 12
		g := gate{free: gateBytes}
		m := gateModel{free: gateBytes}
		ws, sizes := make([]waiter, n), make([]int, n)
		for i := range ws {
			ws[i].ready = make(chan struct{}, 1)
		}
		waits := func(i int) bool { return slices.Contains(m.small, i) || slices.Contains(m.bulk, i) }
		idle := func(i int) bool { return !waits(i) && !slices.Contains(m.inside, i) }
		drop := func(s []int, i int) []int { return slices.DeleteFunc(s, func(x int) bool { return x == i }) }
		pick := rapid.IntRange(0, n-1)
		size := rapid.OneOf(rapid.IntRange(1, smallFrame), rapid.Just(64<<10+frameHeader), rapid.IntRange(smallFrame+1, 64<<10))
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				i := pick.Draw(t, "i")
				if !idle(i) {
					t.Skip()
				}
				sizes[i] = size.Draw(t, "size")
				if sizes[i] <= smallFrame {
					m.small = append(m.small, i)
				} else {
					m.bulk = append(m.bulk, i)
				}
				m.grant(sizes)
				if got, want := g.enter(&ws[i], sizes[i]), slices.Contains(m.inside, i); got != want {
					t.Fatalf("enter: got %v, want %v", got, want)
				}
			},
			"leave": func(t *rapid.T) {
				i := pick.Draw(t, "i")
				if idle(i) {
					t.Skip()
				}
				if slices.Contains(m.inside, i) {
					m.free += sizes[i]
				}
				m.inside, m.small, m.bulk = drop(m.inside, i), drop(m.small, i), drop(m.bulk, i)
				m.grant(sizes)
				g.leave(&ws[i])
				ws[i].granted = false
			},
			"done": func(t *rapid.T) {
				if len(m.inside) == 0 {
					t.Skip()
				}
				i := rapid.SampledFrom(m.inside).Draw(t, "i")
				if !g.passed(&ws[i]) {
					t.Fatalf("waiter %d has not passed", i)
				}
				m.inside = drop(m.inside, i)
				m.free += sizes[i]
				m.grant(sizes)
				ws[i].granted = false
				g.done(sizes[i])
			},
			"": func(t *rapid.T) {
				if g.free != m.free || g.streak != m.streak || g.free < 0 {
					t.Fatalf("free %d, streak %d, want %d, %d", g.free, g.streak, m.free, m.streak)
				}
				if got, want := g.more(), len(m.inside) > 1; got != want {
					t.Fatalf("more: %v with %d frames inside", got, len(m.inside))
				}
				for i := range ws {
					if got, want := ws[i].granted, slices.Contains(m.inside, i); got != want {
						t.Fatalf("waiter %d: granted %v, want %v", i, got, want)
					}
				}
			},
		})
	})
}

// TestGateStarvation: endless small frames do not keep a large one waiting, nor
// the other way round.
func TestGateStarvation(t *testing.T) {
	g := gate{free: maxData + frameHeader}
	newWaiter := func() *waiter { return &waiter{ready: make(chan struct{}, 1)} }
	bulk := newWaiter()
	first := newWaiter()
	g.enter(first, 1)
	if g.enter(bulk, maxData+frameHeader) {
		t.Fatal("the large frame passed without room")
	}
	passed := 0
	for inside := first; !bulk.granted; passed++ {
		if passed > 2*smallStreak {
			t.Fatalf("%d small frames passed a large one that waits", passed)
		}
		next := newWaiter()
		if !g.enter(next, 1) { // the streak is over: it waits behind the large one
			g.done(inside.n)
			break
		}
		g.done(inside.n)
		inside = next
	}
	if !bulk.granted {
		t.Fatal("the large frame does not pass")
	}
	g.done(bulk.n)
}

// TestGateBacklog has a carrier that is slow: one large frame passes, however
// long, and the next when that is through; small ones pass meanwhile.
func TestGateBacklog(t *testing.T) {
	g := gate{free: gateBytes, backlog: func() int { return 20 << 10 }}
	newWaiter := func() *waiter { return &waiter{ready: make(chan struct{}, 1)} }
	if got, want := g.frame(), 10<<10; got != want {
		t.Errorf("frames of %d bytes, want half the backlog, %d", got, want)
	}
	if !g.enter(newWaiter(), 64<<10) {
		t.Fatal("a large frame waits before an empty mux")
	}
	next, small := newWaiter(), newWaiter()
	if g.enter(next, 10<<10) {
		t.Error("a second large frame passes beyond the backlog")
	}
	if !g.enter(small, 100) {
		t.Error("a small frame waits behind large ones")
	}
	g.done(100)
	if g.done(64 << 10); !g.passed(next) {
		t.Error("a large frame does not pass when there is room")
	}
	if !g.enter(newWaiter(), 10<<10) {
		t.Error("a large frame waits though the backlog has room for it")
	}
}

// TestLongUpdate splits a window update that is longer than a peer takes, and
// says its flags once.
func TestLongUpdate(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	ad := newAdapter(plain(a), true, 10)
	sent := async(func() error {
		defer a.Close()
		_, err := ad.Write(muxFrame(0, muxWindowUpdate, flagSYN, 1, maxUpdate+7))
		return err
	})
	got, err := io.ReadAll(b)
	want := joined(muxFrame(0, muxWindowUpdate, flagSYN, 1, maxUpdate), muxFrame(0, muxWindowUpdate, 0, 1, 7))
	if !bytes.Equal(got, want) || err != nil || <-sent != nil {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

// TestGateInVivo measures, in bytes on the carrier, what overtakes a small
// frame while eight streams send all they can.
func TestGateInVivo(t *testing.T) {
	a, b := plainPair(t)
	v := newValve(a)
	p := startPair(t, v, b, Config{}, Config{})
	small, smallAt := p.open(t)
	const streams = 8
	for range streams {
		c, s := p.open(t)
		go func() { _, _ = io.Copy(io.Discard, s) }()
		go func() {
			_, _ = io.Copy(c, struct{ io.Reader }{&endless{}})
		}()
	}
	for range 20 {
		v.shut()
		eventually(t, "the gate is full", func() bool { return v.holds() && p.client.gateFree() < maxData })
		small.unplace(p.client)
		ahead := v.mark()
		sent := async(func() error {
			_, err := small.Write(bytes.Repeat([]byte("s"), 100))
			return err
		})
		eventually(t, "the small frame waits or has passed", func() bool {
			return small.placed(p.client)
		})
		v.release()
		if err := await(t, sent, "the small frame"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(smallAt, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if got, most := v.before('s', ahead), gateBytes+smallFrame; got > most {
			t.Fatalf("%d bytes went out before a small frame, want at most %d", got, most)
		}
	}
}

// unplace forgets the stream's frame of before, which is through.
func (st *Stream) unplace(s *Session) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	st.place.n, st.place.granted = 0, false
}

// placed reports whether the stream's frame is at the gate or past it.
func (st *Stream) placed(s *Session) bool {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return st.place.n == frameHeader+100 && (st.place.granted || s.gate.small.head == &st.place)
}

type endless struct{}

func (*endless) Read(p []byte) (int, error) { return len(p), nil }
