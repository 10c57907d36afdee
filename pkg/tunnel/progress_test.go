package tunnel

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// A stream's progress moves while it runs, by each way to carry data, and is in the
// end exactly what was carried.
func TestProgress(t *testing.T) {
	for _, way := range []struct {
		name string
		send func(st *Stream, data []byte) error
		// receive takes the data, and says after each piece that it has.
		receive func(st *Stream, piece func(n int)) error
	}{
		{"Write and Read", func(st *Stream, data []byte) error {
			_, err := st.Write(data)
			return err
		}, func(st *Stream, piece func(int)) error {
			for buf := make([]byte, 1000); ; {
				n, err := st.Read(buf)
				piece(n)
				if err != nil {
					return ignoreEOF(err)
				}
			}
		}},
		{"ReadFrom and WriteTo", func(st *Stream, data []byte) error {
			_, err := st.ReadFrom(iotest.HalfReader(bytes.NewReader(data)))
			return err
		}, func(st *Stream, piece func(int)) error {
			_, err := st.WriteTo(writerFunc(piece))
			return err
		}},
		{"Deliver", func(st *Stream, data []byte) error {
			_, err := st.Write(data)
			return err
		}, func(st *Stream, piece func(int)) error {
			done := make(chan error, 1)
			st.Deliver(writerFunc(piece), func(_ int64, err error) { done <- err })
			return <-done
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			p := newPair(t, Config{})
			c, s := p.open(t)
			began := c.Progress()
			if began.Sent != 0 || began.Received != 0 || time.Since(began.Active) > patience {
				t.Errorf("a new stream: %+v", began)
			}
			data := make([]byte, 700<<10) // more than a window
			sent := async(func() error {
				if err := way.send(c, data); err != nil {
					return err
				}
				return c.CloseWrite()
			})
			var got, counted int64
			err := way.receive(s, func(n int) {
				// Before the writer's own piece is counted, and after a Read's.
				if now := s.Progress().Received; now < got || now > got+int64(n) {
					t.Errorf("after %d bytes and in the next %d: %d", got, n, now)
				} else if now > 0 {
					counted++
				}
				got += int64(n)
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := await(t, sent, "everything is sent"); err != nil {
				t.Fatal(err)
			}
			if counted < 2 {
				t.Error("nothing was counted while the stream ran")
			}
			there, here := c.Progress(), s.Progress()
			if there.Sent != int64(len(data)) || there.Received != 0 || here.Received != int64(len(data)) || here.Sent != 0 {
				t.Errorf("of %d bytes: sender %+v, receiver %+v", len(data), there, here)
			}
			if here.Active.Before(began.Active) {
				t.Errorf("last active at %s, before the begin at %s", here.Active, began.Active)
			}
		})
	}
}

// Neither the headers that pass, nor an end of any kind, nor what is not read any
// more counts as data.
func TestProgressCountsDataOnly(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	for _, st := range []*Stream{c, s} {
		if got := st.Progress(); got.Sent != 0 || got.Received != 0 {
			t.Errorf("OPEN and OPENED count: %+v", got)
		}
	}
	if _, err := c.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	_ = s.Reset(0)
	_, err := c.Read(make([]byte, 1))
	if err == nil {
		t.Fatal("a Read after the reset has data")
	}
	if _, err := c.Write([]byte("more")); err == nil {
		t.Fatal("a Write after the reset is taken")
	}
	if got := c.Progress(); got.Sent != 3 || got.Received != 0 {
		t.Errorf("the sender's: %+v, want 3 bytes sent", got)
	}
	if got := s.Progress(); got.Sent != 0 || got.Received != 2 {
		t.Errorf("the receiver's: %+v, want 2 bytes received", got)
	}
}

// Whatever the sizes of Writes and Reads, and wherever a writer fails, the counts are
// what the calls have returned.
func TestProgressIsWhatCallsReturn(t *testing.T) {
	p := newPair(t, Config{})
	rapid.Check(t, func(rt *rapid.T) {
		c, s := p.open(t)
		defer c.Close()
		defer s.Close()
		sizes := rapid.SliceOfN(rapid.IntRange(1, 40<<10), 1, 5).Draw(rt, "sizes")
		room := rapid.IntRange(0, 60<<10).Draw(rt, "room")
		var wrote int64
		var writing sync.WaitGroup
		writing.Go(func() {
			for _, size := range sizes {
				n, err := c.Write(make([]byte, size))
				wrote += int64(n)
				if err != nil {
					return
				}
			}
			_ = c.CloseWrite()
		})
		n, _ := s.WriteTo(&fullWriter{room: room})
		_ = s.Close() // frees a Write
		writing.Wait()
		if got := c.Progress().Sent; got != wrote {
			rt.Errorf("%d bytes sent, and Write returned %d", got, wrote)
		}
		if got := s.Progress().Received; got != n || got > int64(room) {
			rt.Errorf("%d bytes received, and WriteTo returned %d into room for %d", got, n, room)
		}
	})
}

type writerFunc func(n int)

func (f writerFunc) Write(b []byte) (int, error) {
	f(len(b))
	return len(b), nil
}

// A fullWriter takes so much, and then no more.
type fullWriter struct{ room int }

func (w *fullWriter) Write(b []byte) (int, error) {
	n := min(len(b), w.room)
	w.room -= n
	if n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
