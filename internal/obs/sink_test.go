package obs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// A pipe is what a log is written to: each write waits to be let through, once
// the pipe is stopped.
type pipe struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	stop chan struct{} // a write receives from it first; nil: it does not
	err  error
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	if stop != nil {
		<-stop
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	return p.buf.Write(b)
}

func (p *pipe) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Split(strings.TrimSuffix(p.buf.String(), "\n"), "\n")
}

// serving returns an Obs whose log goes into p and is served until stop, in a
// bubble.
func servingLog(t *testing.T, p *pipe) (o *Obs, stop func()) {
	t.Helper()
	o, err := New(Config{Command: "inlet", LogFormat: "json", LogOutput: p})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.ServeLog(ctx)
	}()
	synctest.Wait()
	return o, func() {
		cancel()
		<-done
	}
}

func dropped(t *testing.T, o *Obs) int {
	t.Helper()
	families, err := o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "culvert_log_dropped_total" {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	t.Fatal("culvert_log_dropped_total is missing")
	return 0
}

// A reader that stops holds nobody up who logs. What does not fit into the queue
// is counted, and told of where it would stand.
func TestLogReaderStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{stop: make(chan struct{})}
		o, stop := servingLog(t, p)
		text := strings.Repeat("x", 1000)
		const times = 3 * logQueue / 1000
		start := time.Now()
		for i := range times {
			o.Log.Info("flood", zap.Int("i", i), zap.String("text", text))
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("logging has waited for %s", took)
		}
		if held := o.sink.size; held > logQueue || held < logQueue/2 {
			t.Errorf("%d bytes are held, want up to %d", held, logQueue)
		}
		lost := dropped(t, o)
		if lost < times/2 || lost >= times {
			t.Errorf("%d of %d lines dropped", lost, times)
		}
		for range 2 {
			p.stop <- struct{}{}
		}
		synctest.Wait() // there is room again
		o.Log.Info("here again")
		close(p.stop)
		o.FlushLog(t.Context())
		lines := p.lines()
		if len(lines) != times-lost+2 {
			t.Fatalf("%d lines written, want %d of the flood and 2", len(lines), times-lost)
		}
		for i, line := range lines[:times-lost] {
			if !strings.Contains(line, fmt.Sprintf(`"i":%d,`, i)) {
				t.Fatalf("line %d is %.100q", i, line)
			}
		}
		want := regexp.MustCompile(`^\{"level":"warn","time":"[^"]+","logger":"inlet","msg":"lines of this log are missing here, .*","lines":` + fmt.Sprint(lost) + `\}$`)
		if got := lines[times-lost]; !want.MatchString(got) {
			t.Errorf("after the flood comes %q, want %s", got, want)
		}
		if got := lines[len(lines)-1]; !strings.Contains(got, "here again") {
			t.Errorf("the last line is %q", got)
		}
		stop()
		if got := dropped(t, o); got != lost {
			t.Errorf("%d lines dropped, want still %d", got, lost)
		}
	})
}

// A flood that is the last thing in a log is told of, too.
func TestLogEndsInAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{stop: make(chan struct{})}
		o, stop := servingLog(t, p)
		for range 3 * logQueue / 1000 {
			o.Log.Info(strings.Repeat("x", 1000))
		}
		close(p.stop)
		stop()
		lines := p.lines()
		if got := lines[len(lines)-1]; !strings.Contains(got, fmt.Sprintf(`"lines":%d}`, dropped(t, o))) {
			t.Errorf("the last line is %.200q, want how many are missing", got)
		}
	})
}

// At the end all is written that there is time for; then lines are written as
// they come.
func TestLogEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frees time.Duration // the reader reads again
		want  time.Duration // the wait
	}{{"in time", 500 * time.Millisecond, 500 * time.Millisecond}, {"too late", time.Hour, logFlush}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pipe{stop: make(chan struct{})}
				o, stop := servingLog(t, p)
				for i := range 100 {
					o.Log.Info("line", zap.Int("i", i))
				}
				start := time.Now()
				time.AfterFunc(tt.frees, func() { close(p.stop) })
				stop()
				if took := time.Since(start); took != tt.want {
					t.Errorf("ended after %s, want %s", took, tt.want)
				}
				o.Log.Info("bye")
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				o.Log.Info("for certain")
				lines := p.lines()
				if n := len(lines); n != 102 || !strings.Contains(lines[100], "bye") || !strings.Contains(lines[101], "for certain") {
					t.Errorf("%d lines, want 102: %q", n, lines[max(0, n-2):])
				}
			})
		})
	}
}

// Lines come whole and in the order in which each goroutine has logged them.
func TestLogOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{}
		o, stop := servingLog(t, p)
		const writers, each = 8, 200
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					o.Log.Info("line", zap.Int("writer", w), zap.Int("i", i))
				}
			})
		}
		wg.Wait()
		stop()
		next := make([]int, writers)
		form := regexp.MustCompile(`"writer":(\d+),"i":(\d+)\}$`)
		for _, line := range p.lines() {
			m := form.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("line %q", line)
			}
			w := int(m[1][0] - '0')
			if m[2] != fmt.Sprint(next[w]) {
				t.Fatalf("%q comes where line %d of that goroutine belongs", line, next[w])
			}
			next[w]++
		}
		for w, n := range next {
			if n != each || dropped(t, o) != 0 {
				t.Errorf("%d lines of goroutine %d and %d dropped, want %d and none", n, w, dropped(t, o), each)
			}
		}
	})
}

// What cannot be written is counted.
func TestLogFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipe{err: errors.New("broken pipe")}
		o, stop := servingLog(t, p)
		for range 3 {
			o.Log.Info("line")
		}
		stop()
		if got := dropped(t, o); got != 3 {
			t.Errorf("%d lines dropped, want 3", got)
		}
	})
}
