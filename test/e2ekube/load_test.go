//go:build e2ekube

package e2ekube

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// A load is what the pod of the app says of its requests.
type load struct {
	pod  string
	done chan struct{} // closed when the pod's log has ended

	mu       sync.Mutex
	requests int      // that the app has counted
	failures int      // of these
	ended    bool     // the app has said how it all ended
	failed   []string // why
}

// follow reads the log of the app's one pod until the pod ends.
func follow(t *testing.T) *load {
	t.Helper()
	return followIn(t, namespace)
}

// followIn is follow in another namespace.
func followIn(t *testing.T, namespace string) *load {
	t.Helper()
	pod := kubectl(t, "-n", namespace, "get", "pods", "-l", "app.kubernetes.io/name=app", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}")
	if pod == "" || strings.Contains(pod, " ") {
		t.Fatalf("pods of the app: %q, want one", pod)
	}
	cmd := exec.CommandContext(t.Context(), "kubectl", "-n", namespace, "logs", "-f", pod, "-c", "app")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l := &load{pod: pod, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		defer cmd.Wait()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			l.take(lines.Text())
		}
	}()
	t.Cleanup(func() { <-l.done }) // the test's context has ended the command
	return l
}

func (l *load) take(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if why, ok := strings.CutPrefix(line, "failed: "); ok {
		l.failed = append(l.failed, why)
	}
	line, last := strings.CutPrefix(line, "ended ")
	if n, _ := fmt.Sscanf(line, "requests=%d failures=%d", &l.requests, &l.failures); n == 2 && last {
		l.ended = true
	}
}

// wantUnhurt holds that none of the requests so far has failed, and that more are
// made.
func (l *load) wantUnhurt(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	before := l.requests
	l.mu.Unlock()
	eventually(t, "50 more requests of "+l.pod, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.requests >= before+50 || l.failures > 0 || l.ended
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%s: %d requests, %d failed", l.pod, l.requests, l.failures)
	if l.failures > 0 || l.ended {
		t.Errorf("%s: %d of %d requests have failed (ended: %v), want none: %q", l.pod, l.failures, l.requests, l.ended, l.failed)
	}
}

// wantEnd waits until the app has ended by itself, with all its requests answered.
func (l *load) wantEnd(t *testing.T) {
	t.Helper()
	eventually(t, "the end of "+l.pod, func() bool {
		select {
		case <-l.done:
			return true
		default:
			return false
		}
	})
	t.Logf("%s: %d requests, %d failed", l.pod, l.requests, l.failures)
	if !l.ended || l.failures > 0 {
		t.Errorf("%s: %d of %d requests have failed, ended by itself: %v: %q", l.pod, l.failures, l.requests, l.ended, l.failed)
	}
}
