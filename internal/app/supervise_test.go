package app

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-net/culvert/internal/systemd"
)

// A supervised is a process that tells a manager of itself, and what that has heard.
type supervised struct {
	*base
	mu    sync.Mutex
	heard []string
	stop  context.CancelFunc // asks it to stop
	end   func()             // is its end, and waits for it
}

// newSupervised starts one in a synctest bubble.
func newSupervised(t *testing.T, watchdog time.Duration, status func() any) *supervised {
	t.Helper()
	o, _ := newObs(t, "inlet")
	s := &supervised{}
	follower := func(name string) *fileFollower {
		return newFileFollower(prometheus.NewRegistry(), name+"_reloads_total", "Reads.", name+"_in_use", "In use.")
	}
	s.base = &base{
		obs: o, log: o.Log, hangup: make(chan struct{}, 1),
		keys: &identityKeeper{fileFollower: follower("identity")}, file: &settingsKeeper{fileFollower: follower("settings")},
		manager: systemd.New(func(state string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.heard = append(s.heard, state)
			return nil
		}, watchdog),
	}
	s.daemon.view.status = func(int) any { return status() }
	stopping, stop := context.WithCancel(t.Context())
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.supervise(stopping, ctx)
	}()
	s.stop, s.end = stop, func() {
		end()
		stop()
		<-done
	}
	synctest.Wait()
	return s
}

// said returns what the manager has heard since the last call, and forgets it.
func (s *supervised) said() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	heard := s.heard
	s.heard = nil
	return heard
}

func TestSupervise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(t, 0, func() any { return nil })
		defer s.end()
		want := func(what string, lines ...string) {
			t.Helper()
			if got := s.said(); !slices.Equal(got, lines) {
				t.Errorf("%s: the manager hears %q, want %q", what, got, lines)
			}
		}
		want("at the start", "READY=1\nSTATUS=not ready: process: starting")
		time.Sleep(time.Hour)
		want("while nothing changes")
		s.obs.Ready.Set("service/a", errors.New("no\nchannel"))
		s.obs.Ready.Set("service/b", errors.New("nor here"))
		s.obs.Ready.Set("service/c", nil)
		time.Sleep(statusEvery)
		want("what is not ready", "STATUS=not ready: service/a: no channel (and 1 more)")
		s.obs.Ready.Set("service/a", nil)
		s.obs.Ready.Set("service/b", nil)
		time.Sleep(statusEvery)
		want("all that is", "STATUS=ready")
		s.stop()
		want("at the stop", "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=30000000")
		time.Sleep(2*statusEvery + statusEvery/2)
		want("while it stops", "EXTEND_TIMEOUT_USEC=30000000", "EXTEND_TIMEOUT_USEC=30000000")
	})
}

// A process that ends by itself says that it stops, too.
func TestSuperviseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(t, 0, func() any { return nil })
		s.said()
		s.end()
		if got := s.said(); len(got) != 1 || !strings.HasPrefix(got[0], "STOPPING=1") {
			t.Errorf("the manager hears %q", got)
		}
	})
}

// What a lock keeps from being shown keeps the process from saying that it lives.
func TestSuperviseWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lock := make(chan struct{}, 1) // a mutex's waiters would keep the bubble's time from going on
		s := newSupervised(t, 30*time.Second, func() any {
			lock <- struct{}{}
			<-lock
			return nil
		})
		defer s.end()
		alive := func(d time.Duration) (n int) {
			time.Sleep(d)
			for _, line := range s.said() {
				if line == "WATCHDOG=1" {
					n++
				}
			}
			return n
		}
		if n := alive(5 * time.Minute); n != 20 {
			t.Errorf("it says %d times in five minutes that it lives, want 20", n)
		}
		lock <- struct{}{}
		if n := alive(5 * time.Minute); n != 0 {
			t.Errorf("while it can show nothing it says %d times that it lives", n)
		}
		<-lock
		if n := alive(time.Minute); n < 3 {
			t.Errorf("afterwards it says %d times in a minute that it lives", n)
		}
	})
}

// A reload has ended when both files have been read; meanwhile the process says that it
// lives, and another one waits.
func TestSuperviseReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(t, 10*time.Second, func() any { return nil })
		defer s.end()
		reading := make(chan struct{}) // as long as nobody sends, one file is being read
		var following sync.WaitGroup
		defer following.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		following.Go(func() { s.keys.run(ctx, func() bool { return false }, func(bool) {}) })
		following.Go(func() { s.file.run(ctx, func() bool { return false }, func(bool) { <-reading }) })
		s.said()
		s.Reload()
		if got := s.said(); len(got) != 1 || !strings.HasPrefix(got[0], "RELOADING=1\nMONOTONIC_USEC=") {
			t.Fatalf("the manager hears %q", got)
		}
		s.Reload()
		time.Sleep(time.Minute)
		if got := s.said(); len(got) != 12 || !slices.Contains(got, "WATCHDOG=1") {
			t.Errorf("while a file is read the manager hears %q", got)
		}
		reading <- struct{}{}
		got := s.said()
		if len(got) != 2 || !strings.HasPrefix(got[0], "READY=1\nSTATUS=") || !strings.HasPrefix(got[1], "RELOADING=1\n") {
			t.Errorf("when it has been read the manager hears %q, want that and the next reload", got)
		}
		reading <- struct{}{}
		if got := s.said(); len(got) != 1 || !strings.HasPrefix(got[0], "READY=1") {
			t.Errorf("in the end the manager hears %q", got)
		}
	})
}

// Who has asked is answered, whether the file is read, nobody follows it, or nobody
// does any more.
func TestAskedIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFileFollower(prometheus.NewRegistry(), "a_total", "Reads.", "b", "In use.")
		ctx, cancel := context.WithCancel(t.Context())
		early := f.ask() // before there is anybody
		var running sync.WaitGroup
		read := 0
		running.Go(func() { f.run(ctx, func() bool { return false }, func(bool) { read++ }) })
		<-early
		<-f.ask()
		if read != 2 {
			t.Errorf("the file was read %d times, want 2", read)
		}
		cancel()
		running.Wait()
		<-f.ask()
		k := &settingsKeeper{fileFollower: newFileFollower(prometheus.NewRegistry(), "a_total", "Reads.", "b", "In use.")}
		k.watch(t.Context()) // there is no file
		<-k.ask()
	})
}
