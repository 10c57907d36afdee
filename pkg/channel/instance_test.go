package channel

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A caller that wants one process of the peer's gets that one, wherever it is, and
// no other one hears who has called.
func TestCallerOfAnInstance(t *testing.T) {
	for _, tt := range []struct {
		name   string
		routes [][]place
		found  bool
	}{
		{"at once", [][]place{{own}}, true},
		{"at the second address", [][]place{{elsewhere, own}}, true},
		{"behind an address where nobody is", [][]place{{none, elsewhere, own}}, true},
		{"over the second route", [][]place{{elsewhere}, {own}}, true},
		{"only others are there", [][]place{{elsewhere, elsewhere}, {elsewhere}}, false},
		{"nobody is there", [][]place{{none}, {none}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, len(tt.routes), Settings{}, Timing{}, Limits{})
			newPlaces(l, tt.routes...)
			want := l.local.Instance()
			l.caller.Instance = &want
			c, err := l.caller.Dial(t.Context(), 0)
			if !tt.found {
				if err == nil {
					t.Fatal("a channel to another process")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, got := c.Remote(); got != want {
				t.Errorf("channel with %s, want %s", got, want)
			}
			closeChannels(t, c, <-l.opened)
		})
	}
}

// Where others answer at every address, the error says so.
func TestCallerOfAnInstanceThatIsNoMore(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	newPlaces(l, []place{elsewhere, elsewhere})
	want := l.local.Instance()
	l.caller.Instance = &want
	_, err := l.caller.Dial(t.Context(), 0)
	var other *InstanceError
	if !errors.As(err, &other) || other.Want != want || other.Got == want {
		t.Errorf("Dial: %v, want an InstanceError for %s", err, want)
	}
}

// Admit is asked in each handshake of a channel, and a peer that it refuses never
// gets message 3: it does not learn who called.
func TestAdmitOfOneHandshake(t *testing.T) {
	refusal := &PeerError{Code: code.StreamDenied, Err: errors.New("it may not")}
	t.Run("first", func(t *testing.T) {
		a, b := tcpPair(t)
		initiator, responder := newLocal(t), newLocal(t)
		asked := 0
		_, answer, err := handshakeOnWith(a, b, initiator, responder, Options{Admit: func(p Peer) error {
			asked++
			if p.Identifier != responder.Identifier() || p.Instance != responder.Instance() {
				t.Errorf("asked about %s", p.Identifier)
			}
			return refusal
		}})
		if !errors.Is(err, refusal) || asked != 1 {
			t.Errorf("Initiate: %v after %d questions, want the refusal after one", err, asked)
		}
		var step *HandshakeError
		if !errors.As(answer.err, &step) || step.Step != "message 3" {
			t.Errorf("Respond: %v, want that message 3 never came", answer.err)
		}
	})
	t.Run("renewal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLabOn(t, memPair, 1, Settings{}, Timing{}, Limits{})
			var refuse atomic.Bool
			asked := make(chan struct{}, 16)
			l.caller.Settings.Handshake.Admit = func(p Peer) error {
				if refuse.Load() {
					signal(asked)
					return refusal
				}
				return nil
			}
			x, y := l.open()
			refuse.Store(true)
			x.Renew()
			<-asked
			bothWays(t, x, y) // the path that there is goes on
			synctest.Wait()
			if got := y.State().Epoch; got != 0 {
				t.Errorf("the responder has heard of attempt %d", got)
			}
			refuse.Store(false)
			time.Sleep(10 * time.Second)
			bothWays(t, x, y)
			closeChannels(t, x, y)
		})
	})
}

// Whom a handshake's Admit refuses is not remembered: relays could otherwise lead a
// caller to as many identities as its memory has places.
func TestAdmitRefusedIsNotRemembered(t *testing.T) {
	old := newIdentity(t)
	initiator := newLocal(t)
	a, b := tcpPair(t)
	if _, _, err := handshakeOnWith(a, b, initiator, localWith(t, rotated(t, old, 1), LocalConfig{}), Options{Admit: func(Peer) error {
		return &PeerError{Code: code.AttributeMissing, Err: errors.New("it may not")}
	}}); err == nil {
		t.Fatal("Initiate: no error")
	}
	a, b = tcpPair(t)
	c, _, err := handshakeOnWith(a, b, initiator, localWith(t, old, LocalConfig{}), Options{})
	if err != nil {
		t.Fatalf("with the history before: %v, want that the newer one was not remembered", err)
	}
	_ = c.Close()
}

// The responder's handshakes ask, too, and tell the caller why not.
func TestAdmitOfOneCaller(t *testing.T) {
	a, b := tcpPair(t)
	initiator, responder := newLocal(t), newLocal(t)
	refused := make(chan error, 1)
	go func() {
		_, err := Respond(context.Background(), b, responder, PurposeChannel, Options{Admit: func(Peer) error {
			return &PeerError{Code: code.StreamDenied, Err: errors.New("it may not")}
		}})
		refused <- err
	}()
	c, err := Initiate(t.Context(), a, initiator, responder.Identifier(), PurposeChannel, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	var r *RefusedError
	if !errors.As(err, &r) || r.Code != code.StreamDenied {
		t.Errorf("Read: %v, want the refusal", err)
	}
	if err := <-refused; err == nil {
		t.Error("Respond: no error")
	}
}

// handshakeOnWith is handshakeOn with options of the initiator's alone.
func handshakeOnWith(a, b net.Conn, init, resp *Local, opt Options) (*Conn, answer, error) {
	ch := make(chan answer, 1)
	go func() {
		in, err := Respond(context.Background(), b, resp, PurposeChannel, Options{})
		ch <- answer{in, err}
	}()
	c, err := Initiate(context.Background(), a, init, resp.Identifier(), PurposeChannel, nil, opt)
	return c, <-ch, err
}
