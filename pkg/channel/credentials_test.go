package channel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// bundlesOf returns bundles of those lengths, no two the same.
func bundlesOf(lengths ...int) (bundles [][]byte) {
	for i, n := range lengths {
		bundles = append(bundles, bytes.Repeat([]byte{byte(i + 1)}, n))
	}
	return bundles
}

func setCredentials(t testing.TB, l *Local, bundles [][]byte) {
	t.Helper()
	if err := l.SetCredentials(bundles); err != nil {
		t.Fatalf("SetCredentials: %v", err)
	}
}

// Both sides of a hop and of a channel find what the other shows, whole and in
// its order.
func TestHandshakeCarriesCredentials(t *testing.T) {
	for _, purpose := range []Purpose{PurposeHop, PurposeChannel} {
		for _, tt := range []struct {
			name string
			a, b [][]byte
		}{
			{"none", nil, nil},
			{"one side's", bundlesOf(700), nil},
			{"both sides'", bundlesOf(1, 300), bundlesOf(8192)},
			{"as many as there may be", bundlesOf(slices.Repeat([]int{512}, 16)...), bundlesOf(slices.Repeat([]int{1}, 16)...)},
		} {
			t.Run(fmt.Sprint(purpose, " ", tt.name), func(t *testing.T) {
				init, resp := newLocal(t), newLocal(t)
				setCredentials(t, init, tt.a)
				setCredentials(t, resp, tt.b)
				a, b := tcpPair(t)
				c, ans, err := handshakeOn(a, b, init, resp, purpose, nil, Options{})
				if err != nil || ans.err != nil {
					t.Fatalf("Initiate: %v, Respond: %v", err, ans.err)
				}
				if got := ans.in.Peer().Credentials; !slices.EqualFunc(got, tt.a, bytes.Equal) {
					t.Errorf("responder has %d credentials, want the %d shown", len(got), len(tt.a))
				}
				if got := c.Peer().Credentials; !slices.EqualFunc(got, tt.b, bytes.Equal) {
					t.Errorf("initiator has %d credentials, want the %d shown", len(got), len(tt.b))
				}
				closeBoth(t, c, ans.in.Accept())
			})
		}
	}
}

// What is set is a copy, of what is in bounds; what is not leaves the former.
func TestSetCredentialsBounds(t *testing.T) {
	long := rotated(t, newIdentity(t), identity.MaxChanges-1)
	for _, tt := range []struct {
		name    string
		id      *identity.Identity
		bundles [][]byte
		want    string
	}{
		{"too many", newIdentity(t), make([][]byte, 17), "17 credentials, at most 16"},
		{"too long", newIdentity(t), bundlesOf(8193), "8193 bytes, at most 8192"},
		{"too long together", newIdentity(t), bundlesOf(4096, 4097), "8193 bytes, at most 8192"},
		{"no room beside the history", long, bundlesOf(8192), "do not fit into a handshake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := localWith(t, tt.id, LocalConfig{})
			before := bundlesOf(10)
			setCredentials(t, l, before)
			before[0][0]++
			if err := l.SetCredentials(tt.bundles); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("SetCredentials = %v, want %q", err, tt.want)
			}
			if got := l.presents(); !slices.EqualFunc(got, bundlesOf(10), bytes.Equal) {
				t.Errorf("after an error %x are shown, want the former", got)
			}
		})
	}
}

// The longest of everything fits, or is refused where it is set: never in the
// middle of a handshake.
func TestCredentialsFitTheHandshake(t *testing.T) {
	id := rotated(t, newIdentity(t), identity.MaxChanges-1)
	l := localWith(t, id, LocalConfig{Name: strings.Repeat("n", 63)})
	most := 8192
	for ; l.SetCredentials(bundlesOf(most)) != nil; most-- {
	}
	for _, purpose := range []Purpose{PurposeHop, PurposeChannel} {
		for _, sides := range [][2]*Local{{l, newLocal(t)}, {newLocal(t), l}} {
			var request []byte
			if purpose == PurposeHop {
				request = make([]byte, 1024) // the longest that a relay takes
			}
			a, b := tcpPair(t)
			c, ans, err := handshakeOn(a, b, sides[0], sides[1], purpose, request, Options{})
			if err != nil || ans.err != nil {
				t.Fatalf("with %d bytes of credentials beside a history of %d: %v, %v", most, len(id.History().Bytes()), err, ans.err)
			}
			closeBoth(t, c, ans.in.Accept())
		}
	}
}

// A peer that is not admitted is told why when it calls, and hears nothing at
// all when it is called.
func TestAdmit(t *testing.T) {
	for _, purpose := range []Purpose{PurposeHop, PurposeChannel} {
		for _, tt := range []struct {
			name string
			err  error
			code code.Code
		}{
			{"for a reason of its own", &PeerError{Code: code.IdentityRevoked, Err: errors.New("it was revoked")}, code.IdentityRevoked},
			{"for any", errors.New("it was not liked"), code.IdentityDenied},
		} {
			t.Run(fmt.Sprint(purpose, " ", tt.name), func(t *testing.T) {
				testAdmit(t, purpose, tt.err, tt.code)
			})
		}
	}
}

func testAdmit(t *testing.T, purpose Purpose, deny error, want code.Code) {
	t.Helper()
	outcast := newLocal(t)
	setCredentials(t, outcast, bundlesOf(30, 200))
	var asked atomic.Int32
	guard := localWith(t, newIdentity(t), LocalConfig{Admit: func(p Peer) error {
		asked.Add(1)
		if p.Identifier != outcast.Identifier() {
			return nil
		}
		return deny
	}})

	a, b := tcpPair(t)
	_, ans, err := handshakeOn(a, b, guard, outcast, purpose, nil, Options{})
	var step *HandshakeError
	if !errors.Is(err, deny) || !errors.As(err, &step) || step.Step != "identity" || ans.err == nil {
		t.Errorf("Initiate = %v, Respond = %v; want a failure at identity, and nothing said", err, ans.err)
	}
	wantPeer(t, "the caller's error", err, outcast)
	wantPeer(t, "the error of one who was shown nothing", ans.err, nil)

	a, b = tcpPair(t)
	c, ans, err := handshakeOn(a, b, outcast, guard, purpose, nil, Options{})
	if err != nil || !errors.Is(ans.err, deny) {
		t.Fatalf("Initiate = %v, Respond = %v, want %v", err, ans.err, deny)
	}
	wantPeer(t, "the error of one who was called", ans.err, outcast)
	_, err = c.Read(make([]byte, 1))
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != want || !strings.Contains(refused.Reason, deny.Error()) {
		t.Errorf("the caller reads %v, want a refusal with %s and %q", err, want, deny)
	}
	_ = c.Close()

	a, b = tcpPair(t)
	c, ans, err = handshakeOn(a, b, newLocal(t), guard, purpose, nil, Options{})
	if err != nil || ans.err != nil {
		t.Fatalf("another peer: %v, %v", err, ans.err)
	}
	closeBoth(t, c, ans.in.Accept())
	if got := asked.Load(); got != 3 {
		t.Errorf("asked about %d peers, want all 3", got)
	}
}

// wantPeer wants an error of a handshake to name whom it was with, as far as that
// was proven, with the credentials.
func wantPeer(t *testing.T, what string, err error, want *Local) {
	t.Helper()
	var step *HandshakeError
	if !errors.As(err, &step) {
		t.Fatalf("%s: %v, want a HandshakeError", what, err)
	}
	switch {
	case want == nil && step.Peer != nil:
		t.Errorf("%s names %s, and nothing was proven", what, step.Peer.Identifier)
	case want != nil && (step.Peer == nil || step.Peer.Identifier != want.Identifier() || step.Peer.Instance != want.Instance()):
		t.Errorf("%s names %+v, want %s", what, step.Peer, want.Identifier())
	case want != nil && !slices.EqualFunc(step.Peer.Credentials, want.presents(), bytes.Equal):
		t.Errorf("%s has %d credentials, want the %d shown", what, len(step.Peer.Credentials), len(want.presents()))
	}
}

// Renew brings new credentials to both ends of a channel that goes on, over the
// route that it has.
func TestRenewShowsCredentials(t *testing.T) {
	moved := make(chan Move, 16)
	l := newLab(t, 3, Settings{Trace: &Trace{Moved: func(_ *Channel, m Move) {
		if m.Route >= 0 {
			moved <- m
		}
	}}}, Timing{}, Limits{})
	x, y := l.open()
	for i := range 3 {
		setCredentials(t, l.caller.Local, bundlesOf(100+i))
		setCredentials(t, l.local, bundlesOf(200+i))
		x.Renew()
		if m := <-moved; m.Cause != Renewed || m.Down != 0 || m.Route != 0 {
			t.Errorf("renewal %d: moved %+v, want renewed on route 0 without a gap", i, m)
		}
		y.Renew() // not the responder's to make
		bothWays(t, x, y)
		if got, want := y.Peer().Credentials, bundlesOf(100+i); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("renewal %d: responder has %d bytes of credentials, want %d", i, credentialBytes(got), credentialBytes(want))
		}
		if got, want := x.Peer().Credentials, bundlesOf(200+i); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("renewal %d: initiator has %d bytes of credentials, want %d", i, credentialBytes(got), credentialBytes(want))
		}
	}
	closeChannels(t, x, y)
}

// A renewal that does not work is tried again while the path stays.
func TestRenewIsTriedAgain(t *testing.T) {
	moved := make(chan Move, 16)
	l := newLab(t, 1, Settings{Trace: &Trace{Moved: func(_ *Channel, m Move) {
		if m.Route >= 0 {
			moved <- m
		}
	}}}, Timing{Renew: 2 * time.Second}, Limits{})
	failed := make(chan struct{}, 16)
	l.caller.Failed = func(int, error) { signal(failed) }
	x, y := l.open()
	l.refuseRoutes(noRoutes)
	x.Renew()
	<-failed
	bothWays(t, x, y)
	setCredentials(t, l.caller.Local, bundlesOf(50))
	l.refuseRoutes(nil)
	if m := <-moved; m.Cause != Renewed || m.Down != 0 {
		t.Errorf("moved %+v, want renewed without a gap", m)
	}
	bothWays(t, x, y)
	if got := y.Peer().Credentials; credentialBytes(got) != 50 {
		t.Errorf("responder has %d bytes of credentials, want 50", credentialBytes(got))
	}
	closeChannels(t, x, y)
}

// bothWays sends a byte each way, and waits for it: both ends use the path.
func bothWays(t testing.TB, x, y *Channel) {
	t.Helper()
	for _, way := range [][2]*Channel{{x, y}, {y, x}} {
		if _, err := way[0].Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := way[1].SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := way[1].Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// A peer that is not admitted any more gets no other path, and the channel ends
// for that reason at once.
func TestResumeOfTheRevoked(t *testing.T) {
	var revoked atomic.Bool
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	l.local.admit = func(Peer) error {
		if revoked.Load() {
			return &PeerError{Code: code.IdentityRevoked, Err: errors.New("it was revoked")}
		}
		return nil
	}
	x, y := l.open()
	revoked.Store(true)
	l.cutAll()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	select {
	case <-x.Done():
	case <-ctx.Done():
		t.Fatal("the channel still waits for a path")
	}
	var lost *LostError
	if err := x.Err(); !errors.As(err, &lost) || lost.Code != code.IdentityRevoked {
		t.Errorf("the channel ended with %v, want %s", err, code.IdentityRevoked)
	}
	y.Fail(code.IdentityRevoked, errors.New("it was revoked"))
}
