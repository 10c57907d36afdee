package identity

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// put writes data to a new file that only its owner can read.
func put(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relay.key")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFilesRoundTrip(t *testing.T) {
	id := testIdentity(t, 2)
	dir := t.TempDir()
	private, public := filepath.Join(dir, "relay.key"), filepath.Join(dir, "relay.pub")
	if err := errors.Join(id.WriteFile(private), id.History().WriteFile(public)); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(private)
	if err != nil || !got.key().Equal(id.key()) || got.History().LastHash() != id.History().LastHash() {
		t.Errorf("ReadFile = %v, %v; want %v", got, err, id)
	}
	for _, path := range []string{private, public} {
		h, err := ReadPublicFile(path)
		if err != nil || h.LastHash() != id.History().LastHash() {
			t.Errorf("ReadPublicFile(%s) = %v, want the history", path, err)
		}
	}
	data, err := os.ReadFile(public)
	if err != nil || bytes.Contains(data, []byte("PRIVATE")) || !bytes.Equal(data, id.History().MarshalPEM()) {
		t.Errorf("public file holds %q, %v", data, err)
	}
	_, err = ReadFile(public)
	wantError(t, err, "identity file "+public+": ", "holds no private key", "name the private file")
}

func TestWriteFileNeverOverwrites(t *testing.T) {
	id := testIdentity(t, 1)
	path := put(t, []byte("precious"))
	for _, err := range []error{id.WriteFile(path), id.History().WriteFile(path)} {
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("WriteFile = %v, want %v", err, fs.ErrExist)
		}
		wantError(t, err, "writing identity file "+path+": ", "never overwritten: choose another name")
		if strings.Count(err.Error(), path) != 1 {
			t.Errorf("error %q names the file more than once", err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
		t.Errorf("file holds %q, %v; want it untouched", got, err)
	}
	err := id.WriteFile(filepath.Join(t.TempDir(), "no", "such", "folder"))
	wantError(t, err, "writing identity file", "its folder is not there", "check the name")
	if !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "identity new") {
		t.Errorf("WriteFile = %v: want %v, and no advice to do what was just done", err, fs.ErrNotExist)
	}
}

func TestReadFileRefuses(t *testing.T) {
	good := testIdentity(t, 1).MarshalPEM()
	missing := filepath.Join(t.TempDir(), "missing.key")
	tests := []struct{ name, path, want string }{
		{"missing", missing, `make one with "culvert identity new -o FILE"`},
		{"folder", t.TempDir(), "not a regular file"},
		{"empty", put(t, nil), "file is empty"},
		{"too long", put(t, append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxFileLen)...)), "longer than 65536 bytes"},
		{"just too long", put(t, make([]byte, maxFileLen+1)), "longer than 65536 bytes"},
		{"as long as it may be", put(t, make([]byte, maxFileLen)), "does not start with a PEM block"},
		{"junk behind", put(t, append(bytes.Clone(good), "junk"...)), "text behind"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, err := ReadFile(tt.path)
			wantError(t, err, "identity file "+tt.path+": ", tt.want)
			if id != nil {
				t.Error("an error came with an identity")
			}
			if strings.Count(err.Error(), tt.path) != 1 {
				t.Errorf("error %q names the file more than once", err)
			}
			_, err = ReadPublicFile(tt.path)
			wantError(t, err, "identity file "+tt.path+": ", tt.want)
		})
	}
	if _, err := ReadFile(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile = %v, want %v", err, fs.ErrNotExist)
	}
}

// failing is a file whose operations fail as told.
type failing struct {
	write, sync, close error
	wrote, synced      bool
	closed             int
}

func (f *failing) Write(b []byte) (int, error) { f.wrote = true; return len(b) / 2, f.write }
func (f *failing) Sync() error                 { f.synced = true; return f.sync }
func (f *failing) Close() error                { f.closed++; return f.close }

func TestFillReportsEveryFailure(t *testing.T) {
	full, lost, stale := errors.New("disk full"), errors.New("sync lost"), errors.New("stale handle")
	for _, f := range []*failing{{write: full}, {sync: lost}, {close: stale}, {write: full, close: stale}, {}} {
		err := fill(f, []byte("data"))
		want := errors.Join(f.write, f.sync, f.close)
		if (err == nil) != (want == nil) || f.closed != 1 {
			t.Errorf("fill = %v and closed %d times, want %v and once", err, f.closed, want)
		}
		for _, e := range []error{f.write, f.sync, f.close} {
			if e != nil && !errors.Is(err, e) {
				t.Errorf("fill = %v, want %v in it", err, e)
			}
		}
		if f.write == nil && !f.synced {
			t.Error("fill did not put the data on disk")
		}
	}
}
