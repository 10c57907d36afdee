//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
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

	"github.com/culvert-net/culvert/internal/testenv"
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
	name    string // for messages, where a test has several
	addr    string // of the local service
	streams int
	size    int64         // of each stream, each way
	over    time.Duration // how long that takes at least

	running sync.WaitGroup
	stop    chan struct{}   // ends the ticker
	given   context.Context // ends when the load is given up
	giveUp  context.CancelFunc

	bytes  atomic.Int64 // read, both ways, and right
	resets atomic.Int64 // streams that did not end cleanly
	wrong  atomic.Int64 // streams that brought other bytes
	pause  atomic.Int64 // the ticker's longest, in ns

	mu   sync.Mutex
	errs []error
}

// loadHead is what a stream of a load begins with: a seed, a size, a time. The
// target answers with as many bytes of the next seed, over that time, and in the
// end with the sum of what it has got.
const loadHead = 24

func appendHead(seed uint64, size int64, over time.Duration) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, seed), uint64(size)), uint64(over))
}

// loadTarget serves loads.
func loadTarget(t *testing.T) string {
	return serveTCP(t, func(c *net.TCPConn) {
		var head [loadHead]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		seed, size, over := binary.BigEndian.Uint64(head[:]), int64(binary.BigEndian.Uint64(head[8:])), time.Duration(binary.BigEndian.Uint64(head[16:]))
		if size == 0 {
			echo(c) // the ticker
			return
		}
		var sending sync.WaitGroup
		sending.Go(func() { _, _ = sendPattern(c, seed+1, size, over) })
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

// sendPattern sends bytes at an even pace and returns their sum.
func sendPattern(c net.Conn, seed uint64, size int64, over time.Duration) ([]byte, error) {
	sum, from := sha256.New(), newPattern(seed)
	buf := make([]byte, 32<<10)
	began := time.Now()
	for done := int64(0); done < size; {
		n := int(min(int64(len(buf)), size-done))
		_, _ = io.ReadFull(from, buf[:n])
		sum.Write(buf[:n])
		if _, err := c.Write(buf[:n]); err != nil {
			return nil, err
		}
		done += int64(n)
		due := began.Add(time.Duration(float64(over) * float64(done) / float64(size)))
		time.Sleep(time.Until(due)) // the pace
	}
	return sum.Sum(nil), nil
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
	l.given, l.giveUp = context.WithCancel(context.Background())
	t.Cleanup(l.giveUp)
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
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(appendHead(seed, l.size, l.over)); err != nil {
		return err
	}
	var sending sync.WaitGroup
	var sent []byte
	var sendErr error
	sending.Go(func() {
		if sent, sendErr = sendPattern(c, seed, l.size, l.over); sendErr == nil {
			sendErr = c.CloseWrite()
		}
	})
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

// dial makes a stream, which breaks when the load is given up.
func (l *load) dial() (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", l.addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(l.given, func() { c.Close() })
	return c.(*net.TCPConn), nil
}

// tick sends a number each 10 ms over a stream of its own, wants them back, and
// notes the longest time between two.
func (l *load) tick() {
	l.running.Go(func() { l.note(l.ticks()) })
}

func (l *load) ticks() error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(appendHead(0, 0, 0)); err != nil {
		return err
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := uint64(0); ; n++ {
			select {
			case <-l.stop:
				_ = c.CloseWrite()
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
		l.t.Errorf("%s only %d of %d bytes have come", l.name, l.bytes.Load(), want)
		l.giveUp()
	}
	if l.resets.Load()+l.wrong.Load() > 0 {
		l.giveUp()
	}
	close(l.stop)
	l.running.Wait()
	for i, err := range l.errs {
		if i < 5 {
			l.t.Errorf("%s stream: %v", l.name, err)
		}
	}
	if l.bytes.Load() != want {
		l.t.Errorf("%s %d bytes have come, want %d", l.name, l.bytes.Load(), want)
	}
	s := summary{
		loads: 1, deaths: deaths(), streams: l.streams, bytes: l.bytes.Load(), resets: l.resets.Load(), wrong: l.wrong.Load(),
		pause: time.Duration(l.pause.Load()),
	}
	l.t.Logf("%s %v", l.name, s)
	note(l.t, s)
}

// calm reports whether the machine has let this process run: then what a program takes is
// its own doing.
func calm(watch *testenv.Watch) bool { return watch.Lost() < 250*time.Millisecond }

// pauseBelow wants the ticker to have paused for less.
func (l *load) pauseBelow(most time.Duration) {
	l.t.Helper()
	if got := time.Duration(l.pause.Load()); got > most {
		l.t.Errorf("%s the longest pause was %v, want at most %v", l.name, got, most)
	}
}

// A summary is what the tests of survival have counted.
type summary struct {
	loads, deaths, streams int
	bytes, resets, wrong   int64
	pause                  time.Duration
}

func (s summary) String() string {
	return fmt.Sprintf("deaths %d, streams %d, bytes %d, resets %d, wrong bytes %d, longest pause %v",
		s.deaths, s.streams, s.bytes, s.resets, s.wrong, s.pause.Round(time.Millisecond))
}

var (
	totalMu    sync.Mutex
	total      summary
	pausedMost string // the test that had the longest pause
)

// note adds to what the run prints in the end.
func note(t *testing.T, s summary) {
	totalMu.Lock()
	defer totalMu.Unlock()
	total.loads += s.loads
	total.deaths += s.deaths
	total.streams += s.streams
	total.bytes += s.bytes
	total.resets += s.resets
	total.wrong += s.wrong
	if s.pause > total.pause {
		total.pause, pausedMost = s.pause, t.Name()
	}
}

// printTotal prints what the tests of survival have counted, if any ran.
func printTotal() {
	totalMu.Lock()
	defer totalMu.Unlock()
	if total.loads == 0 {
		return
	}
	fmt.Printf("survival, %d loads:\ndeaths        %d\nstreams       %d\nbytes         %d\nresets        %d\nwrong bytes   %d\nlongest pause %v (%s)\n",
		total.loads, total.deaths, total.streams, total.bytes, total.resets, total.wrong, total.pause.Round(time.Millisecond), pausedMost)
}
