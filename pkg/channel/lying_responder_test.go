package channel

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A lyingLab is a lab whose responder is the test: each path that the caller
// makes comes to paths.
func lyingLab(t *testing.T, timing Timing, set Settings) (*lab, <-chan *rawPeer) {
	t.Helper()
	l := newLab(t, 1, set, timing, Limits{})
	paths := make(chan *rawPeer, 16)
	l.answer = func(in *Incoming) {
		t.Cleanup(func() { _ = in.conn.nc.Close(); _ = in.conn.Close() })
		paths <- &rawPeer{t, in.conn}
	}
	return l, paths
}

// opened returns a channel of the lab's caller and the peer that has accepted
// it: 100 bytes were sent, 40 of them acknowledged, and 10 received.
func lyingOpen(t *testing.T, l *lab, paths <-chan *rawPeer) (*Channel, *rawPeer) {
	t.Helper()
	dialed := make(chan error, 1)
	var x *Channel
	go func() {
		var err error
		x, err = l.caller.Dial(t.Context(), 0)
		dialed <- err
	}()
	p := <-paths
	p.say(attachedOf(attached{window: maxWindow}))
	if err := <-dialed; err != nil {
		t.Fatal(err)
	}
	l.run(x)
	if _, err := x.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if n := len(p.want(typeData)); n != 100 {
		t.Fatalf("%d bytes came, want 100", n)
	}
	p.say(ackOf(40), record(typeData, "0123456789"))
	if _, err := io.ReadFull(x, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	return x, p
}

// What a responder with the keys may not say of a new path ends the channel,
// and it is told so.
func TestLyingResponder(t *testing.T) {
	good := attached{received: 100, epoch: 1, start: 10, window: maxWindow}
	with := func(change func(*attached)) [][]byte {
		a := good
		change(&a)
		return [][]byte{attachedOf(a)}
	}
	tests := []struct {
		name string
		say  [][]byte
	}{
		{"epoch of another attempt", with(func(a *attached) { a.epoch = 2 })},
		{"epoch 0", with(func(a *attached) { a.epoch = 0 })},
		{"received less than it acknowledged", with(func(a *attached) { a.received = 39 })},
		{"received more than was sent", with(func(a *attached) { a.received = 101 })},
		{"starts after what is here", with(func(a *attached) { a.start = 11 })},
		{"starts in the far future", with(func(a *attached) { a.start = 1 << 63 })},
		{"small window", with(func(a *attached) { a.window = minWindow - 1 })},
		{"short ATTACHED", [][]byte{attachedOf(good)[:attachedLen]}},
		{"ATTACHED twice", [][]byte{attachedOf(good), attachedOf(good)}},
		{"DATA before it", [][]byte{record(typeData, "x")}},
		{"ACK before it", [][]byte{ackOf(40)}},
		{"CLOSE before it", [][]byte{appendClose(nil, 10, code.OK, "")}},
		{"CLOSE with a code before it", [][]byte{appendClose(nil, 0, code.Internal, "")}},
		{"REFUSED after it", [][]byte{attachedOf(good), appendRefused(nil, code.Stale, "")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, paths := lyingLab(t, Timing{}, Settings{})
			x, p := lyingOpen(t, l, paths)
			_ = p.nc.Close()
			p = <-paths
			p.say(tt.say...)
			p.wantComplaint()
			wantLost(t, x, code.Protocol)
		})
	}
}

// Refusals of a resume: what they mean for the channel.
func TestRefusedResume(t *testing.T) {
	for _, cd := range []code.Code{code.UnknownChannel, code.ChannelDenied, code.Protocol} {
		t.Run(cd.String(), func(t *testing.T) {
			t.Parallel()
			l, paths := lyingLab(t, Timing{}, Settings{})
			x, p := lyingOpen(t, l, paths)
			_ = p.nc.Close()
			p = <-paths
			p.say(appendRefused(nil, cd, "so it is"))
			wantLost(t, x, cd)
			if err := x.Err(); !strings.Contains(err.Error(), "so it is") {
				t.Errorf("Err = %v, want the peer's words", err)
			}
		})
	}
	for _, cd := range []code.Code{code.Stale, code.Busy, code.Limit, code.IdentityDenied} {
		t.Run(cd.String(), func(t *testing.T) {
			t.Parallel()
			l, paths := lyingLab(t, Timing{}, Settings{})
			x, p := lyingOpen(t, l, paths)
			_ = p.nc.Close()
			p = <-paths
			p.say(appendRefused(nil, cd, "try again"))
			p = <-paths
			p.say(attachedOf(attached{received: 40, epoch: 2, start: 10, window: maxWindow}))
			if n := len(p.want(typeData)); n != 60 {
				t.Errorf("%d bytes came again, want 60", n)
			}
			if err := x.Err(); err != nil {
				t.Errorf("Err = %v, want the channel to go on", err)
			}
		})
	}
}

// A responder that does not say ATTACHED is given up for another attempt, and
// its late word ends nothing.
func TestAttachedMissing(t *testing.T) {
	t.Parallel() // it waits for the time that a handshake may take
	set := Settings{Handshake: Options{Timeout: 5 * time.Second}}
	l, paths := lyingLab(t, Timing{Stagger: time.Hour}, set)
	x, p := lyingOpen(t, l, paths)
	_ = p.nc.Close()
	late := <-paths
	p = <-paths
	_, _ = late.nc.Write(forge(t, late.Conn, attachedOf(attached{received: 100, epoch: 1, start: 10, window: maxWindow})))
	p.say(attachedOf(attached{received: 100, epoch: 2, start: 5, window: maxWindow}))
	p.say(record(typeData, "56789abc"))
	got := make([]byte, 3)
	if _, err := io.ReadFull(x, got); err != nil || string(got) != "abc" {
		t.Errorf("Read = %q, %v; want abc: the rest is here already", got, err)
	}
}

// Another process of the peer's identity ends the channel where it is found
// instead of the old one, but not while the old one lives.
func TestAnotherInstance(t *testing.T) {
	l := newLab(t, 2, Settings{}, Timing{}, Limits{})
	failed := make(chan error, 16)
	l.caller.Failed = func(_ int, err error) { failed <- err }
	x, _ := l.open()
	old, oldTable := l.local, l.table
	l.restart("")
	x.Move()
	for range 2 {
		var other *InstanceError
		if err := <-failed; !errors.As(err, &other) || other.Want != old.Instance() || other.Got != l.local.Instance() {
			t.Fatalf("the move failed with %v, want an InstanceError", err)
		}
	}
	if _, err := x.Write([]byte("works")); err != nil {
		t.Errorf("Write = %v, want the channel to go on over its path", err)
	}
	if up, _ := x.Up(); !up {
		t.Error("the path is gone")
	}
	l.cutAll()
	wantLost(t, x, code.Gone)
	_ = oldTable
}

// A relay's words are not the peer's: what a path fails with on the way ends no
// channel.
func TestRelaysVerdictIsNone(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	drainAll(t, x)
	refusals := []error{
		&RefusedError{Code: code.UnknownChannel}, &RefusedError{Code: code.Protocol}, fmt.Errorf("via: %w", ErrProtocol),
		&RefusedError{Code: code.Gone}, &RefusedError{Code: code.ChannelDenied},
	}
	n := 0
	l.refuseRoutes(func(int) error {
		n++
		if n > len(refusals) {
			return nil
		}
		return refusals[n-1]
	})
	l.cutAndResume(x)
	closeChannels(t, x, y)
}
