package kubetoken

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A store is keys to be read, with the times of each reading.
type store struct {
	mu    sync.Mutex
	ids   []string
	err   error
	delay time.Duration
	times []time.Time
}

func (s *store) set(err error, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids, s.err = ids, err
}

func (s *store) load(ctx context.Context) ([]key, error) {
	s.mu.Lock()
	s.times = append(s.times, time.Now())
	ids, err, delay := s.ids, s.err, s.delay
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(delay):
	}
	var keys []key
	for _, id := range ids {
		keys = append(keys, key{id: id})
	}
	return keys, err
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

// withRing runs a test in a bubble, with a keyring that reads a store.
func withRing(t *testing.T, s *store, f func(t *testing.T, r *keyring)) {
	synctest.Test(t, func(t *testing.T) {
		r := newKeyring(s.load, nil)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.run(ctx) }()
		f(t, r)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run returned %v", err)
		}
	})
}

// mustFind fails the test unless there is a key with that id.
func mustFind(t *testing.T, r *keyring, id string) {
	t.Helper()
	if keys, err := r.find(t.Context(), id); err != nil || len(keys) != 1 || keys[0].id != id {
		t.Errorf("%s: got %v, %v", id, keys, err)
	}
}

// mustMiss fails the test unless there is none, for a reason.
func mustMiss(t *testing.T, r *keyring, id string, want code.Code) {
	t.Helper()
	keys, err := r.find(t.Context(), id)
	var e *Error
	if !errors.As(err, &e) || e.Code != want || keys != nil {
		t.Errorf("%s: got %v, %v, want %s", id, keys, err, want)
	}
}

// The first who asks waits for the first reading.
func TestFindWaits(t *testing.T) {
	s := &store{ids: []string{"a"}, delay: 3 * time.Second}
	withRing(t, s, func(t *testing.T, r *keyring) {
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() { mustFind(t, r, "a") })
		}
		group.Wait()
		if n := s.count(); n != 1 {
			t.Errorf("read %d times, want once for all", n)
		}
	})
}

// However many names are made up, keys are read once in ten seconds for them;
// a new key is found then.
func TestUnknownAtIntervals(t *testing.T) {
	s := &store{ids: []string{"a"}}
	withRing(t, s, func(t *testing.T, r *keyring) {
		mustFind(t, r, "a")
		s.set(nil, "a", "b")
		begin := time.Now()
		for time.Since(begin) < leastBetween {
			mustMiss(t, r, "b", code.TokenRefused)
			if n := s.count(); n != 1 {
				t.Fatalf("read again after %s", time.Since(begin))
			}
			time.Sleep(leastBetween / 7)
		}
		mustFind(t, r, "b")
		for range 1000 {
			mustMiss(t, r, "made up", code.TokenRefused)
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.count(); n < 11 || n > 13 {
			t.Errorf("read %d times in 110 s, want about 12", n)
		}
	})
}

// A key that the issuer has taken back counts for five minutes at most, though
// nobody misses another.
func TestTakenBack(t *testing.T) {
	s := &store{ids: []string{"a"}}
	withRing(t, s, func(t *testing.T, r *keyring) {
		mustFind(t, r, "a")
		s.set(nil, "b")
		time.Sleep(betweenLoads)
		synctest.Wait()
		mustMiss(t, r, "a", code.TokenRefused)
		mustFind(t, r, "b")
	})
}

// Keys that cannot be read again count for a day, and then no more; nobody is
// told that his token is wrong.
func TestUnreadable(t *testing.T) {
	s := &store{ids: []string{"a"}}
	withRing(t, s, func(t *testing.T, r *keyring) {
		mustFind(t, r, "a")
		s.set(errors.New("down"), "ignored")
		time.Sleep(maxAge - time.Second)
		mustFind(t, r, "a")
		mustMiss(t, r, "ignored", code.Internal)
		time.Sleep(time.Second)
		mustMiss(t, r, "a", code.Internal)
		if n := s.count(); n < 200 || n > 350 {
			t.Errorf("read %d times in a day, want about once in five minutes", n)
		}
		s.set(nil, "a")
		time.Sleep(leastBetween)
		mustFind(t, r, "a")
	})
}

// Failures are followed by pauses that grow, and a success ends that.
func TestBackoff(t *testing.T) {
	s := &store{err: errors.New("down")}
	withRing(t, s, func(t *testing.T, r *keyring) {
		time.Sleep(30 * time.Minute)
		s.mu.Lock()
		times := s.times
		s.mu.Unlock()
		if len(times) < 8 {
			t.Fatalf("read %d times in 30 minutes", len(times))
		}
		for i := 1; i < len(times); i++ {
			most := min(leastBetween<<(i-1), betweenLoads)
			if gap := times[i].Sub(times[i-1]); gap > most || gap < most*9/10-1 {
				t.Errorf("pause %d is %s, want %s or a tenth less", i, gap, most)
			}
		}
		s.set(nil, "a")
		time.Sleep(betweenLoads)
		mustFind(t, r, "a")
	})
}

// A reading that hangs is given up, and nobody waits longer.
func TestHangs(t *testing.T) {
	withRing(t, &store{ids: []string{"a"}, delay: time.Hour}, func(t *testing.T, r *keyring) {
		begin := time.Now()
		mustMiss(t, r, "a", code.Internal)
		if took := time.Since(begin); took > findTimeout {
			t.Errorf("took %s", took)
		}
	})
}

// Without anybody who reads keys, and after that has ended, find gives up.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newKeyring((&store{}).load, nil)
		_, err := r.find(t.Context(), "a")
		if err == nil || !strings.Contains(err.Error(), "not read within") {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := r.find(ctx, "a"); err != context.Canceled {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}
