package audit

import (
	"context"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/wait"
)

// retryEvery is the pause between attempts to write while the sink refuses.
const retryEvery = 100 * time.Millisecond

// Run writes what is recorded until ctx ends, then what is queued, for which it
// waits as long as [Config.Patience] says, and closes the file. Lines that are
// recorded afterwards are dropped. It is called once.
func (l *Log) Run(ctx context.Context) {
	if l == nil {
		return
	}
	defer l.sink.close()
	defer l.shut()
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	waiting.Go(func() { // what is left when ctx ends has that much time
		select {
		case <-ctx.Done():
			wait.Sleep(last, l.cfg.Patience)
			cancel()
		case <-last.Done():
		}
	})
	for {
		lines := l.take(ctx)
		if lines == nil {
			return
		}
		for i := range lines {
			if !l.write(last, &lines[i]) {
				l.lose(len(lines) - i)
				return
			}
		}
	}
}

// take waits for lines, and returns all that wait; nil when ctx has ended and
// there are none. Meanwhile it follows the file when it is asked to.
func (l *Log) take(ctx context.Context) []line {
	var again <-chan time.Time
	for {
		l.mu.Lock()
		lines := l.queue
		l.queue = nil
		l.mu.Unlock()
		if len(lines) > 0 {
			return lines
		}
		if again = nil; l.asked.Load() {
			if l.follow() {
				l.works()
			} else {
				again = time.After(retryEvery)
			}
		}
		select {
		case <-l.wake:
		case <-again:
		case <-ctx.Done():
			if l.idle() {
				return nil
			}
		}
	}
}

// idle reports whether nothing waits.
func (l *Log) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) == 0
}

// follow opens the file anew where its name leads to another one, and reports
// whether lines can be written.
func (l *Log) follow() bool {
	asked := l.asked.Swap(false)
	if err := l.sink.follow(asked); err != nil {
		l.asked.Store(true) // try again
		l.failed(err)
		return false
	}
	return true
}

// write writes one line, however long that takes; it reports false when ctx has
// ended before.
func (l *Log) write(ctx context.Context, ln *line) bool {
	l.text = append(appendHead(l.text[:0], ln.seq, ln.at), ln.tail...)
	l.mu.Lock()
	l.began = time.Now()
	l.mu.Unlock()
	for {
		if l.follow() {
			err := l.sink.write(l.text, l.cfg.Patience)
			if err == nil {
				break
			}
			l.failed(err)
		}
		if !wait.Sleep(ctx, retryEvery) {
			return false
		}
	}
	l.written(ln)
	return true
}

// written takes a line off the queue, and tells whoever waits for it.
func (l *Log) written(ln *line) {
	l.mu.Lock()
	l.stats.Written++
	l.bytes -= ln.size()
	l.began = time.Time{}
	l.mu.Unlock()
	l.works()
	if ln.done != nil {
		close(ln.done)
	}
}

// works notes that the sink takes lines.
func (l *Log) works() {
	l.mu.Lock()
	l.failure = nil
	missed, over := l.missed, l.bytes == 0
	if over {
		l.missed = 0
	}
	l.mu.Unlock()
	if missed > 0 && !l.trouble {
		l.tell(&UnavailableError{errFull})
	}
	if over && l.trouble {
		l.trouble = false
		if l.cfg.Recovered != nil {
			l.cfg.Recovered(missed)
		}
	}
}

// failed notes why the sink takes nothing.
func (l *Log) failed(err error) {
	l.mu.Lock()
	l.failure = err
	l.mu.Unlock()
	if !l.trouble {
		l.tell(&UnavailableError{err})
	}
}

func (l *Log) tell(err error) {
	l.trouble = true
	if l.cfg.Failed != nil {
		l.cfg.Failed(err)
	}
}

// lose counts lines that Run has taken and could not write.
func (l *Log) lose(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Dropped += uint64(n)
}

// shut drops what is queued when Run ends, and all that comes later.
func (l *Log) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Dropped += uint64(len(l.queue))
	l.queue, l.bytes, l.room = nil, 0, 0
	l.failure = errEnded
}
