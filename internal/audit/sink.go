package audit

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// followEvery is how often it is looked whether a file's name leads to another
// file.
const followEvery = 100 * time.Millisecond

// The names that stand for standard streams.
const (
	stdout = "stdout"
	stderr = "stderr"
)

// A sink is where lines go. It belongs to one goroutine.
type sink struct {
	path   string // "": a standard stream, which is not followed
	f      *os.File
	looked time.Time
	begun  int  // bytes of the line under way that f has taken already
	torn   bool // f ends in a piece of a line, of a process that is no more
}

// openSink opens a file to append to, or takes a standard stream.
func openSink(to string) (*sink, error) {
	var err error
	s := &sink{looked: time.Now()}
	switch to {
	case stdout:
		s.f, err = duplicate(os.Stdout)
	case stderr:
		s.f, err = duplicate(os.Stderr)
	default:
		s.path = to
		s.f, s.torn, err = openFile(to)
	}
	return s, err
}

// openFile opens a file to append to. torn says that it does not end with a
// line's end.
func openFile(path string) (f *os.File, torn bool, err error) {
	// Never to wait for somebody who reads, as opening a FIFO can. One that is
	// open for reading too keeps what is in it while nobody else reads.
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE | nonblock
	info, err := os.Stat(path)
	switch {
	case err != nil:
	case info.IsDir():
		return nil, false, fmt.Errorf("%s is a folder: want a file, stdout or stderr", path)
	case info.Mode()&os.ModeNamedPipe != 0:
		flags = os.O_RDWR | nonblock
	}
	if f, err = os.OpenFile(path, flags, 0o600); err != nil {
		return nil, false, err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		torn = !endsLine(path, info.Size())
	}
	return f, torn, nil
}

// endsLine reports whether a file of that size ends with a newline, as far as
// one may know. An empty line more does no harm.
func endsLine(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return err == nil && last[0] == '\n'
}

// follow opens the file that the path leads to, if it is another one: at once
// when asked, else when it has not been looked for a while. On an error the old
// one stays.
func (s *sink) follow(asked bool) error {
	if s.path == "" || !asked && time.Since(s.looked) < followEvery {
		return nil
	}
	is, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if was, ferr := s.f.Stat(); err == nil && ferr == nil && os.SameFile(was, is) {
		s.looked = time.Now()
		return nil
	}
	f, torn, err := openFile(s.path)
	if err != nil {
		return err
	}
	if s.begun > 0 {
		_, _ = s.f.WriteString("\n") // the line is written whole to the new file
	}
	_ = s.f.Close() // nothing is buffered
	s.f, s.torn, s.begun, s.looked = f, torn, 0, time.Now()
	return nil
}

// write writes a line by one write, or the rest of one that was cut short: the
// caller gives the same line again after an error. It waits for a pipe that is
// full for as long as patience.
func (s *sink) write(text []byte, patience time.Duration) error {
	until := time.Now().Add(patience)
	if s.torn {
		if _, err := s.put([]byte{'\n'}, until); err != nil {
			return err
		}
		s.torn = false
	}
	n, err := s.put(text[s.begun:], until)
	if s.begun += n; err == nil {
		s.begun = 0
	}
	return err
}

// put is one write, which waits until a pipe has room.
func (s *sink) put(b []byte, until time.Time) (int, error) {
	if s.f.SetWriteDeadline(until) != nil {
		// It is no file that the runtime waits for.
		if err := awaitWritable(s.f, until); err != nil {
			return 0, err
		}
	}
	n, err := s.f.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errStuck
	}
	return n, err
}

func (s *sink) close() {
	if s.f != os.Stdout && s.f != os.Stderr { // where there is no duplicate
		_ = s.f.Close() // nothing is buffered
	}
}
