package pump

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipeFDs counts this process's descriptors that are pipes.
func pipeFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		// One that is gone by now was not ours to count.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// Copies that have carried bytes and are quiet hold no pipe: a shared store
// keeps a few, and gives them back.
func TestPipesGivenBack(t *testing.T) {
	before := pipeFDs(t)
	pipes := new(Pipes)
	var cs []*copying
	for range 60 {
		cs = append(cs, startSplice(t, Options{Pipes: pipes}))
	}
	for _, c := range cs {
		soon(c.left)
		soon(c.right)
		exchange(t, c.left, c.right)
	}
	eventually(t, "quiet copies hold no more pipes than the store keeps", func() bool {
		return pipeFDs(t)-before <= 2*maxIdlePipes
	})
	eventually(t, "all pipes that are open lie in the store", func() bool {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		return pipeFDs(t)-before == 2*len(pipes.idle)
	})
	for _, c := range cs {
		exchange(t, c.left, c.right)
	}
	pipes.Close()
	eventually(t, "a closed store keeps none", func() bool { return pipeFDs(t) == before })
	for _, c := range cs {
		exchange(t, c.left, c.right)
		_ = c.left.CloseWrite()
		_ = c.right.CloseWrite()
		if r := c.wait(t); r.Err != nil {
			t.Errorf("got %v", r.Err)
		}
	}
	if after := pipeFDs(t); after != before {
		t.Errorf("%d pipe descriptors are open, %d were before", after, before)
	}
}

// A pipe that still holds bytes when its copy is aborted must not come back:
// the next copy would send them to somebody else.
func TestPipeWithBytesIsNotReused(t *testing.T) {
	before := pipeFDs(t)
	pipes := new(Pipes)
	defer pipes.Close()
	c := startSplice(t, Options{Pipes: pipes})
	soon(c.right)
	exchange(t, c.left, c.right)
	fill(t, c.left)
	c.cancel(errors.New("enough"))
	c.wait(t)
	pipes.mu.Lock()
	idle := append([]*pipe(nil), pipes.idle...)
	pipes.mu.Unlock()
	for _, p := range idle {
		n, err := unix.Read(p.r, make([]byte, 1))
		if !errors.Is(err, unix.EAGAIN) {
			t.Errorf("a pipe in the store held %d bytes (%v)", n, err)
		}
	}
	if open := pipeFDs(t) - before; open != 2*len(idle) {
		t.Errorf("%d pipe descriptors are open, %d are in the store", open, 2*len(idle))
	}
}

// Without free descriptors a copy goes on, through buffers.
func TestNoDescriptors(t *testing.T) {
	c := startSplice(t, Options{})
	soon(c.left)
	soon(c.right)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }
	defer restore()
	if p := newPipe(); p != nil {
		t.Fatal("a pipe could be made: the test tests nothing")
	}
	exchange(t, c.left, c.right)
	exchange(t, c.left, c.right)
	restore()
	_ = c.left.CloseWrite()
	_ = c.right.CloseWrite()
	if _, err := io.ReadAll(c.left); err != nil {
		t.Error(err)
	}
	if r := c.wait(t); r != (Result{AToB: 2, BToA: 2}) {
		t.Errorf("got %+v", r)
	}
}
