package audit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// All that is recorded before Run's end is written by then, in order, to a file
// that nobody else can read, behind what was there.
func TestFile(t *testing.T) {
	file := auditFile(t)
	l := start(t, Config{To: file})
	l.record(1000)
	l.stop()
	wantSeqs(t, seqs(t, file), 1000)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if st := l.Stats(); st != (Stats{Written: 1000}) {
		t.Errorf("%+v, want 1000 written", st)
	}
	again := start(t, Config{To: file})
	again.record(1)
	again.stop()
	if got := seqs(t, file); len(got) != 1001 || got[1000] != 1 {
		t.Errorf("a second process leaves %d lines, want 1001", len(got))
	}
	if l.Record(&Event{}); l.Stats().Dropped != 1 {
		t.Error("a line recorded after Run is not counted as dropped")
	}
}

// Several record at a time: numbers are in the order of the lines.
func TestConcurrent(t *testing.T) {
	file := auditFile(t)
	l := start(t, Config{To: file})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { l.record(500) })
	}
	wg.Wait()
	l.stop()
	wantSeqs(t, seqs(t, file), 4000)
}

// A piece of a line that a killed process has left does not spoil the next one.
func TestTornFile(t *testing.T) {
	file := auditFile(t)
	const piece = `{"time":"2026`
	if err := os.WriteFile(file, []byte(piece), 0o600); err != nil {
		t.Fatal(err)
	}
	l := start(t, Config{To: file})
	l.record(3)
	l.stop()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(string(b), piece+"\n")
	if !ok {
		t.Fatalf("the file begins with %.40q", b)
	}
	wantSeqs(t, seqsOf(t, []byte(rest)), 3)
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	for to, want := range map[string]string{
		dir:                                 "is a folder",
		filepath.Join(dir, "none", "a.log"): "no such file",
	} {
		if l, err := New(Config{To: to}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), to) {
			t.Errorf("New(%s): %v, %v; want an error that names it and says %q", to, l, err, want)
		}
	}
}

// A file that is renamed, removed or put in place by somebody else is followed,
// under load: no line is lost, none doubled, none torn.
func TestRotation(t *testing.T) {
	file := auditFile(t)
	l := start(t, Config{To: file, Queue: 64 << 20})
	var rotated []string
	turn, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			l.record(500)
			turn <- struct{}{}
		}
	}()
	for i := range 20 {
		<-turn
		to := file + "." + string(rune('a'+i))
		// By then the log has come back to the name after the last time.
		eventually(t, "the file is there", func() bool { _, err := os.Stat(file); return err == nil })
		if err := os.Rename(file, to); err != nil {
			t.Fatal(err)
		}
		rotated = append(rotated, to)
		if i%2 == 0 { // as logrotate's create does
			if err := os.WriteFile(file, nil, 0o640); err != nil {
				t.Fatal(err)
			}
		}
		l.Reopen()
	}
	<-done
	eventually(t, "the file is there", func() bool { _, err := os.Stat(file); return err == nil })
	l.stop()
	wantSeqs(t, seqs(t, append(rotated, file)...), 10_000)
	if st := l.Stats(); st.Dropped != 0 {
		t.Errorf("%+v, want none dropped", st)
	}
}

// Without a word from anybody a renamed file is noticed with the next line.
func TestRotationUnasked(t *testing.T) {
	file := auditFile(t)
	l := start(t, Config{To: file})
	l.record(1)
	eventually(t, "written", func() bool { return l.Stats().Written == 1 })
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "lines come to the new file", func() bool {
		l.record(1)
		b, err := os.ReadFile(file)
		return err == nil && len(b) > 0
	})
	l.stop()
	wantSeqs(t, seqs(t, file+".1", file), int(l.Stats().Written))
}

// A name that leads nowhere any more keeps lines in the queue until it does.
func TestRotationFails(t *testing.T) {
	for _, strict := range []bool{false, true} {
		file := auditFile(t)
		l := start(t, Config{To: file, Strict: strict})
		folder := filepath.Dir(file)
		if err := os.Rename(folder, folder+".old"); err != nil {
			t.Fatal(err)
		}
		l.Reopen()
		if err := receive(t, "a failure", l.failed); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), file) {
			t.Errorf("told %v, want that %s is not there", err, file)
		}
		recorded, err := l.Allow(&Event{Action: Open, Code: "ok"})
		if recorded == strict || (err != nil) != strict {
			t.Errorf("strict %v: Allow: %v, %v", strict, recorded, err)
		}
		if err := os.Rename(folder+".old", folder); err != nil {
			t.Fatal(err)
		}
		receive(t, "recovery", l.recovered)
		if _, err := l.Allow(&Event{Action: Open, Code: "ok"}); err != nil {
			t.Errorf("strict %v: Allow after recovery: %v", strict, err)
		}
		l.stop()
		if got := seqs(t, file); len(got) == 0 || l.Stats().Dropped != 0 {
			t.Errorf("strict %v: %d lines, %+v", strict, len(got), l.Stats())
		}
	}
}

// A strict log allows what is written, and only that.
func TestStrict(t *testing.T) {
	file := auditFile(t)
	l := start(t, Config{To: file, Strict: true})
	for i := range 10 {
		recorded, err := l.Allow(&Event{Action: Open, Code: "ok"})
		if !recorded || err != nil {
			t.Fatalf("Allow: %v, %v", recorded, err)
		}
		wantSeqs(t, seqs(t, file), i+1)
	}
	l.stop()
	var unavailable *UnavailableError
	if recorded, err := l.Allow(&Event{Action: Open}); recorded || !errors.As(err, &unavailable) {
		t.Errorf("Allow after Run: %v, %v; want an *UnavailableError", recorded, err)
	}
}

func TestNil(t *testing.T) {
	var l *Log
	l.Record(&Event{})
	l.Reopen()
	l.Run(t.Context())
	if ok, err := l.Allow(&Event{}); !ok || err != nil || l.Err() != nil || l.Stats() != (Stats{}) {
		t.Errorf("a nil Log: Allow %v, %v; Err %v; %+v", ok, err, l.Err(), l.Stats())
	}
}

// A log that has no Run yet keeps what fits, counts what does not, and a strict
// one does not wait for ever.
func TestQueueIsBounded(t *testing.T) {
	file := auditFile(t)
	l, err := New(Config{To: file, Queue: 3 * MaxLine, Strict: true, Patience: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer l.sink.close()
	if recorded, err := l.Allow(&Event{Action: Open}); !recorded || !errors.Is(err, errStuck) {
		t.Errorf("Allow: %v, %v; want a line that will be written and errStuck", recorded, err)
	}
	for range 1000 {
		l.Record(&Event{Action: Open, Reason: strings.Repeat("x", 2000)})
	}
	if l.bytes > 3*MaxLine || len(l.queue) < 3 {
		t.Errorf("%d lines of %d bytes wait", len(l.queue), l.bytes)
	}
	if got := l.Stats().Dropped; got != uint64(1001-len(l.queue)) {
		t.Errorf("%d dropped of 1001, %d wait", got, len(l.queue))
	}
	if recorded, err := l.Allow(&Event{Action: Open, Reason: strings.Repeat("x", 2000)}); recorded || !errors.Is(err, errFull) {
		t.Errorf("Allow with a full queue: %v, %v; want errFull", recorded, err)
	}
}
