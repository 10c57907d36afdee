package app

import (
	"context"
	"sync"
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
		if n := len(f.calls()); n < 4 || n > 7 {
			t.Errorf("a thousand changes in a second: asked %d times, want about one for each %s", n, recheckPause)
		}
		before := len(f.calls())
		time.Sleep(time.Second)
		f.changed()
		if n := len(f.calls()); n != before+1 && n != before+2 {
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

// What is remembered of peers' credentials is bounded, and what is forgotten is
// verified anew.
func TestProvenIsBounded(t *testing.T) {
	authority, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tr := &trust{proven: map[[32]byte]*credential.Proven{}}
	tr.init()
	if tr.verifier, err = credential.NewVerifier(credential.Config{}); err != nil {
		t.Fatal(err)
	}
	if err := tr.trusts([]identity.Identifier{authority.Identifier()}); err != nil {
		t.Fatal(err)
	}
	_, bundle, err := credential.Issue(authority, credential.Template{Subject: id(1), NotBefore: time.Now(), Attributes: credential.Attributes{"role": "api"}})
	if err != nil {
		t.Fatal(err)
	}
	member := channel.Peer{Identifier: id(1), Credentials: [][]byte{bundle}}
	for i := range maxProven + 100 {
		tr.prove(channel.Peer{Identifier: id(2), Credentials: [][]byte{{byte(i), byte(i >> 8), byte(i >> 16)}}})
		if i%1000 == 0 && tr.judge(member).Attr["role"] != "api" {
			t.Fatal("the member's attribute is gone")
		}
	}
	if n := len(tr.proven); n > maxProven {
		t.Errorf("%d peers are remembered, want at most %d", n, maxProven)
	}
	// Another's credential is worth nothing, whatever is remembered.
	thief := tr.judge(channel.Peer{Identifier: id(3), Credentials: [][]byte{bundle}})
	if len(thief.Attr) != 0 || thief.refused == nil {
		t.Errorf("another peer with the member's credential: %+v", thief)
	}
}
