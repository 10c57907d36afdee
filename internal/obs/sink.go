package obs

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logQueue bounds the bytes of lines that wait to be written, and logFlush how
	// long they are waited for at the end.
	logQueue = 1 << 20
	logFlush = time.Second
)

// A sink takes a log's lines to where they go, which may be a pipe that nobody
// reads any more: while it is served, a line is only put into a queue, so that
// nobody who logs waits for more than its lock. It is a zapcore.WriteSyncer.
type sink struct {
	out io.Writer
	// missing makes the line that says how many were dropped where it stands.
	missing func(lines int) []byte

	writing sync.Mutex    // held while out is written to; taken without mu
	dropped atomic.Uint64 // lines in all

	mu      sync.Mutex
	more    sync.Cond // lines, or ended
	serving bool      // lines are queued, and the goroutine of serve writes them
	ended   bool      // that goroutine returns when there are none
	lines   [][]byte
	size    int             // bytes of lines, and of the one that is being written
	lost    int             // lines dropped since the last one that was queued
	idle    []chan struct{} // closed when size is 0
}

func newSink(out io.Writer, missing func(lines int) []byte) *sink {
	s := &sink{out: out, missing: missing}
	s.more.L = &s.mu
	return s
}

// Write writes a line, or puts it into the queue, or drops it: it fails only
// while the sink is not served.
func (s *sink) Write(line []byte) (int, error) {
	if s.queue(line) {
		return len(line), nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.out.Write(line)
}

// Sync has nothing to do: see serve.
func (s *sink) Sync() error { return nil }

// queue takes care of a line while the sink is served, else it reports false.
func (s *sink) queue(line []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.serving:
		return false
	case s.size+len(line) > logQueue:
		s.lost++
		s.dropped.Add(1)
		return true
	}
	s.tellLostLocked()
	s.addLocked(bytes.Clone(line)) // it is the logger's again when Write returns
	return true
}

func (s *sink) addLocked(line []byte) {
	s.lines = append(s.lines, line)
	s.size += len(line)
	s.more.Signal()
}

// tellLostLocked puts a line in the place of those that were dropped.
func (s *sink) tellLostLocked() {
	if s.lost > 0 {
		s.addLocked(s.missing(s.lost))
		s.lost = 0
	}
}

// serve queues lines until ctx ends, and then waits until they are written, at
// most for patience. A goroutine that cannot be freed from writing is left behind
// then, and ends with its write.
func (s *sink) serve(ctx context.Context, patience time.Duration) {
	s.mu.Lock()
	s.serving, s.ended = true, false
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.writeLines()
	}()
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	s.more.Signal()
	s.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// writeLines writes what is queued until the sink has ended and nothing is left.
// Each line is a write of its own: those of others who share a pipe come between
// lines and not within.
func (s *sink) writeLines() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if len(s.lines) == 0 {
			s.tellLostLocked()
		}
		if len(s.lines) == 0 {
			if s.ended {
				s.serving = false
				return
			}
			s.more.Wait()
			continue
		}
		line := s.lines[0]
		s.lines[0] = nil
		s.lines = s.lines[1:]
		s.mu.Unlock()
		s.writeLine(line)
		s.mu.Lock()
		if s.size -= len(line); s.size == 0 {
			for _, c := range s.idle {
				close(c)
			}
			s.idle, s.lines = nil, nil
		}
	}
}

func (s *sink) writeLine(line []byte) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.out.Write(line); err != nil {
		s.dropped.Add(1) // there is nowhere to say so
	}
}

// flush waits until nothing is queued, or ctx ends.
func (s *sink) flush(ctx context.Context) {
	s.mu.Lock()
	if s.size == 0 {
		s.mu.Unlock()
		return
	}
	c := make(chan struct{})
	s.idle = append(s.idle, c)
	s.mu.Unlock()
	select {
	case <-c:
	case <-ctx.Done():
	}
}
