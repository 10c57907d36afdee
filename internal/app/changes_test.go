package app

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A followed is what changes call.
type followed struct {
	changes
	mu    sync.Mutex
	all   []time.Duration // since the start
	some  int
	again time.Duration // all is due again that long later; 0: not
}

// following starts following, until stop.
func following(f *followed) (stop func()) {
	f.init()
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.follow(ctx, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.all = append(f.all, time.Since(began))
			if f.again > 0 {
				f.due(time.Now().Add(f.again))
			}
		}, func(some map[*channel.Channel]struct{}) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.some += len(some)
		})
	}()
	return func() { cancel(); <-done }
}

func (f *followed) calls() []time.Duration {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

// Many changes at once are one or two; each is seen to within a moment.
func TestChangesAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{}
		stop := following(f)
		for range 1000 {
			f.changed()
			time.Sleep(time.Millisecond)
		}
		if n := len(f.calls()); n < 1 || n > 2 {
			t.Errorf("a thousand changes in a second: asked %d times, want about one for each %s", n, recheckPause)
		}
		time.Sleep(3 * time.Second)
		before := len(f.calls())
		f.changed()
		if n := len(f.calls()); n != before+1 {
			t.Errorf("the last change is not seen: %d calls, then %d", before, n)
		}
		if got := f.times.Load(); got != uint64(len(f.calls())) {
			t.Errorf("counted %d times, asked %d", got, len(f.calls()))
		}
		stop()
	})
}

// Of all that ends, the earliest counts, and nothing is asked before it does.
func TestDueIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{}
		stop := following(f)
		f.due(time.Now().Add(3 * time.Hour))
		f.due(time.Now().Add(2 * time.Hour))
		f.due(time.Time{})
		f.due(time.Now().Add(4 * time.Hour))
		time.Sleep(24 * time.Hour)
		// Whoever lives on says again when it ends: nobody does here.
		if got := f.calls(); len(got) != 1 || got[0] < 2*time.Hour || got[0] > 2*time.Hour+time.Second {
			t.Errorf("asked after %v, want once after two hours", got)
		}
		f.mu.Lock()
		f.again = time.Hour
		f.mu.Unlock()
		f.due(time.Now())
		time.Sleep(10*time.Hour + time.Minute)
		if got := len(f.calls()); got != 12 {
			t.Errorf("asked %d times, want 12: at once, and each hour", got)
		}
		stop()
	})
}

// Where a policy looks at the time everything is asked about again and again, beside
// what else there is to be asked for.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{changes: changes{timed: func() bool { return true }}}
		stop := following(f)
		time.Sleep(time.Hour + time.Second)
		if n := len(f.calls()); n < 59 || n > 60 {
			t.Errorf("asked %d times in an hour, want each minute", n)
		}
		before := len(f.calls())
		f.changed()
		if n := len(f.calls()) - before; n != 1 {
			t.Errorf("asked %d times after a change, want once", n)
		}
		f.due(time.Now().Add(10 * time.Second))
		time.Sleep(15 * time.Second)
		if n := len(f.calls()) - before; n != 2 {
			t.Errorf("asked %d times, want again when something ended", n)
		}
		stop()
	})
}

// Where nothing ends and no policy looks at the time nothing is ever asked.
func TestNothingRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{}
		stop := following(f)
		time.Sleep(24 * time.Hour)
		if n := len(f.calls()); n != 0 {
			t.Errorf("asked %d times", n)
		}
		f.changed()
		if n := len(f.calls()); n != 1 {
			t.Errorf("asked %d times after a change, want once", n)
		}
		stop()
	})
}

// Single channels are asked about alone, and none where nothing can change.
func TestShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{}
		stop := following(f)
		for range 10 {
			f.shown(&channel.Channel{})
		}
		if n := len(f.calls()); n != 0 || f.some != 10 {
			t.Errorf("asked about all %d times, about %d channels, want 0 and 10", n, f.some)
		}
		f.idle.Store(true)
		f.shown(&channel.Channel{})
		if f.calls(); f.some != 10 {
			t.Error("asked about a channel that nothing can change for")
		}
		stop()
	})
}

// What is remembered of peers' credentials is bounded: of members, of others, who push
// out no member, and of each.
func TestProvenIsBounded(t *testing.T) {
	authority := newAuthorityKey(t)
	key, _ := newIdentity(t)
	tr := startBase(t, key, t.TempDir(), authority.Identifier()).trust
	bundle := func(n uint32) []byte {
		_, b, err := credential.Issue(authority, credential.Template{
			Subject: madeUp(n), NotBefore: time.Now(), Attributes: credential.Attributes{"role": "api"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	member := channel.Peer{Identifier: madeUp(1), Credentials: [][]byte{bundle(1)}}
	known := tr.prove(member)
	junk := func(i uint32) []byte { return binary.BigEndian.AppendUint32(nil, i) }
	for i := range uint32(maxProven + 2*maxWorthless) {
		tr.prove(channel.Peer{Identifier: madeUp(i + 2), Credentials: [][]byte{junk(i)}})
	}
	if tr.prove(member) != known {
		t.Error("strangers have pushed a member out")
	}
	if n := tr.strangers.len(); n != maxWorthless {
		t.Errorf("%d strangers are remembered, want %d", n, maxWorthless)
	}
	// One member with ever other things beside its credential has its own place only.
	hostile := bundle(1_000_000)
	for i := range uint32(100) {
		tr.prove(channel.Peer{Identifier: madeUp(1_000_000), Credentials: [][]byte{hostile, junk(i)}})
	}
	if n := tr.members.len(); n != 2 {
		t.Errorf("two members take the place of %d", n)
	}
	if n := len(tr.members.of[madeUp(1_000_000)]); n != maxShown {
		t.Errorf("of one member %d are remembered, want %d", n, maxShown)
	}
	if tr.prove(member) != known {
		t.Error("another member has pushed it out")
	}
	// Another's credential is worth nothing, whatever is remembered.
	thief := tr.judge(channel.Peer{Identifier: madeUp(3), Credentials: member.Credentials})
	if len(thief.Attr) != 0 || thief.refused == nil {
		t.Errorf("another peer with the member's credential: %+v", thief)
	}
}

// madeUp returns the n-th made-up identifier.
func madeUp(n uint32) (id identity.Identifier) {
	binary.BigEndian.PutUint32(id[:], n)
	return id
}

// What ends while the machine sleeps, when timers stand still, is seen to within 5 s
// of its waking; and while nothing is due no timer runs at all.
func TestDueAfterSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{}
		var slept atomic.Int64
		f.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(slept.Load())) }
		stop := following(f)
		f.due(time.Now().Add(2 * time.Hour))
		time.Sleep(time.Hour)
		if n := len(f.calls()); n != 0 {
			t.Fatalf("asked %d times before anything ended", n)
		}
		slept.Store(int64(3 * time.Hour))
		time.Sleep(5 * time.Second)
		if n := len(f.calls()); n != 1 {
			t.Errorf("5 s after waking: asked %d times, want once", n)
		}
		stop()
	})
}

// A peer that shows one thing after another cannot have everything asked about again
// each time: only what changes what others' credentials are worth does, once.
func TestNoRecheckForNothing(t *testing.T) {
	now := time.Now()
	first := newAuthorityKey(t)
	one, err := first.Rotate(now.Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	other, err := first.Rotate(now.Add(-2 * time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	key, _ := newIdentity(t)
	b := startBase(t, key, t.TempDir(), first.Identifier())
	woken := func() bool {
		select {
		case <-b.trust.wake:
			return true
		default:
			return false
		}
	}
	woken()
	for _, tt := range []struct {
		name string
		by   *identity.Identity
		want bool
	}{
		{"the first history", first, true},
		{"the same again", first, false},
		{"a longer one", one, true},
		{"the shorter one again", first, false},
		{"one that diverges", other, true},
		{"it again", other, false},
		{"one of those before again", one, false},
	} {
		b.trust.judge(showing(t, tt.by, now, credential.Attributes{"x": tt.name}))
		if got := woken(); got != tt.want {
			t.Errorf("%s: everything is asked about again: %t, want %t", tt.name, got, tt.want)
		}
	}
}
