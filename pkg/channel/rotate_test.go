package channel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// rotated returns id with n more changes.
func rotated(t testing.TB, id *identity.Identity, n int) *identity.Identity {
	t.Helper()
	for range n {
		var err error
		if id, err = id.Rotate(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func newIdentity(t testing.TB) *identity.Identity {
	t.Helper()
	id, err := identity.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func localWith(t testing.TB, id *identity.Identity, c LocalConfig) *Local {
	t.Helper()
	l, err := NewLocalWith(id, c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rotateLocal rotates l's identity once.
func rotateLocal(t testing.TB, l *Local) {
	t.Helper()
	l.mu.Lock()
	id := l.id
	l.mu.Unlock()
	if err := l.SetIdentity(rotated(t, id, 1)); err != nil {
		t.Fatal(err)
	}
}

// A static key is replaced well before its attestation ends, not by all
// processes at the same time, and when the clock was put back behind it.
func TestStaticKeyIsRenewed(t *testing.T) {
	id := newIdentity(t)
	times := map[time.Time]bool{}
	for range 20 {
		l := localWith(t, id, LocalConfig{})
		first, err := l.shows(time.Now().Add(renewAfter - renewAfter/10 - time.Minute))
		if err != nil || first != l.shown {
			t.Fatalf("the first key was replaced early: %v", err)
		}
		times[first.renewAt.Truncate(time.Second)] = true
		for _, at := range []time.Time{time.Now().Add(renewAfter + renewAfter/10 + time.Minute), time.Now().Add(-time.Hour)} {
			// Not on the monotonic clock alone: that stands still in a machine that sleeps.
			at = at.Round(0)
			was := l.shown
			s, err := l.shows(at)
			if err != nil {
				t.Fatal(err)
			}
			if s.static.Equal(was.static) || bytes.Equal(s.attestation, was.attestation) {
				t.Errorf("static key not renewed at %s", at)
			}
			if err := identity.VerifyAttestation(id.History(), s.attestation, [32]byte(s.static.PublicKey().Bytes()), at, 2*time.Hour); err != nil {
				t.Errorf("renewed attestation: %v", err)
			}
		}
	}
	if len(times) < 2 {
		t.Error("all keys are renewed in the same second")
	}
}

var errAny = errors.New("any error")

func TestSetIdentity(t *testing.T) {
	one := newIdentity(t)
	two := rotated(t, one, 1)
	three, fork := rotated(t, two, 1), rotated(t, one, 1)
	seen := identity.NewMemory(0)
	if err := seen.Accept(rotated(t, three, 1).History()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		to     *identity.Identity
		memory *identity.Memory
		want   error
	}{
		{"the next", three, nil, nil},
		{"one further on", rotated(t, three, 1), nil, nil},
		{"the same", two, nil, nil},
		{"older", one, nil, identity.ErrRolledBack},
		{"a fork", fork, nil, identity.ErrDiverged},
		{"a longer fork", rotated(t, fork, 2), nil, identity.ErrDiverged},
		{"newer, but not the newest that is known", three, seen, identity.ErrRolledBack},
		{"another identity", newIdentity(t), nil, errAny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := localWith(t, two, LocalConfig{})
			if tt.memory != nil {
				l.memory = tt.memory
			}
			before, instance := l.shown, l.Instance()
			err := l.SetIdentity(tt.to)
			if (err == nil) != (tt.want == nil) || !errors.Is(tt.want, errAny) && !errors.Is(err, tt.want) {
				t.Fatalf("SetIdentity = %v, want %v", err, tt.want)
			}
			s, showErr := l.shows(time.Now())
			if showErr != nil || l.Instance() != instance || l.Identifier() != one.Identifier() {
				t.Fatalf("after SetIdentity: %v, %s", showErr, l)
			}
			if want := map[bool]*identity.Identity{true: tt.to, false: two}[err == nil]; !bytes.Equal(s.history, want.History().Bytes()) {
				t.Error("another identity is shown")
			}
			if err != nil && s != before || err == nil && s.static.Equal(before.static) {
				t.Errorf("static key kept: %v, after %v", s == before, err)
			}
		})
	}
}

// What the two sides of a handshake make of the other's history after another
// one was seen: the initiator does not say who it is, the responder says why.
func TestHandshakeKnowsNewestHistory(t *testing.T) {
	id := newIdentity(t)
	old, fork := rotated(t, id, 1), rotated(t, id, 3)
	next := rotated(t, old, 1)
	for _, tt := range []struct {
		name        string
		first, then *identity.Identity
		want        error
		code        code.Code
	}{
		{"the same", next, next, nil, code.OK},
		{"newer", old, next, nil, code.OK},
		{"from one change", id, next, nil, code.OK},
		{"older", next, old, identity.ErrRolledBack, code.RolledBack},
		{"the first alone", next, id, identity.ErrRolledBack, code.RolledBack},
		{"a fork", next, fork, identity.ErrDiverged, code.Diverged},
		{"a shorter fork", fork, old, identity.ErrDiverged, code.Diverged},
		{"before any change", id, old, nil, code.OK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testSees(t, tt.first, tt.then, tt.want, tt.code)
		})
	}
}

// testSees has one peer meet first and then the other, as initiator and as
// responder.
func testSees(t *testing.T, first, then *identity.Identity, want error, cd code.Code) {
	t.Helper()
	a, b := tcpPair(t)
	watcher := newLocal(t)
	c, ans, err := handshakeOn(a, b, watcher, localWith(t, first, LocalConfig{}), PurposeHop, nil, Options{})
	if err != nil || ans.err != nil {
		t.Fatalf("first handshake: %v, %v", err, ans.err)
	}
	closeBoth(t, c, ans.in.Accept())

	a, b = tcpPair(t)
	c, ans, err = handshakeOn(a, b, watcher, localWith(t, then, LocalConfig{}), PurposeHop, nil, Options{})
	if !errors.Is(err, want) {
		t.Fatalf("Initiate = %v, want %v", err, want)
	}
	var step *HandshakeError
	if want != nil && (!errors.As(err, &step) || step.Step != "identity" || ans.err == nil) {
		t.Errorf("Initiate = %v, Respond = %v; want a failure at identity, and nothing said", err, ans.err)
	}
	if want == nil {
		closeBoth(t, c, ans.in.Accept())
	}

	a, b = tcpPair(t)
	c, ans, err = handshakeOn(a, b, localWith(t, then, LocalConfig{}), watcher, PurposeHop, nil, Options{})
	if err != nil || !errors.Is(ans.err, want) {
		t.Fatalf("Initiate = %v, Respond = %v, want %v", err, ans.err, want)
	}
	if want == nil {
		closeBoth(t, c, ans.in.Accept())
		return
	}
	_, err = c.Read(make([]byte, 1))
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != cd || refused.Reason == "" {
		t.Errorf("the caller reads %v, want a refusal with %s and why", err, cd)
	}
	_ = c.Close()
}

// Callers that nobody knows are checked, but not remembered.
func TestStrangersAreNotRemembered(t *testing.T) {
	known, stranger := newIdentity(t), newIdentity(t)
	memory := identity.NewMemory(0)
	served := localWith(t, newIdentity(t), LocalConfig{Memory: memory, Known: func(p Peer) bool { return p.Identifier == known.Identifier() }})
	call := func(id *identity.Identity) error {
		a, b := tcpPair(t)
		c, ans, err := handshakeOn(a, b, localWith(t, id, LocalConfig{}), served, PurposeHop, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if ans.err == nil {
			closeBoth(t, c, ans.in.Accept())
		} else {
			_ = c.Close()
		}
		return ans.err
	}
	for _, id := range []*identity.Identity{rotated(t, stranger, 2), rotated(t, stranger, 1), known} {
		if err := call(id); err != nil {
			t.Errorf("%s was refused: %v", id.Identifier(), err)
		}
	}
	if n := memory.Len(); n != 0 {
		t.Errorf("%d identities are remembered, want none", n)
	}
	if err := call(rotated(t, known, 1)); err != nil || memory.Len() != 1 {
		t.Errorf("a known caller: %v, %d remembered", err, memory.Len())
	}
	if err := call(known); !errors.Is(err, identity.ErrRolledBack) {
		t.Errorf("a known caller, rolled back: %v", err)
	}
}

// A responder that is rotated between message 2 and a later handshake of the
// same initiator cannot make that one fail for good: a channel tries again.
func TestRolledBackIsNoVerdict(t *testing.T) {
	for _, tt := range []struct {
		code code.Code
		want bool
	}{{code.RolledBack, false}, {code.Diverged, true}, {code.ChannelDenied, true}} {
		err := verdictOf(&Conn{}, &RefusedError{Code: tt.code})
		var v verdict
		if errors.As(err, &v) != tt.want {
			t.Errorf("%s is a verdict: %v, want %v", tt.code, !tt.want, tt.want)
		}
	}
}

// TestRotationStorm has both ends of a channel change their keys again and
// again, each as often as a history allows, while bytes flow both ways, keys are
// renewed all the time and paths are cut.
func TestRotationStorm(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{Renew: 20 * time.Millisecond, MaxPause: 20 * time.Millisecond}, Limits{})
	x, y := l.open()
	storm, calm := context.WithCancel(context.Background())
	defer calm()
	var rotating, flowing sync.WaitGroup
	for _, local := range []*Local{l.caller.Local, l.local} {
		rotating.Go(func() {
			for range identity.MaxChanges - 1 {
				rotateLocal(t, local)
				time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
			}
		})
	}
	rotating.Go(func() {
		for range 10 {
			time.Sleep(70 * time.Millisecond)
			l.cutAll()
		}
	})
	for i, c := range []*Channel{x, y} {
		flowing.Go(func() { flow(storm, t, c, byte(i)) })
		flowing.Go(func() { check(t, c, byte(1-i)) })
	}
	rotating.Wait()
	// The next path's keys are the last ones.
	want := [2]int{identity.MaxChanges, identity.MaxChanges}
	for until := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		got, paths := [2]int{x.Peer().History.Len(), y.Peer().History.Len()}, x.State().Epoch
		if got == want && paths >= 20 {
			break
		}
		if time.Now().After(until) {
			t.Errorf("the channel's keys are those of changes %v, want %v, after %d paths, want many", got, want, paths)
			break
		}
	}
	calm()
	flowing.Wait()
	closeChannels(t, x, y)
}

// flow writes blocks of seed's bytes until ctx ends, and then that there are no
// more.
func flow(ctx context.Context, t *testing.T, c *Channel, seed byte) {
	src := rand.NewChaCha8([32]byte{seed})
	block := make([]byte, 1+16<<10)
	block[0] = 1
	for ctx.Err() == nil {
		_, _ = src.Read(block[1:])
		if _, err := c.Write(block); err != nil {
			t.Errorf("Write: %v", err)
			return
		}
		time.Sleep(time.Millisecond) // the storm is about keys, not about bytes
	}
	if _, err := c.Write([]byte{0}); err != nil {
		t.Errorf("Write: %v", err)
	}
}

// check reads what flow writes, up to its end.
func check(t *testing.T, c *Channel, seed byte) {
	src := rand.NewChaCha8([32]byte{seed})
	got, want := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		if _, err := io.ReadFull(c, got[:1]); err != nil {
			t.Errorf("Read: %v", err)
			return
		}
		if got[0] == 0 {
			return
		}
		if _, err := io.ReadFull(c, got); err != nil {
			t.Errorf("Read: %v", err)
			return
		}
		_, _ = src.Read(want)
		if !bytes.Equal(got, want) {
			t.Error("wrong bytes")
			return
		}
	}
}

// Whatever rotates and whatever path is made in whichever order, a Local never
// shows an attestation that does not go with the history beside it.
func TestShownBelongsTogether(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := localWith(t, newIdentity(t), LocalConfig{})
		ahead := time.Duration(0)
		for _, rotates := range rapid.SliceOfN(rapid.Bool(), 1, 12).Draw(r, "rotates") {
			if rotates {
				rotateLocal(t, l)
			} else {
				ahead += time.Duration(rapid.IntRange(0, 20).Draw(r, "hours")) * time.Hour
			}
			now := time.Now().Add(ahead) // identities are made by the clock
			s, err := l.shows(now)
			if err != nil {
				r.Fatal(err)
			}
			h, err := identity.ParseHistory(s.history)
			if err == nil {
				err = identity.VerifyAttestation(h, s.attestation, [32]byte(s.static.PublicKey().Bytes()), now, 0)
			}
			if err != nil {
				r.Fatal(err)
			}
		}
	})
}
