// Package examples has no code: each folder is a program, or several that belong
// together. The tests run them as processes.
package examples

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/identity"
)

var bin string // where the programs are

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "examples")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		return m.Run()
	}())
}

// program builds a program of this folder and returns where it is.
func program(t *testing.T, path string) string {
	t.Helper()
	out := filepath.Join(bin, strings.ReplaceAll(path, "/", "-"))
	if _, err := os.Stat(out); err == nil {
		return out
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, "./"+path)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", path, err, b)
	}
	return out
}

// A process is a program that runs.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	all   bytes.Buffer // of its output, as far as it was read
	errs  bytes.Buffer
}

func start(t *testing.T, path string, args ...string) *process {
	t.Helper()
	return startProgram(t, program(t, path), args...)
}

func startProgram(t *testing.T, exe string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	p := &process{t: t, cmd: exec.CommandContext(ctx, exe, args...)}
	p.cmd.Stderr = &p.errs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(io.TeeReader(out, &p.all))
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = p.cmd.Wait() // it was ended, or waited for
	})
	return p
}

// line returns the next line that the process prints.
func (p *process) line() string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatalf("%s prints no more; it said %q", p.cmd.Path, p.errs.String())
	}
	return p.lines.Text()
}

// address returns what the process says it listens at.
func (p *process) address() string {
	p.t.Helper()
	a, ok := strings.CutPrefix(p.line(), "listening at ")
	if !ok {
		p.t.Fatalf("%s has printed %q", p.cmd.Path, p.all.String())
	}
	return a
}

// want checks what a process prints next.
func (p *process) want(lines ...string) {
	p.t.Helper()
	for _, want := range lines {
		if got := p.line(); got != want {
			p.t.Errorf("%s prints %q, want %q", filepath.Base(p.cmd.Path), got, want)
		}
	}
}

// ends checks that the process prints nothing more and ends well.
func (p *process) ends() {
	p.t.Helper()
	for p.lines.Scan() {
		p.t.Errorf("%s prints %q, too", filepath.Base(p.cmd.Path), p.lines.Text())
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s: %v, %s", filepath.Base(p.cmd.Path), err, p.errs.String())
	}
}

func TestNode(t *testing.T) {
	p := start(t, "01-node")
	p.want("the node runs", "the node has stopped")
	p.ends()
}

func TestWorker(t *testing.T) {
	p := start(t, "02-worker")
	p.want(`echoer has got "Hello"`, `the reply is "Hello"`)
	p.ends()
}

func TestRouting(t *testing.T) {
	p := start(t, "03-routing")
	p.want(`echoer: "Hello" has come by [h1]`, `reply: "Hello" over [h1,echoer]`,
		`echoer: "Hello" has come by [h3,h2,h1]`, `reply: "Hello" over [h1,h2,h3,echoer]`)
	p.ends()
}

func TestTransport(t *testing.T) {
	for _, at := range []string{"tcp://127.0.0.1:0", "unix://" + filepath.Join(t.TempDir(), "s")} {
		r := start(t, "04-transport/responder", at)
		i := start(t, "04-transport/initiator", r.address()+",echoer")
		i.want(`the reply is "Hello"`)
		i.ends()
		r.want(`echoer: "Hello"`)
	}
	r := start(t, "04-transport/responder", "tcp://127.0.0.1:0")
	to := r.address()
	m := start(t, "04-transport/middle", "127.0.0.1:0", to)
	i := start(t, "04-transport/initiator", m.address()+",forward,"+to+",echoer")
	i.want(`the reply is "Hello"`)
	i.ends()
	r.want(`echoer: "Hello"`)
}

func TestSecureChannel(t *testing.T) {
	alice := start(t, "05-secure-channel/alice")
	bob := start(t, "05-secure-channel/bob", "127.0.0.1:0", alice.line())
	bobs, at := bob.line(), bob.address()
	middle := start(t, "05-secure-channel/middle", "127.0.0.1:0", at)
	way := middle.address() + ",forward," + at + ",channels"
	fmt.Fprintln(alice.in, bobs, way)
	alice.want(`the reply is "Hello", from bob: true`)
	alice.ends()
	bob.want(`echoer: "Hello" from alice: true`)
	for range 3 { // the handshake alone is as many messages
		if l := middle.line(); !strings.HasPrefix(l, "middle: ") || !strings.HasSuffix(l, `"Hello" among them: false`) {
			t.Errorf("the middle prints %q", l)
		}
	}
	// Mallory is who alice is, but for the key.
	mallory := start(t, "05-secure-channel/alice")
	mallory.line()
	fmt.Fprintln(mallory.in, bobs, way)
	if l := mallory.line(); !strings.HasPrefix(l, "refused: ") || !strings.Contains(l, "bob speaks with alice only") {
		t.Errorf("mallory prints %q", l)
	}
	if err := mallory.cmd.Wait(); err == nil {
		t.Error("mallory ends well")
	}
}

func TestCredentials(t *testing.T) {
	p := start(t, "06-credentials")
	p.want("operator: restarted", "guest: refused")
	p.ends()
}

func TestFleet(t *testing.T) {
	n := "1000"
	if testing.Short() {
		n = "50"
	}
	p := start(t, "07-fleet", "-nodes", n)
	p.want(n+" nodes are registered", "each of them has answered under its identifier")
	p.ends()
}

// newKey makes an identity file and returns it with its identifier, as "culvert identity
// new" does.
func newKey(t *testing.T, name string) (file, id string) {
	t.Helper()
	made, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), name+".key")
	if err := made.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	return file, made.Identifier().String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))
}

// A web server and its client, through the relay that is a command.
func TestHTTP(t *testing.T) {
	relayKey, relayID := newKey(t, "relay")
	serverKey, serverID := newKey(t, "server")
	clientKey, clientID := newKey(t, "client")
	strangerKey, _ := newKey(t, "stranger")
	at := freeAddr(t)
	route := "tcp://" + at + "/" + relayID
	start(t, "../cmd/relay", "--identity", relayKey, "--listen", at, "--register", serverID, "--connect", "true")
	server := start(t, "08-http/server", "-identity", serverKey, "-relay", route, "-allow", clientID)
	server.want("serving hello")
	client := start(t, "08-http/client", "-identity", clientKey, "-outlet", serverID, "-route", route, "http://hello/gopher", "http://hello/world")
	client.want("hello, you are the client: true", "hello, you are the client: true")
	client.ends()

	stranger := start(t, "08-http/client", "-identity", strangerKey, "-outlet", serverID, "-route", route, "http://hello/gopher")
	if stranger.lines.Scan() {
		t.Errorf("a stranger gets %q", stranger.lines.Text())
	}
	if err := stranger.cmd.Wait(); err == nil || !strings.Contains(stranger.errs.String(), "stream_denied") {
		t.Errorf("a stranger: %v, %q", err, stranger.errs.String())
	}

	if err := server.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	server.want("the server has stopped")
	server.ends()
}
