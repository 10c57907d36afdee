package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A fakeFleet is relays that list replicas, and the replicas, as a test says.
type fakeFleet struct {
	t *testing.T
	b *balancer

	mu       sync.Mutex
	lists    [][]relay.Replica // by route
	down     []error           // by route: why the relay does not answer; nil: it does
	asks     []int             // by route
	connect  func(ctx context.Context, k replicaKey) error
	name     string                    // of every process
	answer   map[replicaKey]error      // to each stream; nil: it is accepted
	sessions map[replicaKey]*sessionOf // the newest
	log      []string
}

// A sessionOf is a fakeSession to a replica, which counts streams as a real one
// does by its link.
type sessionOf struct {
	*fakeSession
	opened int
}

func (f *fakeFleet) OpenAnswered(k replicaKey, s *sessionOf) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.answer[k]; err != nil {
		return err
	}
	s.opened++
	return nil
}

// newFleet makes a fleet whose balancer runs for the rest of the bubble.
func newFleet(t *testing.T, lists ...[]relay.Replica) *fakeFleet {
	t.Helper()
	f := newIdleFleet(t, lists...)
	f.start()
	return f
}

// newIdleFleet is newFleet for one that is to be changed before it is started.
func newIdleFleet(t *testing.T, lists ...[]relay.Replica) *fakeFleet {
	t.Helper()
	f := &fakeFleet{
		t: t, lists: lists, down: make([]error, len(lists)), asks: make([]int, len(lists)),
		answer: map[replicaKey]error{}, sessions: map[replicaKey]*sessionOf{},
		connect: func(context.Context, replicaKey) error { return nil },
	}
	var routes []route.Route
	for i := range lists {
		routes = append(routes, route.Route{{Host: "r" + string(rune('a'+i)), Port: 1, Identifier: identity.Identifier{byte(i + 1)}}})
	}
	f.b = newBalancer("orders-db", routes, instanceOf(99), func(_ context.Context, r route.Route, service string) ([]relay.Replica, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := int(r[0].Identifier[0]) - 1
		f.asks[i]++
		if service != "orders-db" {
			t.Errorf("asked for %q", service)
		}
		return f.lists[i], f.down[i]
	})
	f.b.newLink = func(k replicaKey) *link { return f.link(k, routes) }
	tell := func(format string, args ...any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.log = append(f.log, fmt.Sprintf(format, args...))
	}
	f.b.trace = balancerTrace{
		found: func(k replicaKey) { tell("found %d", number(k)) },
		lost:  func(k replicaKey, why string) { tell("lost %d: %s", number(k), why) },
		aside: func(k replicaKey, _ error) { tell("aside %d", number(k)) },
		asked: func(route.Route, error) {},
	}
	return f
}

// start runs the balancer.
func (f *fakeFleet) start() {
	ctx, cancel := context.WithCancelCause(f.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.b.run(ctx)
	}()
	f.t.Cleanup(func() {
		cancel(errShutdown)
		<-done
		if n := len(f.b.links()); n != 0 {
			f.t.Errorf("%d links are left after run", n)
		}
	})
}

// number is the reverse of numbered.
func number(k replicaKey) int {
	for n := range 10_000 {
		if keyOf(numbered(n)) == k {
			return n
		}
	}
	return -1
}

func (f *fakeFleet) link(k replicaKey, routes []route.Route) *link {
	l := newLink(k.outlet, routes)
	l.connect = func(ctx context.Context, _ int) (session, error) {
		f.mu.Lock()
		connect := f.connect
		f.mu.Unlock()
		if err := connect(ctx, k); err != nil {
			l.routes.set(0, err)
			return nil, err
		}
		l.worked(0)
		s := &sessionOf{fakeSession: newFakeSession(0)}
		s.peer = channel.Peer{Identifier: k.outlet, Instance: k.instance, Name: f.name}
		s.answer = func(context.Context) error { return f.OpenAnswered(k, s) }
		f.mu.Lock()
		f.sessions[k] = s
		f.mu.Unlock()
		return s, nil
	}
	l.trace = linkTrace{
		failed: func(route.Route, error) {}, opened: func(*held) {}, draining: func(*held) {}, replaced: func(*held) {},
		ended: func(*held, error, bool) {},
	}
	return l
}

// list makes a relay list these from now on, and waits until that is known.
func (f *fakeFleet) list(i int, list []relay.Replica) {
	f.set(func() { f.lists[i] = list })
	time.Sleep(2 * findEvery) // as all sleeps of this file, by the clock of synctest's bubble: no real time
	synctest.Wait()
}

func (f *fakeFleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeFleet) session(n int) *sessionOf {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[keyOf(numbered(n))]
}

func (f *fakeFleet) told(line string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(f.log), func(l string) bool { return !strings.HasPrefix(l, line) }))
}

// open opens a stream, and returns the number of the replica that has it.
func (f *fakeFleet) open(within time.Duration) (int, *held, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), within)
	defer cancel()
	_, h, err := f.b.open(ctx, tunnel.Open{Service: "orders-db"})
	if err != nil {
		return -1, nil, err
	}
	return number(replicaKey{h.session.Peer().Identifier, h.session.Peer().Instance}), h, nil
}

func (f *fakeFleet) mustOpen(within time.Duration) (int, *held) {
	f.t.Helper()
	n, h, err := f.open(within)
	if err != nil {
		f.t.Fatalf("no stream within %s: %v", within, err)
	}
	return n, h
}

func (f *fakeFleet) inUse() int {
	_, n := f.b.count()
	return n
}

func TestBalancerTakesTheFewestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 3))
		synctest.Wait()
		streams := map[int][]*held{}
		for range 30 {
			n, h := f.mustOpen(time.Second)
			streams[n] = append(streams[n], h)
		}
		for n := range 3 {
			if got := len(streams[n]); got != 10 {
				t.Errorf("replica %d has %d streams, want 10", n, got)
			}
		}
		for _, h := range streams[1] {
			h.release()
		}
		for range 10 {
			if n, _ := f.mustOpen(time.Second); n != 1 {
				t.Errorf("a stream goes to replica %d, want the one without any", n)
			}
		}
	})
}

// Among equals it is chance, not the same one for everybody.
func TestBalancerSpreadsTies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 4))
		synctest.Wait()
		got := map[int]int{}
		for range 400 {
			n, h := f.mustOpen(time.Second)
			h.release()
			got[n]++
		}
		for n := range 4 {
			if got[n] < 40 { // of 100; six standard deviations are 52
				t.Errorf("replica %d has %d of 400 streams", n, got[n])
			}
		}
	})
}

// At most so many are used, the rest stands ready.
func TestBalancerUsesAPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 50), replicas(20, 30))
		time.Sleep(time.Minute)
		synctest.Wait()
		known, used := f.b.count()
		if known != 50 || used != maxReplicas || len(f.b.links()) != maxReplicas {
			t.Errorf("%d known, %d in use, %d links; want 50, %d, %d", known, used, len(f.b.links()), maxReplicas, maxReplicas)
		}
		// One that goes is replaced, and moves nobody else.
		before := f.b.links()
		gone := number(firstChosen(f.b))
		rest := slices.DeleteFunc(replicas(0, 50), func(r relay.Replica) bool { return number(keyOf(r)) == gone })
		f.set(func() {
			f.lists[0], f.lists[1] = rest, nil
			f.connect = func(_ context.Context, k replicaKey) error {
				if number(k) == gone {
					return errors.New("gone")
				}
				return nil
			}
		})
		f.session(gone).over <- errors.New("reset")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if used := f.inUse(); used != maxReplicas {
			t.Errorf("%d in use after one has gone, want %d", used, maxReplicas)
		}
		kept := 0
		for _, l := range f.b.links() {
			if slices.Contains(before, l) {
				kept++
			}
		}
		if kept < maxReplicas-1 {
			t.Errorf("%d of the others are still used, want %d", kept, maxReplicas-1)
		}
	})
}

func firstChosen(b *balancer) replicaKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.chosen {
		return k
	}
	return replicaKey{}
}

// A session that is lost, or has no path, or drains, takes no new streams: others do,
// at once.
func TestBalancerFailsOver(t *testing.T) {
	for name, fail := range map[string]func(f *fakeFleet, s *sessionOf){
		"lost": func(f *fakeFleet, s *sessionOf) {
			f.set(func() {
				f.connect = func(context.Context, replicaKey) error { return errors.New("connection refused") }
			})
			s.over <- errors.New("reset")
		},
		"without a path": func(_ *fakeFleet, s *sessionOf) { s.setPath(errors.New("reset")) },
		"draining":       func(_ *fakeFleet, s *sessionOf) { close(s.draining) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, replicas(0, 2))
				synctest.Wait()
				n, h := f.mustOpen(time.Second)
				fail(f, f.session(n))
				synctest.Wait()
				for range 10 {
					began := time.Now()
					got, _ := f.mustOpen(time.Second)
					if got == n && name != "draining" || time.Since(began) > 0 {
						t.Fatalf("a new stream goes to replica %d after %s, want the other one at once", got, time.Since(began))
					}
				}
				select {
				case <-h.done:
					if name != "lost" {
						t.Error("the session ended while it had a stream")
					}
				default:
				}
				h.release()
			})
		})
	}
}

// A path that is lost while a stream is opened there is no reason to wait.
func TestBalancerTriesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 2))
		synctest.Wait()
		f.set(func() {
			for i := range 2 {
				s := f.sessions[keyOf(numbered(i))]
				if i == 0 {
					s.answer = func(context.Context) error { s.setPath(errors.New("reset")); return errPathLost }
				}
			}
		})
		for range 20 {
			if n, h := f.mustOpen(time.Second); n != 1 {
				t.Fatalf("a stream on replica %d, which has no path", n)
			} else {
				h.release()
			}
		}
		loss := &tunnel.LossError{Cause: errors.New("channel ended")}
		f.session(0).setPath(nil)
		f.set(func() { f.sessions[keyOf(numbered(0))].answer = func(context.Context) error { return loss } })
		for range 20 {
			_, h := f.mustOpen(time.Second)
			h.release()
		}
	})
}

// A refusal is told when all have refused, each once, at once; and one that refuses
// is not the favourite for having the fewest streams.
func TestBalancerRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 3))
		synctest.Wait()
		asked := map[int]int{}
		refuse := func(n int) {
			s := f.sessions[keyOf(numbered(n))]
			s.answer = func(context.Context) error {
				asked[n]++
				return &tunnel.RefusedError{Code: code.TargetRefused, Reason: fmt.Sprintf("by %d", n)}
			}
		}
		f.set(func() { refuse(0) })
		for range 30 {
			if n, _ := f.mustOpen(time.Second); n == 0 {
				t.Fatal("a refused stream")
			}
		}
		if asked[0] > 1 {
			t.Errorf("the one that refuses was asked %d times at once, want at most once", asked[0])
		}
		f.set(func() { refuse(1); refuse(2) })
		clear(asked)
		began := time.Now()
		_, _, err := f.open(10 * time.Second)
		var refused *tunnel.RefusedError
		var at *replicaError
		if !errors.As(err, &refused) || !errors.As(err, &at) || refused.Code != code.TargetRefused || time.Since(began) > 0 {
			t.Errorf("open: %v after %s, want the last refusal at once", err, time.Since(began))
		}
		for n := range 3 {
			if asked[n] != 1 {
				t.Errorf("replica %d was asked %d times, want once", n, asked[n])
			}
		}
	})
}

// A relay that lies gains nothing, and what it lists takes nobody's place: neither
// outlets that do not prove the service, nor such as do not exist.
func TestBalancerWithALyingRelay(t *testing.T) {
	const honest = 3 // from 1000 on
	for name, lie := range map[string]func(ctx context.Context) error{
		"without the attribute": func(context.Context) error {
			return unproven("no")
		},
		"of nobody": func(context.Context) error { return &channel.RefusedError{Code: code.Gone} },
		"that says nothing": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newIdleFleet(t, replicas(0, 1000), replicas(1000, honest))
				f.set(func() {
					f.connect = func(ctx context.Context, k replicaKey) error {
						if number(k) < 1000 {
							return lie(ctx)
						}
						return nil
					}
				})
				f.start()
				if n, _ := f.mustOpen(time.Second); n < 1000 {
					t.Fatal("a stream to one that has proven nothing")
				}
				for range 60 {
					time.Sleep(5 * time.Second)
					synctest.Wait()
					if got := f.inUse(); got != honest {
						t.Fatalf("%d in use, want the honest %d", got, honest)
					}
					if n := len(f.b.links()); n > maxReplicas+2*maxProbes {
						t.Fatalf("%d links", n)
					}
				}
				// Another relay's outlets come later, into a crowd.
				f.set(func() { f.lists[1] = replicas(1000, honest+2) })
				time.Sleep(2 * findEvery)
				synctest.Wait()
				if got := f.inUse(); got != honest+2 {
					t.Errorf("%d in use, want %d", got, honest+2)
				}
			})
		})
	}
}

// Even the only relay there is cannot hide for ever what it lists itself.
func TestBalancerFindsTheHonestInACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newIdleFleet(t, replicas(0, maxListed))
		f.set(func() {
			f.connect = func(_ context.Context, k replicaKey) error {
				if number(k) != 77 {
					return errors.New("no route")
				}
				return nil
			}
		})
		f.start()
		if n, _ := f.mustOpen(time.Duration(maxListed/maxProbes+1) * giveUpAfter * 2); n != 77 {
			t.Errorf("a stream to %d", n)
		}
	})
}

// unproven is what a handshake fails with whose peer does not prove the service.
func unproven(why string) error {
	return &channel.HandshakeError{Step: "identity", Err: &unprovenError{&channel.PeerError{Code: code.AttributeMissing, Err: errors.New(why)}}}
}

// What is wrong with a relay on the way is nothing against a replica.
func TestBalancerBlamesNobodyForARelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newIdleFleet(t, nil)
		f.set(func() {
			f.connect = func(context.Context, replicaKey) error {
				return &relay.PathError{Failures: []*relay.HopError{{Hop: 1, Of: 1, Err: &channel.HandshakeError{
					Step: "identity", Err: &channel.PeerError{Code: code.IdentityRevoked, Err: errors.New("the relay is revoked")},
				}}}}
			}
			f.lists[0] = replicas(0, 2)
		})
		f.start()
		time.Sleep(2 * findEvery)
		synctest.Wait()
		if n := f.told("aside"); n != 0 || len(f.b.links()) != 2 {
			t.Errorf("%d are left alone, %d links; want none, and 2", n, len(f.b.links()))
		}
	})
}

// One that has not proven the service is left alone for a minute, and then tried
// again: it may have the attribute now.
func TestBalancerTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newIdleFleet(t, replicas(0, 1))
		tries := 0
		proven := false
		f.set(func() {
			f.connect = func(context.Context, replicaKey) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				if tries++; proven {
					return nil
				}
				return unproven("service=orders-db is missing")
			}
		})
		f.start()
		time.Sleep(asideFor - time.Second)
		synctest.Wait()
		if err := f.b.ready(); err == nil || !strings.Contains(err.Error(), "service=orders-db is missing") {
			t.Errorf("ready: %v, want why not", err)
		}
		f.set(func() {
			if tries > 2 {
				t.Errorf("tried %d times within a minute", tries)
			}
			proven = true
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := f.b.ready(); err != nil {
			t.Errorf("ready: %v", err)
		}
	})
}

// One whose credential has been revoked, or has ended, has another within moments, and
// is not left alone for longer.
func TestBalancerTriesAgainSoon(t *testing.T) {
	for _, c := range []code.Code{code.CredentialRevoked, code.CredentialExpired, code.RevocationsOverdue} {
		t.Run(c.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newIdleFleet(t, replicas(0, 1))
				again := time.Now().Add(20 * time.Second) // as long as a member takes
				f.set(func() {
					f.connect = func(context.Context, replicaKey) error {
						if time.Now().Before(again) {
							return &channel.HandshakeError{Step: "identity", Err: &unprovenError{&channel.PeerError{Code: c, Err: errors.New("no")}}}
						}
						return nil
					}
				})
				f.start()
				time.Sleep(31 * time.Second) // a try each 10 s
				synctest.Wait()
				if err := f.b.ready(); err != nil {
					t.Errorf("ready: %v", err)
				}
			})
		})
	}
}

// A relay that does not answer, or has just started and lists nobody, takes nothing
// away from those that work; and nothing for a while from those that do not.
func TestBalancerOutlivesARelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 2))
		synctest.Wait()
		f.set(func() { f.down[0] = errors.New("connection refused") })
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := f.inUse(); got != 2 {
			t.Errorf("%d in use after an hour without the relay, want 2: they work", got)
		}
		f.set(func() { f.down[0], f.lists[0] = nil, nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := f.inUse(); got != 2 {
			t.Errorf("%d in use with a relay that lists nobody, want 2: they work", got)
		}
		links := f.b.links()
		gone := func(context.Context, replicaKey) error { return errors.New("gone") }
		f.set(func() { f.connect = gone })
		for n := range 2 {
			f.session(n).setPath(errors.New("reset"))
		}
		time.Sleep(unlistedFor - time.Second)
		for n := range 2 {
			f.session(n).setPath(nil)
		}
		synctest.Wait()
		if got := f.inUse(); got != 2 || len(f.b.links()) != 2 || !slices.Contains(links, f.b.links()[0]) {
			t.Errorf("%d in use, %d links; want those that there were", got, len(f.b.links()))
		}
		// Now they are no more.
		for n := range 2 {
			f.session(n).over <- errors.New("reset")
		}
		time.Sleep(unlistedFor + time.Second)
		synctest.Wait()
		if n := len(f.b.links()); n != 0 {
			t.Errorf("%d links to those that are no more", n)
		}
		if err := f.b.ready(); err == nil || !strings.Contains(err.Error(), errUnlisted.Error()) {
			t.Errorf("ready: %v, want that nobody lists one", err)
		}
		if f.told("found") != 2 || f.told("lost") != 2 {
			t.Errorf("told %q, want each found and lost once", f.log)
		}
	})
}

// A replica that left the list keeps the streams that it has.
func TestBalancerLetsStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, maxReplicas+4))
		synctest.Wait()
		streams := map[int]*held{}
		for range maxReplicas {
			n, h := f.mustOpen(time.Second)
			streams[n] = h
		}
		// Others come that this inlet prefers: the ones before finish.
		f.list(0, replicas(0, 200))
		moved := 0
		for n, h := range streams {
			f.b.mu.Lock()
			if f.b.chosen[keyOf(numbered(n))] == nil {
				moved++
			}
			f.b.mu.Unlock()
			select {
			case <-h.done:
				t.Errorf("replica %d was left while it had a stream", n)
			default:
			}
		}
		if moved == 0 {
			t.Fatal("none was displaced: the test shows nothing")
		}
		for _, h := range streams {
			h.release()
		}
		synctest.Wait()
		if n := len(f.b.links()); n != maxReplicas {
			t.Errorf("%d links, want %d", n, maxReplicas)
		}
	})
}

// A client that waits has the relays asked, soon but not in a tight loop.
func TestBalancerHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		asked := func() (n int) { f.set(func() { n = f.asks[0] }); return n }
		before := asked()
		if _, _, err := f.open(30 * time.Second); err == nil || !strings.Contains(err.Error(), "no relay lists") {
			t.Errorf("open: %v", err)
		}
		if n := asked() - before; n < 5 || n > 20 {
			t.Errorf("asked %d times in 30 s while a client waited", n)
		}
		got := make(chan int, 1)
		go func() {
			n, h, _ := f.open(time.Minute)
			if h != nil {
				h.release()
			}
			got <- n
		}()
		time.Sleep(time.Second)
		f.set(func() { f.lists[0] = replicas(0, 1) })
		began := time.Now()
		if n := <-got; n != 0 || time.Since(began) > findSoonMost {
			t.Errorf("replica %d after %s, want the one that has come within %s", n, time.Since(began), findSoonMost)
		}
	})
}

// A process that has taken the place of another one of its name, which has no path:
// the other one's streams end at once, though it has a link of its own.
func TestBalancerSeesProcessesReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, young := numbered(0), numbered(0)
		young.Instance = instanceOf(4711)
		f := newIdleFleet(t, []relay.Replica{old})
		f.set(func() { f.name = "pod-1" })
		f.start()
		synctest.Wait()
		_, h := f.mustOpen(time.Second)
		h.session.(*sessionOf).setPath(errors.New("reset"))
		f.set(func() {
			f.lists[0] = []relay.Replica{young}
			f.connect = func(_ context.Context, k replicaKey) error {
				if k != keyOf(young) {
					return &channel.RefusedError{Code: code.Gone}
				}
				return nil
			}
		})
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case <-h.done:
		default:
			t.Error("the streams of a process that is no more wait for it")
		}
		h.release()
	})
}

// One that all relays say goes away finishes what it has, and is not called again;
// one relay alone cannot say it.
func TestBalancerLeavesWhatDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, replicas(0, 2), replicas(0, 2))
		synctest.Wait()
		draining := replicas(0, 2)
		draining[0].Draining = true
		f.list(0, draining)
		if got := f.inUse(); got != 2 {
			t.Errorf("%d in use, want 2: one relay alone says that one goes away", got)
		}
		streams := map[int]*held{}
		for len(streams) < 2 {
			n, h := f.mustOpen(time.Second)
			streams[n] = h
		}
		calls := 0
		f.set(func() {
			f.connect = func(context.Context, replicaKey) error { calls++; return &channel.RefusedError{Code: code.Draining} }
		})
		f.list(1, draining)
		for range 10 {
			if n, _ := f.mustOpen(time.Second); n != 1 {
				t.Fatal("a new stream goes to one that goes away")
			}
		}
		close(f.session(0).draining)
		time.Sleep(time.Minute)
		select {
		case <-streams[0].done:
			t.Error("its stream was cut")
		default:
		}
		streams[0].release()
		synctest.Wait()
		if n := len(f.b.links()); n != 1 || calls != 0 {
			t.Errorf("%d links, called %d times; want the other's alone, and no call", n, calls)
		}
	})
}

// Where nothing works they take turns, in time, and each gets one.
func TestBalancerTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = maxProbes + 3
		f := newIdleFleet(t, nil)
		tried := map[replicaKey]int{}
		links := 0
		newLink := f.b.newLink
		f.set(func() {
			f.connect = func(_ context.Context, k replicaKey) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				tried[k]++
				return errors.New("connection refused")
			}
		})
		f.b.mu.Lock()
		f.b.newLink = func(k replicaKey) *link { links++; return newLink(k) }
		f.b.mu.Unlock()
		f.start()
		f.list(0, replicas(0, n))
		time.Sleep(10 * giveUpAfter)
		synctest.Wait()
		f.mu.Lock()
		if len(tried) != n {
			t.Errorf("%d of %d were tried", len(tried), n)
		}
		f.mu.Unlock()
		f.b.mu.Lock()
		defer f.b.mu.Unlock()
		if most := maxProbes + 3*16; links > most {
			t.Errorf("%d links in less than a minute, want at most %d", links, most)
		}
	})
}
