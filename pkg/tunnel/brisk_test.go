package tunnel

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

// A briskCarrier counts what it is told of small frames.
type briskCarrier struct {
	Carrier
	n atomic.Int32
}

func (c *briskCarrier) Backlog() int { return gateBytes }
func (c *briskCarrier) Brisk()       { c.n.Add(1) }

// TestBrisk tells the carrier of streams of small frames, and not of bulk whose
// pieces now and then are small.
func TestBrisk(t *testing.T) {
	a, b := plainPair(t)
	carrier := &briskCarrier{Carrier: a}
	p := startPair(t, carrier, b, Config{}, Config{})
	st, far := p.open(t)
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, far) })
	write := func(n int) {
		t.Helper()
		if _, err := st.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		write(200 << 10)
		write(100)
	}
	if n := carrier.n.Load(); n != 0 {
		t.Errorf("told of small frames %d times beside bulk alone", n)
	}
	for range 5 {
		write(100)
	}
	if n := carrier.n.Load(); n != 5 {
		t.Errorf("told of small frames %d times, want 5: there was one before", n)
	}
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reading.Wait()
}
