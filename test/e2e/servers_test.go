//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The real servers are started when a test first wants them and stopped at the
// end of the run. A server that is not installed fails the test: `make deps`
// installs it.
var (
	postgresServer = &server{name: "postgres", start: startPostgres, ready: postgresReady, stop: syscall.SIGINT}
	mariadbServer  = &server{name: "mariadbd", start: startMariaDB, ready: mariadbReady, stop: syscall.SIGTERM}
	redisServer    = &server{name: "redis-server", start: startRedis, ready: redisReady, stop: syscall.SIGTERM}
)

// A server is a database that all tests share.
type server struct {
	name  string
	start func(dir, port string) (*exec.Cmd, error)
	ready func(addr string) error
	stop  os.Signal

	once sync.Once
	proc *proc
	addr string
	err  error
}

// at returns the server's address, after it has been started.
func (s *server) at(t *testing.T) string {
	t.Helper()
	s.once.Do(func() { s.err = s.run(t) })
	if s.err != nil {
		t.Fatalf("%s: %v", s.name, s.err)
	}
	return s.addr
}

func (s *server) run(t *testing.T) error {
	dir := filepath.Join(runDir, s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	giveAway(t, dir)
	s.addr = freeAddr(t)
	_, port := splitAddr(s.addr)
	cmd, err := s.start(dir, port)
	if err != nil {
		return err
	}
	cmd.Dir = dir
	if s.proc, err = startProc(s.name, unprivileged(cmd)); err != nil {
		return err
	}
	var last error
	if !eventually(60*time.Second, func() bool { last = s.ready(s.addr); return last == nil || !s.proc.running() }) || last != nil {
		return fmt.Errorf("not ready: %w\n%s", last, s.proc.log.tail(30))
	}
	return nil
}

// stopServers ends the servers that run. It returns 1 if one does not end.
func stopServers() (code int) {
	for _, s := range []*server{postgresServer, mariadbServer, redisServer} {
		if s.proc == nil {
			continue
		}
		s.proc.signal(s.stop)
		select {
		case <-s.proc.done:
		case <-time.After(30 * time.Second):
			fmt.Fprintf(os.Stderr, "%s does not end:\n%s", s.name, s.proc.log.tail(20))
			s.proc.kill()
			code = 1
		}
	}
	return code
}

func splitAddr(addr string) (host, port string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	return host, port
}

// find returns the path of a program that Debian keeps in one of these places,
// or in PATH.
func find(name string, globs ...string) (string, error) {
	for _, glob := range globs {
		if found, _ := filepath.Glob(filepath.Join(glob, name)); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: run 'make deps'", err)
	}
	return path, nil
}

// tool is [find] for a client that a test runs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := find(name, "/usr/lib/postgresql/*/bin")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// prepare runs a server's own set-up program as the server's user.
func prepare(dir, path string, args ...string) error {
	cmd := unprivileged(exec.Command(path, args...))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, out)
	}
	return nil
}

// startPostgres makes a cluster in which everyone from loopback is the
// superuser "postgres". It gives up durability, which these tests do not need.
func startPostgres(dir, port string) (*exec.Cmd, error) {
	initdb, err := find("initdb", "/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := prepare(dir, initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	return exec.Command(filepath.Join(filepath.Dir(initdb), "postgres"), "-D", data, "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+dir, "-c", "max_connections=200",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "wal_level=minimal", "-c", "max_wal_senders=0",
		"-c", "max_wal_size=2GB"), nil
}

func postgresReady(addr string) error {
	host, port := splitAddr(addr)
	ready, err := find("pg_isready", "/usr/lib/postgresql/*/bin")
	if err != nil {
		return err
	}
	return exec.Command(ready, "-h", host, "-p", port).Run()
}

func startMariaDB(dir, port string) (*exec.Cmd, error) {
	install, err := find("mariadb-install-db", "/usr/bin")
	if err != nil {
		return nil, err
	}
	daemon, err := find("mariadbd", "/usr/sbin", "/usr/libexec")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := prepare(dir, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db"); err != nil {
		return nil, err
	}
	return exec.Command(daemon, "--no-defaults", "--datadir="+data, "--socket="+filepath.Join(dir, "sock"), "--pid-file="+filepath.Join(dir, "pid"),
		"--port="+port, "--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--max-allowed-packet=64M"), nil
}

// mariadbReady reads the greeting, with which this server begins.
func mariadbReady(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err = c.Read(make([]byte, 1))
	return err
}

func startRedis(dir, port string) (*exec.Cmd, error) {
	daemon, err := find("redis-server", "/usr/bin")
	if err != nil {
		return nil, err
	}
	return exec.Command(daemon, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir), nil
}

func redisReady(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	return tryPing(c)
}

func tryPing(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	got := make([]byte, 7)
	if _, err := c.Read(got); err != nil {
		return err
	}
	if string(got) != "+PONG\r\n" {
		return errors.New("answered " + strconv.Quote(string(got)))
	}
	return nil
}
