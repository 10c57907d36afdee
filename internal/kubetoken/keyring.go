package kubetoken

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// When keys are read, and how long they count.
const (
	// betweenLoads is how long keys that the issuer has taken back still count.
	betweenLoads = 5 * time.Minute
	// leastBetween bounds how often a token with the name of a key that does
	// not exist, which anybody can make, has the keys read.
	leastBetween = 10 * time.Second
	// loadTimeout bounds one reading, discovery included.
	loadTimeout = 5 * time.Second
	// findTimeout bounds how long a token waits for keys: for a reading that
	// has just begun.
	findTimeout = loadTimeout + time.Second
	// maxAge is how long keys count that cannot be read again.
	maxAge = 24 * time.Hour
)

// A keyring holds the issuer's keys. Its run is the only one to read them;
// those who look for one that is not there ask it to, and wait.
type keyring struct {
	load      func(context.Context) ([]key, error)
	refreshed func(keys int, err error) // or nil
	every     time.Duration             // between two readings that succeed
	least     time.Duration             // between two readings

	wanted chan struct{} // has room for one: somebody waits for a reading; sent to with mu held

	mu      sync.Mutex
	keys    []key         // replaced as a whole
	read    time.Time     // when keys were
	tried   time.Time     // when the last attempt ended; zero: there was none
	err     error         // of the last attempt
	loading bool          // one is under way
	done    chan struct{} // closed, and replaced, when one ends
}

func newKeyring(load func(context.Context) ([]key, error), refreshed func(int, error)) *keyring {
	return &keyring{
		load: load, refreshed: refreshed, every: betweenLoads, least: leastBetween,
		wanted: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// run reads the keys until ctx is done.
func (r *keyring) run(ctx context.Context) error {
	failures := 0
	for {
		if r.refresh(ctx) == nil {
			failures = 0
		} else {
			failures++
		}
		if err := r.await(ctx, r.pause(failures)); err != nil {
			return err
		}
	}
}

// pause returns how long to wait after so many failures in a row: longer each
// time, but no longer than after none. It differs a little each time, so that
// replicas do not ask together.
func (r *keyring) pause(failures int) time.Duration {
	d := r.every
	if failures > 0 {
		d = min(d, leastBetween<<min(failures-1, 10))
	}
	return d - rand.N(d/10+1) //nolint:gosec // G404: nothing depends on nobody knowing it
}

// await returns nil when it is time to read the keys: after pause, or when they
// are wanted.
func (r *keyring) await(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-r.wanted:
	}
	return nil
}

// dueLocked reports whether keys may be read now. r.mu is held.
func (r *keyring) dueLocked() bool { return r.tried.IsZero() || time.Since(r.tried) >= r.least }

// refresh reads the keys once. On an error those held stay.
func (r *keyring) refresh(ctx context.Context) error {
	r.mu.Lock()
	r.loading = true
	select {
	case <-r.wanted: // this reading is for whoever wanted one, too
	default:
	}
	r.mu.Unlock()

	loading, cancel := context.WithTimeout(ctx, loadTimeout)
	keys, err := r.load(loading)
	cancel()

	r.mu.Lock()
	if err == nil {
		r.keys, r.read = keys, time.Now()
	}
	r.err, r.tried, r.loading = err, time.Now(), false
	close(r.done)
	r.done = make(chan struct{})
	held := len(r.keys)
	r.mu.Unlock()

	if r.refreshed != nil && ctx.Err() == nil {
		r.refreshed(held, err)
	}
	return err
}

// find returns the keys that a token may mean by id: those of that name, and
// those without one. If there is none it waits for them to be read anew, unless
// they just were.
func (r *keyring) find(ctx context.Context, id string) ([]key, error) {
	keys, done, err := r.look(id)
	if done == nil {
		return keys, err
	}
	waiting, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	select {
	case <-done:
	case <-waiting.Done():
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, unavailable(fmt.Errorf("they were not read within %s", findTimeout))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if keys := r.freshLocked(id); keys != nil {
		return keys, nil
	}
	return nil, r.unknownLocked(id)
}

// look returns the keys at hand, or the error that there are none; or else what
// to wait for until they have been read.
func (r *keyring) look(id string) (keys []key, done <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if keys := r.freshLocked(id); keys != nil {
		return keys, nil, nil
	}
	if r.loading {
		return nil, r.done, nil
	}
	if !r.dueLocked() {
		return nil, nil, r.unknownLocked(id)
	}
	select {
	case r.wanted <- struct{}{}:
	default: // somebody else waits, too
	}
	return nil, r.done, nil
}

// freshLocked returns the keys that id may mean, unless all are too old to
// count. r.mu is held.
func (r *keyring) freshLocked(id string) []key {
	if time.Since(r.read) >= maxAge {
		return nil
	}
	return named(r.keys, id)
}

// unknownLocked says why there is no key for id, after keys were read or could
// not be. r.mu is held.
func (r *keyring) unknownLocked(id string) *Error {
	if r.err != nil {
		return unavailable(r.err)
	}
	return refuse("the issuer has no key %s: the token is of another cluster, or of a key that was taken back, or the key is newer than %s; then try again soon",
		shown(id), r.read.UTC().Format(time.RFC3339))
}

// unavailable is the error of a token that nobody can judge.
func unavailable(err error) *Error {
	return &Error{Code: code.Internal, Reason: "the authority cannot read the keys of the Kubernetes issuer: try again later", Err: err}
}
