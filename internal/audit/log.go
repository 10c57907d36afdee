package audit

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of a [Config].
const (
	DefaultQueue    = 4 << 20
	DefaultPatience = time.Second
)

// A Config is what a [Log] is made of. Process and To are required.
type Config struct {
	Process Process
	// To is a file's path, or "stdout" or "stderr". A file is made with mode
	// 0600 when there is none.
	To string
	// Strict makes [Log.Allow] fail while lines cannot be written; otherwise they
	// are dropped, and counted, when the queue is full.
	Strict bool
	// Queue bounds the lines that wait, in bytes; 0 means DefaultQueue.
	Queue int
	// Patience is how long a sink may take nothing before that is a failure, and
	// how long the end of Run waits for what is queued; 0 means DefaultPatience.
	Patience time.Duration

	// Failed is told when lines cannot be written, or are dropped, and Recovered
	// when all that waited is written again, with how many were dropped
	// meanwhile. Run's goroutine calls them in turn; they must not block, and may be nil.
	Failed    func(err error)
	Recovered func(dropped uint64)
}

// A Log is an audit log. It is made by [New] and written by [Log.Run]; the other
// methods may be called at any time, by several goroutines. A nil Log records
// nothing and allows everything.
type Log struct {
	cfg     Config
	process []byte        // what appendProcess made
	wake    chan struct{} // capacity 1: there may be something to do
	asked   atomic.Bool   // by Reopen

	mu      sync.Mutex
	queue   []line
	room    int    // Config.Queue; 0 once Run has ended
	bytes   int    // of the lines that are not written, those that Run has taken too
	seq     uint64 // of the last line, written or not
	stats   Stats
	failure error     // what the sink said last; nil: it took a line
	began   time.Time // when the line was begun that is being written; zero: none is
	missed  uint64    // lines dropped that nobody was told of

	// Run's alone.
	sink    *sink
	text    []byte // the line being written
	trouble bool   // Failed was called, and Recovered not yet
}

// A line is one that waits.
type line struct {
	seq  uint64
	at   time.Time
	tail []byte          // what appendTail made
	done chan<- struct{} // closed when it is written; may be nil
}

// size is what a line counts for in the queue, in bytes.
func (ln *line) size() int { return maxHead + len(ln.tail) }

// Stats are a Log's counts since it was made.
type Stats struct {
	Written, Dropped uint64 // lines
}

// New opens where the log goes, which is an error when it cannot be. Nothing is
// written before [Log.Run].
func New(cfg Config) (*Log, error) {
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	if cfg.Patience <= 0 {
		cfg.Patience = DefaultPatience
	}
	s, err := openSink(cfg.To)
	if err != nil {
		return nil, err
	}
	return &Log{cfg: cfg, process: appendProcess(nil, &cfg.Process), sink: s, room: cfg.Queue, wake: make(chan struct{}, 1)}, nil
}

// An UnavailableError says that lines cannot be written now, and why.
type UnavailableError struct{ Err error }

// Error says what is to be looked at.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("audit log cannot be written: %v", e.Err)
}

// Unwrap returns why.
func (e *UnavailableError) Unwrap() error { return e.Err }

var (
	errStuck = errors.New("it takes no more lines")
	errFull  = errors.New("too many lines wait to be written")
	errEnded = errors.New("this process is stopping")
)

// Allow records that something is allowed, as [Log.Record] does. Of a strict log
// it returns only when the line is written: an error, a *UnavailableError, says
// that it could not be, so that what was to be allowed must not be. recorded
// reports whether the line stands, or will stand, in the log all the same, so
// that its end has to follow.
func (l *Log) Allow(e *Event) (recorded bool, err error) {
	if l == nil {
		return true, nil
	}
	e.Kind, e.Allowed = Decision, true
	if !l.cfg.Strict {
		l.record(e, nil)
		return true, nil
	}
	if err := l.Ready(); err != nil {
		return false, err
	}
	done := make(chan struct{})
	if !l.record(e, done) {
		return false, &UnavailableError{errFull}
	}
	t := time.NewTimer(l.cfg.Patience)
	defer t.Stop()
	select {
	case <-done:
		return true, nil
	case <-t.C:
	}
	if err := l.Err(); err != nil {
		return true, err
	}
	return true, &UnavailableError{errStuck}
}

// Record hands a line to the queue. It never blocks; a line that finds the queue
// full is dropped and counted.
func (l *Log) Record(e *Event) {
	if l != nil {
		l.record(e, nil)
	}
}

// record reports whether the line is queued.
func (l *Log) record(e *Event, done chan<- struct{}) bool {
	ln := line{tail: appendTail(nil, l.process, e), done: done}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	ln.seq, ln.at = l.seq, time.Now()
	if l.bytes+ln.size() > l.room {
		l.stats.Dropped++
		l.missed++
		return false
	}
	l.bytes += ln.size()
	l.queue = append(l.queue, ln)
	l.kick()
	return true
}

// kick makes Run look again. It never blocks.
func (l *Log) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Reopen makes Run look now whether the file's name leads to another file, as it
// does at most followEvery after that by itself, before it writes the next line.
func (l *Log) Reopen() {
	if l != nil {
		l.asked.Store(true)
		l.kick()
	}
}

// Err returns why lines cannot be written, a *UnavailableError, or nil while
// they can.
func (l *Log) Err() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failure != nil:
		return &UnavailableError{l.failure}
	case !l.began.IsZero() && time.Since(l.began) > l.cfg.Patience:
		return &UnavailableError{errStuck}
	}
	return nil
}

// Ready is Err of a strict log, and nil of others: an error says that nothing
// can be allowed now.
func (l *Log) Ready() error {
	if l == nil || !l.cfg.Strict {
		return nil
	}
	return l.Err()
}

// Stats returns the counts so far.
func (l *Log) Stats() Stats {
	if l == nil {
		return Stats{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}
