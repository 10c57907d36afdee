//go:build e2e && linux

package e2ecompose

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds each step of a demo. Nothing waits for it to pass.
const patience = 4 * time.Minute

// A demo is a folder of deploy/compose.
type demo struct {
	name  string
	shown []string                    // what the first command shows, and "run" again
	then  func(t *testing.T, d *demo) // before the last command, which takes all down

	up      *process        // docker compose up, in the foreground
	printed strings.Builder // by the commands between the first and the last
}

// The commands of a demo's README page are a sh fence below this comment.
var commands = regexp.MustCompile("(?s)<!-- test:compose -->\\s*```sh\n(.*?)```")

// run does what the demo's README page says, command by command. "docker compose
// up" stays in the foreground, as in a terminal of its own, until the last command
// has taken all down.
func (d *demo) run(t *testing.T) {
	t.Setenv("COMPOSE_PROJECT_NAME", d.project())
	page, err := os.ReadFile(filepath.Join(d.dir(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	fence := commands.FindSubmatch(page)
	if fence == nil {
		t.Fatalf("%s/README.md: no commands that are marked as tested", d.name)
	}
	lines := strings.Split(strings.TrimSpace(string(fence[1])), "\n")
	if !strings.HasPrefix(lines[0], "docker compose up") || !strings.HasPrefix(lines[len(lines)-1], "docker compose down --volumes") {
		t.Fatalf("%s/README.md: the commands do not begin with up and end with down --volumes: %q", d.name, lines)
	}
	t.Cleanup(func() { d.cleanUp(t) })
	d.up = d.start(t, lines[0])
	d.up.wantShown(t, d.shown)
	for _, line := range lines[1 : len(lines)-1] {
		p := d.start(t, line)
		p.wantEnd(t)
		if strings.HasPrefix(line, "docker compose run") {
			p.wantShown(t, d.shown)
		}
		d.printed.WriteString(p.String())
	}
	if d.then != nil {
		d.then(t, d)
	}
	down := d.start(t, lines[len(lines)-1])
	down.wantEnd(t)
	d.up.wantEnd(t)
	for _, kind := range []string{"container", "network", "volume"} {
		args := []string{kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project=" + d.project()}
		if kind == "container" {
			args = append(args, "--all")
		}
		if left := docker(t, args...); left != "" {
			t.Errorf("a %s is left: %s", kind, left)
		}
	}
}

// cleanUp takes down what a test that failed has left.
func (d *demo) cleanUp(t *testing.T) {
	if !t.Failed() {
		return
	}
	if d.up != nil {
		t.Logf("docker compose up printed:\n%s", d.up.tail(80))
	}
	_ = d.command(t, "docker compose down --volumes --timeout 5").Run()
	if d.up != nil {
		_ = d.up.cmd.Process.Kill()
		<-d.up.done
	}
}

func (d *demo) dir() string { return filepath.Join(root, "deploy", "compose", d.name) }

// project is Compose's name for the demo: another than a person's who has it up.
func (d *demo) project() string { return "culvert-test-" + d.name }

// container returns the identifier of a service's only container.
func (d *demo) container(t *testing.T, service string) string {
	t.Helper()
	ids := strings.Fields(docker(t, "container", "ls", "--all", "--quiet", "--no-trunc",
		"--filter", "label=com.docker.compose.project="+d.project(), "--filter", "label=com.docker.compose.service="+service,
		"--filter", "label=com.docker.compose.oneoff=False"))
	if len(ids) != 1 {
		t.Fatalf("%s: got containers %q, want one", service, ids)
	}
	return ids[0]
}

// command is a line of a README page as a command in the demo's folder.
func (d *demo) command(t *testing.T, line string) *exec.Cmd {
	t.Helper()
	line = strings.Replace(line, "docker compose", composeCommand, 1)
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir = d.dir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = time.Second
	return cmd
}

// docker runs the docker command and returns what it prints.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A process is a command that runs, and what it has printed.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the command has been waited for
	err  error         // valid after done

	mu   sync.Mutex
	text bytes.Buffer
}

func (d *demo) start(t *testing.T, line string) *process {
	t.Helper()
	p := &process{cmd: d.command(t, line), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p
}

// Write takes what the command prints.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *process) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// tail returns the last n lines.
func (p *process) tail(n int) string {
	lines := strings.SplitAfter(p.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// wantShown waits until the command has printed all of want, each once at least.
func (p *process) wantShown(t *testing.T, want []string) {
	t.Helper()
	missing := func() (missing []string) {
		text := p.String()
		for _, s := range want {
			if !strings.Contains(text, s) {
				missing = append(missing, s)
			}
		}
		return missing
	}
	ended := false
	shown := eventually(patience, func() bool {
		select {
		case <-p.done:
			ended = true
		default:
		}
		return len(missing()) == 0 || ended
	})
	if !shown || len(missing()) > 0 {
		t.Fatalf("%q: does not show %q (ended: %v):\n%s", p.cmd.Args, missing(), ended, p.tail(80))
	}
}

// wantEnd waits for the command to end with code 0.
func (p *process) wantEnd(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%q: still runs after %v:\n%s", p.cmd.Args, patience, p.tail(80))
	}
	if p.err != nil {
		t.Fatalf("%q: %v\n%s", p.cmd.Args, p.err, p.tail(80))
	}
}
