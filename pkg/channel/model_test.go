package channel

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
)

// A plan is one life of a channel: what both programs do, and what becomes of
// the paths.
type plan struct {
	Fates   [][2]fate // of the paths after the first, in order; further ones are good
	Routes  int
	Window  int
	Renew   uint64 // RenewBytes
	Closer  int    // 0 the initiator, 1 the responder
	Code    code.Code
	Sides   [2]side
	Crash   string // "", or what happens to a process
	CrashAt int    // when that side has read so much
	Seed    uint64
}

// A side is a program: it writes so many bytes, and reads. The closer reads no
// more than Reads; the other one all that comes.
type side struct {
	Writes, Reads int
	Moves         []int // bytes read at which the program asks for another path
	PauseAt       int   // where it reads nothing for a while; -1: nowhere
}

func drawPlan(t *rapid.T) plan {
	byteOf := func(what string) int {
		// In the handshake, soon after, or later.
		return rapid.OneOf(rapid.IntRange(0, 6000), rapid.IntRange(0, 40_000), rapid.IntRange(0, 600_000)).Draw(t, what)
	}
	p := plan{
		Routes: rapid.IntRange(1, 3).Draw(t, "routes"),
		Window: rapid.SampledFrom([]int{minWindow, minWindow + 1, 1 << 20}).Draw(t, "window"),
		Renew:  rapid.SampledFrom([]uint64{0, 0, 300_000}).Draw(t, "renew"),
		Closer: rapid.IntRange(0, 1).Draw(t, "closer"),
		Code:   rapid.SampledFrom([]code.Code{code.OK, code.OK, code.OK, code.Shutdown}).Draw(t, "code"),
		Crash:  rapid.SampledFrom([]string{"", "", "", "", "", "responder", "initiator", "forgotten"}).Draw(t, "crash"),
		Seed:   rapid.Uint64().Draw(t, "seed"),
	}
	for i := range p.Sides {
		p.Sides[i] = side{
			Writes: rapid.IntRange(0, 1<<20).Draw(t, "writes"), PauseAt: -1,
			Moves: rapid.SliceOfN(rapid.IntRange(1, 1<<20), 0, 8).Draw(t, "moves"),
		}
	}
	s := &p.Sides[p.Closer]
	if s.Reads = p.Sides[1-p.Closer].Writes; rapid.Bool().Draw(t, "early") {
		s.Reads = rapid.IntRange(0, s.Reads).Draw(t, "reads")
	}
	if i := rapid.IntRange(-1, 3).Draw(t, "pause"); i == 0 || i == 1 {
		p.Sides[i].PauseAt = rapid.IntRange(0, 200_000).Draw(t, "pauseAt")
	}
	p.CrashAt = rapid.IntRange(0, 1<<19).Draw(t, "crashAt")
	for range rapid.IntRange(0, 10).Draw(t, "paths") {
		fates := [2]fate{noFate, noFate}
		for range rapid.IntRange(0, 2).Draw(t, "fates") {
			f := &fates[rapid.IntRange(0, 1).Draw(t, "way")]
			switch rapid.IntRange(0, 3).Draw(t, "fate") {
			case 0, 1:
				f.Die = byteOf("die")
			case 2:
				f.Flip = byteOf("flip")
			case 3:
				f.Hold = byteOf("hold")
			}
		}
		p.Fates = append(p.Fates, fates)
	}
	return p
}

// A world is a lab in which a plan comes true.
type world struct {
	*lab
	plan
	t        *rapid.T
	set      Settings
	channels [2]*Channel
	crashed  sync.Once
	runs     sync.WaitGroup

	mu       sync.Mutex
	made     int
	releases []func()
}

func newWorld(outer *testing.T, t *rapid.T, p plan) *world {
	w := &world{plan: p, t: t}
	w.set = Settings{
		Window: p.Window, Buffers: NewBuffers(512 << 10), Grace: 20 * time.Second, Linger: 30 * time.Second,
		Handshake: Options{Timeout: 2 * time.Second, Linger: 20 * time.Millisecond},
		Trace:     &Trace{Moved: func(*Channel, Move) { w.releaseAll() }},
	}
	if p.Crash != "" {
		w.set.Grace = 300 * time.Millisecond
	}
	timing := Timing{Stagger: 20 * time.Millisecond, MaxPause: 50 * time.Millisecond, RenewBytes: p.Renew, Return: 50 * time.Millisecond}
	w.lab = newLab(outer, 1, w.set, timing, Limits{})
	x, y, err := w.dial()
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	w.caller.Routes = p.Routes
	w.channels = [2]*Channel{x, y}
	for _, c := range w.channels {
		w.runs.Go(func() { _ = c.Run(context.Background()) })
	}
	w.wrap = func(_ int, a, b net.Conn) (net.Conn, net.Conn) {
		w.mu.Lock()
		defer w.mu.Unlock()
		fates := [2]fate{noFate, noFate}
		if w.made < len(p.Fates) {
			fates = p.Fates[w.made]
		}
		w.made++
		held := make(chan struct{})
		release := sync.OnceFunc(func() { close(held) })
		// Where no other path comes, what is held is only late.
		late := time.AfterFunc(100*time.Millisecond, release)
		w.releases = append(w.releases, func() { late.Stop(); release() })
		return w.wild(a, b, fates, held)
	}
	return w
}

// releaseAll lets go what the paths so far hold.
func (w *world) releaseAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, release := range w.releases {
		release()
	}
	w.releases = nil
}

// crash makes happen what the plan has for a process.
func (w *world) crash() {
	w.crashed.Do(func() {
		err := errors.New("crash of the test")
		switch w.Crash {
		case "responder":
			w.restart("")
			w.channels[1].Fail(code.Internal, err)
		case "initiator":
			w.channels[0].Fail(code.Internal, err)
		case "forgotten":
			w.channels[1].Fail(code.Internal, err)
		}
	})
}

// stream is what side i writes.
func (w *world) stream(i int) *mrand.ChaCha8 {
	return mrand.NewChaCha8([32]byte{byte(i), byte(w.Seed), byte(w.Seed >> 8), byte(w.Seed >> 16)})
}

func (w *world) write(i int) error {
	r := mrand.New(mrand.NewPCG(w.Seed, uint64(i)))
	src, buf := w.stream(i), make([]byte, 200<<10)
	for left := w.Sides[i].Writes; left > 0; {
		n := min(left, 1+r.IntN(1<<r.IntN(18)))
		_, _ = src.Read(buf[:n])
		if _, err := w.channels[i].Write(buf[:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// read reads up to limit bytes and returns how many came, and what ended that.
func (w *world) read(i, limit int) (n int, err error) {
	r := mrand.New(mrand.NewPCG(w.Seed, uint64(i)+2))
	c, s := w.channels[i], w.Sides[i]
	want, buf, cmp := w.stream(1-i), make([]byte, 128<<10), make([]byte, 128<<10)
	moves := slices.Sorted(slices.Values(s.Moves))
	for n < limit {
		k, err := c.Read(buf[:min(limit-n, 1+r.IntN(1<<(1+r.IntN(17))))])
		_, _ = want.Read(cmp[:k])
		if string(buf[:k]) != string(cmp[:k]) {
			return n, fmt.Errorf("side %d reads other bytes than were written, after %d", i, n)
		}
		n += k
		if err != nil {
			return n, err
		}
		if len(moves) > 0 && n >= moves[0] {
			moves = moves[1:]
			w.channels[0].Move()
		}
		if w.Crash != "" && n >= w.CrashAt {
			w.crash()
		}
		if s.PauseAt >= 0 && n >= s.PauseAt {
			s.PauseAt = -1
			time.Sleep(2*tickTime + 20*time.Millisecond) // longer than the path goes without a reader
		}
	}
	return n, nil
}
