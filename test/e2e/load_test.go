//go:build e2e && linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// long makes the tests of survival run as long as make chaos has them.
var long = flag.Bool("chaos", false, "run the long forms of the tests of survival")

// howLong returns the long form's value or the short one's.
func howLong[T any](short, whole T) T {
	if *long {
		return whole
	}
	return short
}

// A load is a number of streams through a world that carry bytes both ways and
// check every one of them, and one stream that ticks.
type load struct {
	t       *testing.T
	addr    string // of the local service
	streams int
	size    int64         // of each stream, each way
	over    time.Duration // how long that takes at least

	running sync.WaitGroup
	stop    chan struct{} // ends the ticker

	bytes  atomic.Int64 // read, both ways, and right
	resets atomic.Int64 // streams that did not end cleanly
	wrong  atomic.Int64 // streams that brought other bytes
	pause  atomic.Int64 // the ticker's longest, in ns

	mu   sync.Mutex
	errs []error
}

// loadTarget serves loads: each connection sends a seed and a size, uploads, and
// gets as many bytes of another seed, and then the sum of what it has sent.
func loadTarget(t *testing.T) string {
	return serveTCP(t, func(c *net.TCPConn) {
		var head [16]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		seed, size := binary.BigEndian.Uint64(head[:]), int64(binary.BigEndian.Uint64(head[8:]))
		if size == 0 {
			echo(c) // the ticker
			return
		}
		var sending sync.WaitGroup
		sending.Go(func() { _, _ = io.CopyN(c, newPattern(seed+1), size) })
		sum := sha256.New()
		n, err := io.Copy(sum, c)
		sending.Wait()
		if err != nil || n != size {
			_ = c.SetLinger(0)
			return
		}
		_, _ = c.Write(sum.Sum(nil))
		_ = c.CloseWrite()
	})
}

// newPattern returns an endless reader of bytes that the seed determines.
func newPattern(seed uint64) io.Reader {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// startLoad begins a load.
func startLoad(t *testing.T, addr string, streams int, size int64, over time.Duration) *load {
	t.Helper()
	l := &load{t: t, addr: addr, streams: streams, size: size, over: over, stop: make(chan struct{})}
	for i := range streams {
		l.running.Go(func() { l.note(l.stream(uint64(2 * i))) })
	}
	return l
}

func (l *load) note(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
	if errors.Is(err, errWrong) {
		l.wrong.Add(1)
	} else {
		l.resets.Add(1)
	}
}

var errWrong = errors.New("wrong bytes")

// stream carries one stream's bytes.
func (l *load) stream(seed uint64) error {
	c, err := net.DialTimeout("tcp", l.addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	head := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, seed), uint64(l.size))
	if _, err := c.Write(head); err != nil {
		return err
	}
	var sending sync.WaitGroup
	var sent []byte
	var sendErr error
	sending.Go(func() { sent, sendErr = l.upload(c, seed) })
	want := newPattern(seed + 1)
	buf, expect := make([]byte, 64<<10), make([]byte, 64<<10)
	for left := l.size; left > 0; {
		n, err := c.Read(buf[:min(left, int64(len(buf)))])
		if err != nil {
			return fmt.Errorf("download, %d bytes left: %w", left, err)
		}
		_, _ = io.ReadFull(want, expect[:n])
		if !bytes.Equal(buf[:n], expect[:n]) {
			return fmt.Errorf("%w in the download, %d bytes left", errWrong, left)
		}
		left -= int64(n)
		l.bytes.Add(int64(n))
	}
	sending.Wait()
	if sendErr != nil {
		return fmt.Errorf("upload: %w", sendErr)
	}
	sum, err := io.ReadAll(c)
	switch {
	case err != nil || len(sum) != sha256.Size:
		return fmt.Errorf("the end: %d bytes of the sum, %w", len(sum), err)
	case !bytes.Equal(sum, sent):
		return fmt.Errorf("%w in the upload", errWrong)
	}
	l.bytes.Add(l.size)
	return nil
}

// upload sends at the load's pace and returns the sum.
func (l *load) upload(c net.Conn, seed uint64) ([]byte, error) {
	sum, from := sha256.New(), newPattern(seed)
	buf := make([]byte, 32<<10)
	began := time.Now()
	for done := int64(0); done < l.size; {
		n := int(min(int64(len(buf)), l.size-done))
		_, _ = io.ReadFull(from, buf[:n])
		sum.Write(buf[:n])
		if _, err := c.Write(buf[:n]); err != nil {
			return nil, err
		}
		done += int64(n)
		due := began.Add(time.Duration(float64(l.over) * float64(done) / float64(l.size)))
		time.Sleep(time.Until(due)) // the pace
	}
	return sum.Sum(nil), c.(*net.TCPConn).CloseWrite()
}

// tick sends a number each 10 ms over a stream of its own, wants them back, and
// notes the longest time between two.
func (l *load) tick() {
	l.running.Go(func() { l.note(l.ticks()) })
}

func (l *load) ticks() error {
	c, err := net.DialTimeout("tcp", l.addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 16)); err != nil {
		return err
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := uint64(0); ; n++ {
			select {
			case <-l.stop:
				_ = c.(*net.TCPConn).CloseWrite()
				return
			case <-time.After(10 * time.Millisecond):
			}
			_, _ = c.Write(binary.BigEndian.AppendUint64(nil, n))
		}
	})
	defer sending.Wait()
	last := time.Now()
	for n := uint64(0); ; n++ {
		var b [8]byte
		if _, err := io.ReadFull(c, b[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("ticker: %w", err)
		}
		if got := binary.BigEndian.Uint64(b[:]); got != n {
			return fmt.Errorf("%w: tick %d, want %d", errWrong, got, n)
		}
		l.pause.Store(max(l.pause.Load(), int64(time.Since(last))))
		last = time.Now()
	}
}

// wait waits for the streams, ends the ticker, and wants no fault. deaths is
// what happened meanwhile, for the report.
func (l *load) wait(deaths func() int) {
	l.t.Helper()
	want := 2 * l.size * int64(l.streams)
	if !eventually(l.over+2*time.Minute, func() bool { return l.bytes.Load() >= want || l.resets.Load()+l.wrong.Load() > 0 }) {
		l.t.Errorf("only %d of %d bytes have come", l.bytes.Load(), want)
	}
	close(l.stop)
	l.running.Wait()
	for i, err := range l.errs {
		if i < 5 {
			l.t.Errorf("stream: %v", err)
		}
	}
	if l.bytes.Load() != want {
		l.t.Errorf("%d bytes have come, want %d", l.bytes.Load(), want)
	}
	l.t.Logf("deaths %d, streams %d, bytes %d, resets %d, wrong bytes %d, longest pause %v",
		deaths(), l.streams, l.bytes.Load(), l.resets.Load(), l.wrong.Load(), time.Duration(l.pause.Load()).Round(time.Millisecond))
}
