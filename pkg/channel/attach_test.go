package channel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// wantGone wants that the path ends, whatever is still said on it.
func (p *rawPeer) wantGone(what string) {
	p.t.Helper()
	for {
		_, _, err := p.hear()
		var late interface{ Timeout() bool }
		if errors.As(err, &late) && late.Timeout() {
			p.t.Fatalf("%s: the path goes on", what)
		}
		if err != nil {
			return
		}
	}
}

// TestPathsBefore resumes without using the new paths: of those before only the
// last is kept, until the new one is used or the channel ends.
func TestPathsBefore(t *testing.T) {
	for name, end := range map[string]func(*Channel){
		"Fail":  func(y *Channel) { y.Fail(code.Internal, errors.New("end of the test")) },
		"Close": func(y *Channel) { _ = y.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 1, Settings{Linger: 100 * time.Millisecond}, Timing{}, Limits{})
			p, y, id := l.rawOpen()
			paths := []*rawPeer{p}
			resume := func() {
				p := l.rawInitiator(l.caller.Local, channelRequest{ID: id[:], Mode: modeResume, Epoch: uint64(len(paths)), Window: maxWindow})
				p.attached()
				paths = append(paths, p)
				// Its end would be a loss to the initiator, that does not know yet.
				y.mu.Lock()
				defer y.mu.Unlock()
				if y.leaving == nil {
					t.Error("the path before has ended at once")
				}
			}
			resume()
			resume()
			paths[0].wantGone("two paths before")
			drainAll(t, y)
			paths[2].say(ackOf(0))
			paths[1].wantGone("the path before one that is used")
			resume()
			end(y)
			paths[2].wantGone("the path before, at the channel's end")
			paths[3].wantGone("the path at the channel's end")
		})
	}
}

// TestLossBeforeAttached ends the old path before the responder's word on the
// new one is here: the attempt is not called off.
func TestLossBeforeAttached(t *testing.T) {
	l, paths := lyingLab(t, Timing{Stagger: 10 * time.Second}, Settings{})
	x, old := lyingOpen(t, l, paths)
	drainAll(t, x)
	x.Move()
	p := <-paths
	_ = old.nc.Close()
	waitUp(t, x, false)
	p.say(attachedOf(attached{received: 100, epoch: 1, start: 10, window: maxWindow}))
	waitUp(t, x, true)
	if _, err := x.Write([]byte("here")); err != nil {
		t.Fatal(err)
	}
	if got := p.want(typeData); string(got) != "here" {
		t.Errorf("the new path brings %q", got)
	}
}

// TestLateAttached has the responder's word on an attempt come after a later
// one is in use.
func TestLateAttached(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	x.mu.Lock()
	x.installed = 5
	err := x.mayInstallLocked(&Conn{epoch: 4, attach: attached{epoch: 4, window: maxWindow}})
	x.mu.Unlock()
	if err == nil || errors.Is(err, ErrProtocol) {
		t.Errorf("mayInstall = %v, want an error that is no lie", err)
	}
	closeChannels(t, x, y)
}

// TestCloseComesAgain brings the peer's CLOSE over the old path and, since the
// count was taken before, again over the new one.
func TestCloseComesAgain(t *testing.T) {
	l, paths := lyingLab(t, Timing{}, Settings{})
	x, old := lyingOpen(t, l, paths)
	end := drainAll(t, x)
	x.Move()
	p := <-paths
	old.say(appendClose(nil, 10, code.OK, ""))
	if err := <-end; err != nil {
		t.Fatalf("reading ends with %v", err)
	}
	p.say(attachedOf(attached{received: 100, epoch: 1, start: 10, window: maxWindow}))
	p.say(appendClose(nil, 10, code.OK, ""))
	closed := make(chan error, 1)
	go func() { closed <- x.Close() }()
	if offset, cd, _, err := parseClose(p.want(typeClose)); offset != 100 || cd != code.OK || err != nil {
		t.Errorf("CLOSE after %d bytes with %v, %v; want 100, ok", offset, cd, err)
	}
	p.say(ackOf(101))
	if err := <-closed; err != nil {
		t.Errorf("Close = %v", err)
	}
}

// TestSlowReaderAfterClose reads what a peer has written that has closed since,
// and is no more.
func TestSlowReaderAfterClose(t *testing.T) {
	for i := range 2 {
		inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, _ *diary) {
			x, y := l.open()
			if i == 1 {
				x, y = y, x
			}
			want := bytes.Repeat([]byte("0123456789abcdef"), 100<<10)
			if _, err := x.Write(want); err != nil {
				t.Fatal(err)
			}
			if err := x.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			var resumed atomic.Int32
			l.refuseRoutes(func(int) error { resumed.Add(1); return nil })
			var got []byte
			buf := make([]byte, 10_000)
			for {
				n, err := y.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					if err != io.EOF {
						t.Errorf("Read = %v after %d bytes, want io.EOF", err, len(got))
					}
					break
				}
				time.Sleep(time.Second)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, want the %d that were written", len(got), len(want))
			}
			if n := resumed.Load(); n != 0 {
				t.Errorf("%d attempts at a path that nobody needs", n)
			}
			if err := y.Close(); err != nil {
				t.Errorf("Close of the reader = %v", err)
			}
		})
	}
}

// TestPeerIsOfTheLastHandshake asks both sides whom they have shaken hands with.
func TestPeerIsOfTheLastHandshake(t *testing.T) {
	inBubble(t, 1, Settings{}, Timing{}, func(t *testing.T, l *lab, d *diary) {
		x, y := l.open()
		drainAll(t, x)
		drainAll(t, y)
		before := []Peer{x.Peer(), y.Peer()}
		x.Move()
		synctest.Wait()
		for i, c := range []*Channel{x, y} {
			after := c.Peer()
			if after.History == before[i].History || after.Identifier != before[i].Identifier {
				t.Errorf("side %d: the peer is not that of the last handshake", i)
			}
		}
		closeChannels(t, x, y)
	})
}

// TestReplayedResume plays the bytes of a resume again: the channel does not
// notice, on whatever path.
func TestReplayedResume(t *testing.T) {
	l := newLab(t, 1, Settings{Handshake: Options{Timeout: time.Second}}, Timing{}, Limits{})
	x, y := l.open()
	drainAll(t, x)
	drainAll(t, y)
	var tape *recorder
	l.wrap = func(_ int, a, b net.Conn) (net.Conn, net.Conn) {
		tape = &recorder{Conn: a}
		return tape, b
	}
	l.cutAndResume(x, y)
	l.wrap = nil
	before := y.State()
	tape.mu.Lock()
	wire := bytes.Clone(tape.wire)
	tape.mu.Unlock()
	nc, err := l.path(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(wire); err != nil {
		t.Fatal(err)
	}
	_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer, _ := io.ReadAll(nc) // message 2, and the end
	_ = nc.Close()
	if len(answer) > 3000 {
		t.Errorf("%d bytes are the answer", len(answer))
	}
	if after := y.State(); after.Epoch != before.Epoch || !after.Since.Equal(before.Since) {
		t.Errorf("the channel has changed from %+v to %+v", before, after)
	}
	l.cutAll()
	closeChannels(t, x, y)
}
