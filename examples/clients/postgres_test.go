package clients_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
)

// postgresAddr is where the server of startPostgres listens.
var postgresAddr string

// startPostgres starts a PostgreSQL server in a temporary folder, as nobody where this
// process is root's: it does not run as root. "make deps" installs it.
func startPostgres() (stop func(), err error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return nil, errors.New("there is no PostgreSQL in /usr/lib/postgresql: make deps installs it")
	}
	bin := slices.Max(found)
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = dir
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		return cmd
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			return nil, err
		}
	}
	if out, err := command("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	number, release, err := testenv.Reserve()
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(number)
	postgresAddr = net.JoinHostPort("127.0.0.1", port)
	var said bytes.Buffer
	server := command("postgres", "-D", data, "-h", "127.0.0.1", "-p", port, "-k", "", "-F")
	server.Stderr = &said
	if err := server.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	stop = func() {
		_ = server.Process.Signal(syscall.SIGINT)
		<-ended
		release()
		_ = os.RemoveAll(dir)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if command("pg_isready", "-q", "-h", "127.0.0.1", "-p", port).Run() == nil {
			return stop, nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("postgres: %w\n%s", err, said.String())
		default:
		}
		if time.Now().After(end) {
			stop()
			return nil, fmt.Errorf("postgres is not ready\n%s", said.String())
		}
	}
}
