package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// confinedVariable makes a test's process one that confines itself to the files that
// it names, as JSON, and then does what its arguments say.
const confinedVariable = "CULVERT_TEST_CONFINED"

func TestMain(m *testing.M) {
	if files, ok := os.LookupEnv(confinedVariable); ok {
		os.Exit(confined(files, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// confined does one thing after the other, and says for each how it went.
func confined(files string, steps []string) int {
	var f Files
	if err := json.Unmarshal([]byte(files), &f); err != nil {
		panic(err)
	}
	if _, err := Confine(f); err != nil {
		fmt.Println("confine:", err)
		return 1
	}
	for _, step := range steps {
		what, path, _ := strings.Cut(step, " ")
		var err error
		switch what {
		case "read":
			_, err = os.ReadFile(path)
		case "list":
			_, err = os.ReadDir(path)
		case "append":
			var file *os.File
			if file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil {
				err = file.Close()
			}
		case "replace": // by one that was made beside it
			if err = os.WriteFile(path+".new", nil, 0o600); err == nil {
				err = os.Rename(path+".new", path)
			}
		case "remove":
			err = os.Remove(path)
		case "listen":
			var ln net.Listener
			if ln, err = net.Listen("unix", path); err == nil {
				err = ln.Close() // which removes it
			}
		case "thread": // whatever thread this runs on
			done := make(chan error)
			go func() {
				_, err := os.ReadFile(path)
				done <- err
			}()
			err = <-done
		case "resolve":
			_, err = net.LookupHost(path)
		default:
			panic(step)
		}
		fmt.Printf("%s: %v\n", step, errors.Is(err, fs.ErrPermission))
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			fmt.Println(step, "failed otherwise:", err)
			return 1
		}
	}
	return 0
}

// needLandlock skips a test where nothing could be confined.
func needLandlock(t *testing.T) {
	t.Helper()
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 3 {
		t.Skipf("this kernel has Landlock %d (%v): version 3 is the first that covers what is done here", abi, err)
	}
}

// wantConfined runs such a process. Each step that begins with "!" has to be refused,
// and each other to be done.
func wantConfined(t *testing.T, f Files, steps ...string) {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var args, want []string
	for _, step := range steps {
		do, refused := strings.CutPrefix(step, "!")
		args, want = append(args, do), append(want, fmt.Sprintf("%s: %v", do, refused))
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), confinedVariable+"="+string(text))
	out, err := cmd.CombinedOutput()
	if got := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v: what was refused:\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestConfine(t *testing.T) {
	needLandlock(t)
	root := t.TempDir()
	at := func(path string) string { return filepath.Join(root, path) }
	for _, path := range []string{"config/settings.yaml", "keys/own.key", "log/audit", "state/histories", "elsewhere/secret", "run/other"} {
		if err := os.MkdirAll(filepath.Dir(at(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(path), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := Files{
		Read: []string{at("config/settings.yaml"), at("keys/own.key")}, Append: []string{at("log/audit"), "/dev/full"},
		Folders: []string{at("state")}, Sockets: []string{at("run/admin")},
	}
	wantConfined(t, f,
		"!read /etc/passwd", "!thread /etc/passwd", "!read "+at("elsewhere/secret"), "!list "+root, "!append "+at("elsewhere/new"), "!replace "+at("elsewhere/secret"),
		"read "+at("config/settings.yaml"), "read "+at("keys/own.key"), "!append "+at("keys/own.key"), "!replace "+at("keys/own.key"), "!remove "+at("config/settings.yaml"),
		"append "+at("log/audit"), "append "+at("log/another"), "append /dev/full", "!append /dev/null", "!remove "+at("log/audit"), "!replace "+at("log/audit"),
		"append "+at("state/histories"), "replace "+at("state/histories"), "remove "+at("state/histories"), "list "+at("state"), "!listen "+at("state/socket"),
		"listen "+at("run/admin"), "!append "+at("run/admin2"), "!read "+at("run/other"),
		"read /proc/self/stat", "list /proc/self/fd", "read /proc/stat", "!read /proc/1/environ", "!append /proc/self/comm",
		"resolve localhost",
	)
}

// A file that others have put in the place of the one that was there can be read: by
// renaming, and as Kubernetes exchanges all files of a volume.
func TestConfineAndExchange(t *testing.T) {
	needLandlock(t)
	root := t.TempDir()
	publish := func(version string) {
		t.Helper()
		err := os.MkdirAll(filepath.Join(root, version), 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, version, "settings.yaml"), nil, 0o600)
		}
		if err == nil {
			err = os.Symlink(version, filepath.Join(root, "..next"))
		}
		if err == nil {
			err = os.Rename(filepath.Join(root, "..next"), filepath.Join(root, "..data"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	publish("..1")
	settings := filepath.Join(root, "settings.yaml")
	if err := os.Symlink("..data/settings.yaml", settings); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "wait")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	exchanged := make(chan struct{})
	go func() { // ends when the process below has opened the other end
		defer close(exchanged)
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		publish("..2")
		_ = w.Close()
	}()
	wantConfined(t, Files{Read: []string{settings, fifo}}, "read "+settings, "read "+fifo, "read "+settings, "read "+filepath.Join(root, "..2", "settings.yaml"))
	if !t.Failed() {
		<-exchanged
	}
}

func TestExplain(t *testing.T) {
	for err, want := range map[error]string{unix.ENOSYS: "Linux 5.13", unix.EOPNOTSUPP: "lsm=", unix.EPERM: "filter of system calls", unix.EIO: "input/output"} {
		if got := explain(err); !errors.Is(got, ErrUnavailable) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %v, want ErrUnavailable with %q", err, got, want)
		}
	}
}
