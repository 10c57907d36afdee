package tunnel

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// A recorder is a carrier that keeps each Write for itself.
type recorder struct {
	Carrier
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

// TestHeld: a header that opens or closes a stream goes out with the next frame,
// in its order, and every other one at once.
func TestHeld(t *testing.T) {
	var (
		syn     = muxFrame(0, muxWindowUpdate, flagSYN, 3, 9)
		fin     = muxFrame(0, muxWindowUpdate, flagFIN, 3, 0)
		update  = muxFrame(0, muxWindowUpdate, 0, 3, 9)
		control = muxFrame(0, muxWindowUpdate, flagSYN, controlStream, 9)
		header  = muxFrame(0, muxData, 0, 3, 2)
		body    = []byte("ab")
	)
	for _, tc := range []struct {
		name string
		in   [][]byte
		want [][]byte // records
	}{
		{"SYN and OPEN", [][]byte{syn, header, body}, [][]byte{joined(syn, header, body)}},
		{"SYN and FIN", [][]byte{syn, fin, update}, [][]byte{joined(syn, fin, update)}},
		{"alone", [][]byte{syn}, nil},
		{"data, FIN, data", [][]byte{header, body, fin, header, body}, [][]byte{joined(header, body), joined(fin, header, body)}},
		{"window update", [][]byte{update, update}, [][]byte{update, update}},
		{"control stream", [][]byte{control}, [][]byte{control}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &recorder{}
			a := newAdapter(r, true, 100)
			for _, b := range tc.in {
				if n, err := a.Write(b); n != len(b) || err != nil {
					t.Fatalf("Write(%x) = %d, %v", b, n, err)
				}
			}
			if !slices.EqualFunc(r.writes, tc.want, bytes.Equal) {
				t.Errorf("got the records %x, want %x", r.writes, tc.want)
			}
		})
	}
}

// TestHeldIsBounded: what waits is announced once, is little, and goes out when
// it is asked for; a header never goes without its body.
func TestHeldIsBounded(t *testing.T) {
	r := &recorder{}
	a := newAdapter(r, true, 100)
	fin := muxFrame(0, muxWindowUpdate, flagFIN, 3, 0)
	for i := range maxHeld / muxHeader {
		if len(r.writes) > 0 {
			t.Fatalf("%d headers were written at once", i)
		}
		_, _ = a.Write(fin)
		if announced := len(a.held) > 0; announced != (i == 0) {
			t.Fatalf("header %d: announced is %v", i, announced)
		}
		if i == 0 {
			<-a.held
		}
	}
	if len(r.writes) != 1 || len(r.writes[0]) != maxHeld {
		t.Fatalf("got %d records after %d headers, want 1 with all of them", len(r.writes), maxHeld/muxHeader)
	}
	a.flush()
	_, _ = a.Write(muxFrame(0, muxData, 0, 3, 1))
	a.flush()
	if len(r.writes) != 1 {
		t.Fatalf("a flush with nothing to say, or in the middle of a frame, wrote %x", r.writes[1:])
	}
	_, _ = a.Write([]byte("x"))
	_, _ = a.Write(fin)
	a.flush()
	if len(r.writes) != 3 || !bytes.Equal(r.writes[2], fin) {
		t.Fatalf("got %x, want the frame and, once asked for, the header", r.writes[1:])
	}
}

// TestCut: of a stream that is ignored yamux gets what is said by flags, and no data;
// of all others it gets everything, in its order, however the bytes come.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		carrier := &pieces{}
		a := newAdapter(carrier, false, 100)
		var come, want []byte
		ids := []uint32{3, 5, 7}
		for _, id := range ids {
			if err := a.windows.open(id, a.limit); err != nil {
				t.Fatal(err)
			}
		}
		ignored, ended := map[uint32]bool{}, map[uint32]bool{}
		ids = append(ids, 9) // which the mux does not know
		ignored[9] = true
		for range rapid.IntRange(1, 30).Draw(t, "frames") {
			id := rapid.SampledFrom(ids).Draw(t, "stream")
			if rapid.IntRange(0, 4).Draw(t, "ignore") == 0 && id != 9 {
				carrier.rest = append(carrier.rest, len(come))
				carrier.then = append(carrier.then, func() { a.windows.get(id).ignore() })
				ignored[id] = true
			}
			flags := uint16(0)
			if !ended[id] && id != 9 && rapid.IntRange(0, 9).Draw(t, "FIN") == 0 {
				flags, ended[id] = flagFIN, true
			}
			body := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "body")
			frame := muxFrame(0, muxData, flags, id, uint32(len(body)), body...)
			switch {
			case rapid.IntRange(0, 4).Draw(t, "update") == 0:
				frame = muxFrame(0, muxWindowUpdate, 0, id, 1)
				if flags != 0 {
					ended[id] = false
				}
				want = append(want, frame...)
			case !ignored[id]:
				want = append(want, frame...)
			case flags != 0:
				want = append(want, muxFrame(0, muxData, flags, id, 0)...)
			}
			come = append(come, frame...)
		}
		carrier.b = come
		carrier.size = func(most int) int { return rapid.IntRange(1, most).Draw(t, "piece") }
		var got []byte
		for p := make([]byte, 64); len(got) < len(want); {
			n, err := a.Read(p[:rapid.IntRange(muxHeader+1, len(p)).Draw(t, "room")])
			if n == 0 || err != nil {
				t.Fatalf("Read = %d, %v after %d bytes of %d", n, err, len(got), len(want))
			}
			got = append(got, p[:n]...)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %x, want %x", got, want)
		}
	})
}

// pieces is a carrier that brings b piece by piece, and calls then[i] when rest[i]
// bytes of it have come.
type pieces struct {
	Carrier
	b    []byte
	at   int
	size func(most int) int
	rest []int
	then []func()
}

func (c *pieces) Read(p []byte) (int, error) {
	for len(c.rest) > 0 && c.rest[0] == c.at {
		c.then[0]()
		c.rest, c.then = c.rest[1:], c.then[1:]
	}
	end := len(c.b)
	if len(c.rest) > 0 {
		end = c.rest[0]
	}
	if c.at == end {
		return 0, io.EOF
	}
	n := copy(p, c.b[c.at:c.at+c.size(end-c.at)])
	c.at += n
	return n, nil
}

// TestRecordsOfAStream counts the records that opening, answering, one byte each
// way and closing take: OPEN or OPENED, DATA, FIN, and the mux's FIN where nothing
// else comes. On a busy machine a header may wait in vain, though not each time.
func TestRecordsOfAStream(t *testing.T) {
	a, b := plainPair(t)
	va, vb := newValve(a), newValve(b)
	p := startPair(t, va, vb, Config{}, Config{})
	p.exchange(t)
	p.forgotten(t)
	var client, server int
	for range 50 {
		ma, mb := va.mark(), vb.mark()
		p.exchange(t)
		p.forgotten(t) // the last header too, which is not held for ever
		client, server = va.mark()-ma, vb.mark()-mb
		if client <= 4 && server <= 4 {
			return
		}
	}
	t.Errorf("the client wrote %d records for a stream, the server %d; want 4 at most", client, server)
}

// exchange opens a stream, sends a byte each way and closes it.
func (p *pair) exchange(t testing.TB) {
	t.Helper()
	c, s := p.open(t)
	for _, st := range []*Stream{c, s} {
		if _, err := st.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := st.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	for _, st := range []*Stream{c, s} {
		if got, err := io.ReadAll(st); len(got) != 1 || err != nil {
			t.Fatalf("read %q, %v", got, err)
		}
		_ = st.Close()
	}
}

// TestFramesTravelTogether: while one stream's frame is on its way, what others
// send waits for it and is one record, not one each.
func TestFramesTravelTogether(t *testing.T) {
	const streams = 32
	x, y := channelPair(t)
	counted := &countingCarrier{Carrier: x, v: x.(vectored)}
	p := startPair(t, counted, y, Config{}, Config{})
	var clients, servers []*Stream
	for range streams {
		c, s := p.open(t)
		clients, servers = append(clients, c), append(servers, s)
	}
	counted.alone.Store(0)
	counted.together.Store(0)
	var sending sync.WaitGroup
	for i, c := range clients {
		sending.Go(func() {
			for range 50 {
				if _, err := c.Write([]byte("sixteen bytes...")); err != nil {
					t.Error(err)
				}
			}
		})
		sending.Go(func() {
			if _, err := io.ReadFull(servers[i], make([]byte, 50*16)); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	if counted.together.Load() == 0 {
		t.Errorf("each of %d frames was sent alone", counted.alone.Load())
	}
}

type vectored interface {
	Writev(head, body []byte, more bool) (int, error)
}

// A countingCarrier counts how its frames want to be sent.
type countingCarrier struct {
	Carrier
	v               vectored
	alone, together atomic.Int64
}

func (c *countingCarrier) Writev(head, body []byte, more bool) (int, error) {
	if more {
		c.together.Add(1)
	} else {
		c.alone.Add(1)
	}
	return c.v.Writev(head, body, more)
}
