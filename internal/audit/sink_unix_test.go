//go:build unix

package audit

import (
	"bufio"
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-net/culvert/internal/testenv"
)

// fifo makes a FIFO.
func fifo(t *testing.T) string {
	t.Helper()
	file := auditFile(t)
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A disk that is full: lines wait, and are dropped and counted when there are
// too many; a strict log allows nothing.
func TestDiskFull(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /dev/full")
	}
	l := start(t, Config{To: "/dev/full", Queue: 10 * MaxLine, Patience: 50 * time.Millisecond})
	l.record(1000)
	if err := receive(t, "a failure", l.failed); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("told %v, want ENOSPC", err)
	}
	if recorded, err := l.Allow(&Event{Action: Open}); !recorded || err != nil {
		t.Errorf("Allow of a log that is not strict: %v, %v", recorded, err)
	}
	if err := l.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Err: %v, want ENOSPC", err)
	}
	l.stop()
	if st := l.Stats(); st.Written != 0 || st.Dropped != 1001 {
		t.Errorf("%+v, want 1001 dropped", st)
	}

	strict := start(t, Config{To: "/dev/full", Strict: true, Patience: 50 * time.Millisecond})
	if recorded, err := strict.Allow(&Event{Action: Open}); !recorded || err == nil {
		t.Errorf("the first Allow: %v, %v; want a line that waits, and an error", recorded, err)
	}
	if recorded, err := strict.Allow(&Event{Action: Open}); recorded || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the next Allow: %v, %v; want ENOSPC", recorded, err)
	}
	if len(l.failed) > 0 {
		t.Errorf("one failure was told %d times", len(l.failed)+1)
	}
}

// A file that takes half a line takes the rest later, and is whole then.
func TestDiskFullInALine(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Skip(err)
	}
	file := auditFile(t)
	l := start(t, Config{To: file})
	l.record(1)
	eventually(t, "written", func() bool { return l.Stats().Written == 1 })
	// The process can write no more than one line and a piece, for a while.
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	short := limit
	short.Cur = uint64(info.Size()) + 100
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &short); err != nil {
		t.Skip(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_FSIZE, &limit) }()
	l.record(10)
	if err := receive(t, "a failure", l.failed); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("told %v, want EFBIG", err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() != int64(short.Cur) {
		t.Errorf("the file has %d bytes, %v; want half a line: %d", info.Size(), err, short.Cur)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if n := receive(t, "recovery", l.recovered); n != 0 {
		t.Errorf("%d lines dropped, want none", n)
	}
	l.stop()
	wantSeqs(t, seqs(t, file), 11)
}

// A FIFO that nobody reads fills, and is found stuck; who comes to read gets
// whole lines in order. Run ends in time either way.
func TestStuckFIFO(t *testing.T) {
	file := fifo(t)
	l := start(t, Config{To: file, Queue: 16 << 20, Strict: true, Patience: 50 * time.Millisecond})
	const n = 1000 // more than a pipe holds
	l.record(n)
	if err := receive(t, "a failure", l.failed); !errors.Is(err, errStuck) {
		t.Errorf("told %v, want errStuck", err)
	}
	if recorded, err := l.Allow(&Event{Action: Open}); recorded || !errors.Is(err, errStuck) {
		t.Errorf("Allow: %v, %v; want errStuck", recorded, err)
	}
	reader, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	in := bufio.NewReader(reader)
	var all []byte
	for range n {
		text, err := in.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	wantSeqs(t, seqsOf(t, all), n)
	receive(t, "recovery", l.recovered)
	if recorded, err := l.Allow(&Event{Action: Open}); !recorded || err != nil {
		t.Errorf("Allow after recovery: %v, %v", recorded, err)
	}

	l.record(n)
	eventually(t, "stuck again", func() bool { return l.Err() != nil })
	watch := testenv.Start(t)
	l.stop()
	if took := watch.Took(); took > 5*time.Second {
		t.Errorf("Run took %s to end", took)
	}
	if st := l.Stats(); st.Written+st.Dropped != 2*n+1 || st.Dropped == 0 {
		t.Errorf("%+v, want %d together and some dropped", st, 2*n+1)
	}
}

// A standard stream that is a pipe: a reader that stops is noticed, one that
// goes away is an error and not the process's end.
func TestStandardStream(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	// A blocking pipe, as the shell makes it.
	own, err := unix.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(own, false); err != nil {
		t.Fatal(err)
	}
	w.Close()
	standard := os.Stdout
	os.Stdout = os.NewFile(uintptr(own), "stdout")
	defer func() {
		os.Stdout.Close()
		os.Stdout = standard
	}()
	l := start(t, Config{To: stdout, Queue: 16 << 20, Patience: 50 * time.Millisecond})
	l.record(1000)
	if err := receive(t, "a failure", l.failed); !errors.Is(err, errStuck) {
		t.Errorf("told %v, want errStuck", err)
	}
	buf := make([]byte, 16<<10)
	if _, err := io.ReadFull(r, buf); err != nil {
		t.Fatal(err)
	}
	r.Close()
	eventually(t, "the reader's end is an error", func() bool { return errors.Is(l.Err(), syscall.EPIPE) })
	l.stop()
	if _, err := os.Stdout.Stat(); err != nil {
		t.Errorf("the log has closed standard output: %v", err)
	}
}
