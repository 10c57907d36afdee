package secretfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// put writes a file that only its owner can use.
func put(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantRefused wants path not to be opened, with an error that names it.
func wantRefused(t *testing.T, path string, why error) {
	t.Helper()
	f, info, err := Open(path)
	var named *fs.PathError
	if f != nil || info != nil || !errors.As(err, &named) || named.Path != path {
		t.Errorf("Open(%s) = %v, %v, %v; want an error about the path, and no file", path, f, info, err)
	}
	if why != nil && !errors.Is(err, why) {
		t.Errorf("Open(%s): %v, want %v", path, err, why)
	}
}

// What is opened is what was judged, whatever the name leads to by then.
func TestOpen(t *testing.T) {
	path := put(t, "old")
	f, info, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !info.Mode().IsRegular() || info.Size() != 3 {
		t.Errorf("it is %v, with %d bytes", info.Mode(), info.Size())
	}
	now, err := f.Stat()
	if err != nil || !os.SameFile(now, info) {
		t.Errorf("what was judged is not what was opened: %v", err)
	}
	if got, err := Read(f, 3); err != nil || string(got) != "old" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	wantRefused(t, filepath.Join(t.TempDir(), "missing"), fs.ErrNotExist)
	wantRefused(t, t.TempDir(), ErrNotRegular)
}

// A buffer holds as much as may be, in whatever pieces it comes, and no byte more.
func TestRead(t *testing.T) {
	const most = 8
	for n := range most + 3 {
		for name, pieces := range map[string]func(io.Reader) io.Reader{
			"at once":         func(r io.Reader) io.Reader { return r },
			"byte by byte":    iotest.OneByteReader,
			"its end with it": iotest.DataErrReader,
		} {
			want := strings.Repeat("s", n)
			got, err := Read(pieces(strings.NewReader(want)), most)
			switch {
			case n > most && (err != ErrTooLong || got != nil):
				t.Errorf("%d bytes, %s: got %q, %v; want %v", n, name, got, err, ErrTooLong)
			case n <= most && (err != nil || string(got) != want):
				t.Errorf("%d bytes, %s: got %q, %v", n, name, got, err)
			}
		}
	}
}

// A keeper is a reader that keeps the buffers that it has filled.
type keeper struct {
	io.Reader
	kept [][]byte
}

func (k *keeper) Read(b []byte) (int, error) {
	n, err := k.Reader.Read(b)
	k.kept = append(k.kept, b[:n])
	return n, err
}

// What was read of a secret does not stay behind where it comes to nothing.
func TestReadClears(t *testing.T) {
	broken := errors.New("the disk is broken")
	for want, r := range map[error]io.Reader{
		broken:     io.MultiReader(strings.NewReader("hunter2"), iotest.ErrReader(broken)),
		ErrTooLong: strings.NewReader("hunter2 hunter2"),
	} {
		k := &keeper{Reader: r}
		if got, err := Read(k, 8); err != want || got != nil {
			t.Errorf("got %q, %v; want %v", got, err, want)
		}
		if left := bytes.Trim(bytes.Join(k.kept, nil), "\x00"); len(k.kept) == 0 || len(left) > 0 {
			t.Errorf("%v: %q is left of %d pieces", want, left, len(k.kept))
		}
	}
}
