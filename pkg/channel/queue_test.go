package channel

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// TestQueue does what a channel does with its queue, and the same with a slice.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			q     queue
			bytes []byte // of the whole stream
			byte1 byte
		)
		room := func() int { return len(q.chunks)*RecordData - int(q.end-q.base) }
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				q.grow()
				if q.room() != RecordData {
					t.Fatalf("a new chunk has room for %d bytes", q.room())
				}
			case 1:
				p := make([]byte, rapid.SampledFrom([]int{1, 100, RecordData / 2, RecordData, RecordData + 1}).Draw(t, "size"))
				for i := range p {
					byte1++
					p[i] = byte1
				}
				n := q.append(p)
				bytes = append(bytes, p[:n]...)
				byte1 -= byte(len(p) - n)
			case 2:
				held := len(q.chunks)
				freed := q.drop(q.base + rapid.Uint64Range(0, q.end-q.base).Draw(t, "drop"))
				if len(q.chunks) != held-freed {
					t.Fatalf("drop has freed %d of %d chunks, and %d are left", freed, held, len(q.chunks))
				}
			case 3:
				off := q.base + rapid.Uint64Range(0, q.end-q.base).Draw(t, "offset")
				got := make([]byte, rapid.IntRange(0, 3*RecordData).Draw(t, "length"))
				want := bytes[off:]
				want = want[:min(len(want), len(got))]
				if n := q.copyAt(off, got); !slices.Equal(got[:n], want) {
					t.Fatalf("copyAt(%d) returns %d bytes, or not those that were added, want %d", off, n, len(want))
				}
			}
			if q.end != uint64(len(bytes)) || room() < 0 {
				t.Fatalf("the queue ends at %d, want %d", q.end, len(bytes))
			}
			if q.base == q.end && len(q.chunks) > 0 && q.chunks[0].n > 0 {
				t.Fatal("an empty queue holds a chunk that was used")
			}
		}
	})
}

// TestQueueSlidesAllocs lets a long stream pass through a queue that holds little: it
// makes no room but for what it holds at once.
func TestQueueSlidesAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	var q queue
	p := make([]byte, RecordData)
	pass := func() {
		q.grow()
		q.append(p)
		if len(q.chunks) > 5 {
			q.drop(q.base + RecordData)
		}
	}
	if n := testing.AllocsPerRun(1000, pass); n >= 1 {
		t.Errorf("%v allocations for a chunk that passes, want none", n)
	}
	if len(q.store) > 2*len(q.few) {
		t.Errorf("the queue has made room for %d chunks, and held 6", len(q.store))
	}
}

// TestChunkSize: a chunk takes what is accounted for it.
func TestChunkSize(t *testing.T) {
	if got := unsafe.Sizeof(chunk{}); got > chunkSize {
		t.Errorf("a chunk takes %d bytes, accounted are %d", got, chunkSize)
	}
}

// TestPinnedChunk: nobody else gets a chunk from which a record is being sealed,
// whatever becomes of its channel.
func TestPinnedChunk(t *testing.T) {
	var q queue
	q.grow()
	q.append([]byte("secret"))
	pinned := q.at(0)
	pinned.pins++
	if q.drop(q.end) != 1 {
		t.Fatal("the chunk was not dropped")
	}
	for range 100 {
		q.grow()
		if slices.Contains(q.chunks, pinned) {
			t.Fatal("a pinned chunk is in use again")
		}
	}
	if got := pinned.plain[:7]; string(got) != "\x01secret" {
		t.Errorf("the pinned record is now %q", got)
	}
}

// TestWholeRecords: what is written together and fits travels in one record,
// whatever small writes come before, between and behind, on a path that is known to
// be fast.
func TestWholeRecords(t *testing.T) {
	p, y, _ := newLab(t, 1, Settings{}, Timing{}, Limits{}).rawOpen()
	knownFast(y)
	big := bytes.Repeat([]byte("b"), RecordData-12)
	sizes := []int{3, RecordData, 5, RecordData, RecordData, 7}
	for _, n := range sizes {
		if n < RecordData {
			if _, err := y.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if n, err := y.Writev(make([]byte, 12), big, false); n != RecordData || err != nil {
			t.Fatalf("Writev = %d, %v", n, err)
		}
	}
	for i, want := range sizes {
		body := p.want(typeData)
		if len(body) != want {
			t.Fatalf("record %d carries %d bytes, want %d", i, len(body), want)
		}
		if want == RecordData && !bytes.Equal(body, append(make([]byte, 12), big...)) {
			t.Errorf("record %d carries other bytes than head and body", i)
		}
	}
}

// TestWritev joins heads and bodies of all sizes, over paths that die.
func TestWritev(t *testing.T) {
	l := newLab(t, 1, Settings{Window: minWindow}, Timing{}, Limits{})
	x, y := l.open()
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(i * i >> 3)
	}
	wrote := make(chan error, 1)
	go func() {
		for rest, i := want, 0; len(rest) > 0; i++ {
			head := rest[:min(len(rest), i*7%5_000)]
			rest = rest[len(head):]
			body := rest[:min(len(rest), i*i*31%150_000)]
			rest = rest[len(body):]
			if n, err := x.Writev(head, body, false); n != len(head)+len(body) || err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	got := make([]byte, len(want))
	for i := 0; i < len(got); {
		n, err := y.Read(got[i:])
		if err != nil {
			t.Fatal(err)
		}
		if i>>19 != (i+n)>>19 {
			l.cutAll()
		}
		i += n
	}
	if err := <-wrote; err != nil || !bytes.Equal(got, want) {
		t.Errorf("Writev: %v, or other bytes have come than were written", err)
	}
	closeChannels(t, x, y)
}

// TestWritevAllocs nothing, at a record's size and beside it.
func TestWritevAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	head, got := make([]byte, 12), make([]byte, 12+RecordData)
	for _, n := range []int{52, RecordData - 12, RecordData} {
		body := got[:n]
		once := func() {
			if _, err := x.Writev(head, body, false); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(y, got[:12+n]); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			once()
		}
		if allocs := testing.AllocsPerRun(1000, once); allocs >= 1 {
			t.Errorf("%d bytes: %.2f allocations a Writev and Read, want 0", n, allocs)
		}
	}
	closeChannels(t, x, y)
}
