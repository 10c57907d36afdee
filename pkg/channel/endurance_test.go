package channel

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

func resumes() int {
	if testing.Short() || raceEnabled {
		return 1000
	}
	return 10_000
}

// TestManyResumes gives one channel path after path: goroutines and heap are in
// the end what they were.
func TestManyResumes(t *testing.T) {
	l := newLab(t, 1, Settings{Buffers: NewBuffers(64 << 20)}, Timing{}, Limits{})
	x, y := l.open()
	echo := make(chan struct{})
	go func() {
		defer close(echo)
		_, _ = io.Copy(onlyWriter{y}, onlyReader{y})
	}()
	buf := make([]byte, 1000)
	ping := func() {
		if _, err := x.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(x, buf); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		l.cutAll()
		ping()
	}
	before := measure()
	start := time.Now()
	n := resumes()
	for i := 0; x.State().Epoch < uint64(n); i++ {
		if i%4 == 3 {
			x.Move()
		} else {
			l.cutAll()
		}
		ping()
	}
	took := time.Since(start)
	l.cutAll()
	ping()
	after := measure()
	for end := time.Now().Add(10 * time.Second); after.goroutines > before.goroutines && time.Now().Before(end); after = measure() {
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d resumes in %s: goroutines %d to %d, heap %d KiB to %d KiB, %d KiB held",
		x.State().Epoch, took.Round(time.Millisecond), before.goroutines, after.goroutines, before.heap>>10, after.heap>>10, l.table.set.Buffers.Used()>>10)
	if after.goroutines > before.goroutines {
		t.Errorf("%d goroutines, %d before", after.goroutines, before.goroutines)
	}
	if after.heap > before.heap+2<<20 {
		t.Errorf("%d bytes of heap, %d before", after.heap, before.heap)
	}
	closeChannels(t, x, y)
	<-echo
	if used := l.table.set.Buffers.Used(); used != 0 {
		t.Errorf("%d bytes are held at the end", used)
	}
}

type measured struct {
	goroutines int
	heap       uint64
}

func measure() measured {
	runtime.GC()
	runtime.GC() // pools give up what they hold
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return measured{runtime.NumGoroutine(), m.HeapAlloc}
}

// TestDamagedPath changes a byte, or cuts, at places all along a path, in
// either direction: the path ends, the channel does not.
func TestDamagedPath(t *testing.T) {
	t.Parallel()
	const places = 6
	for way := range 2 {
		for i := range places {
			for _, flip := range []bool{true, false} {
				f := [2]fate{noFate, noFate}
				// From the first byte after the handshake to the second record.
				at := 4000 + i*197
				if flip {
					f[way].Flip = at
				} else {
					f[way].Die = at
				}
				damagePath(t, f)
			}
		}
	}
}

func damagePath(t *testing.T, f [2]fate) {
	t.Helper()
	l := newLab(t, 1, Settings{Handshake: Options{Timeout: time.Second}}, Timing{}, Limits{})
	x, y := l.open()
	made := 0
	l.wrap = func(_ int, a, b net.Conn) (net.Conn, net.Conn) {
		if made++; made > 1 {
			return a, b
		}
		return l.wild(a, b, f, nil)
	}
	l.cutAll()
	sums := make(chan [2][32]byte, 2)
	for _, w := range [][2]*Channel{{x, y}, {y, x}} {
		go func() { sums <- transfer(t, w[0], w[1], 20_000) }()
	}
	for range 2 {
		if s := <-sums; s[0] != s[1] {
			t.Errorf("%+v: what arrived is not what was sent", f)
		}
	}
	closeChannels(t, x, y)
	if made < 1 {
		t.Errorf("%+v: no path was damaged", f)
	}
}
