package channel

import (
	"context"
	"net"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

// The responder knows the peer's address where the peer has said that its route leads
// straight here, for as long as the path is that one.
func TestPeerAddr(t *testing.T) {
	l := newLab(t, 2, Settings{}, Timing{}, Limits{})
	l.caller.Direct = func(route int) bool { return route == 0 }
	x, y := l.open()
	if got, want := y.State().PeerAddr, addrPortOf(x.LocalAddr()); got != want || !got.IsValid() {
		t.Errorf("over a direct route the peer is at %v, want %v", got, want)
	}
	if got := x.State().PeerAddr; got.IsValid() {
		t.Errorf("the initiator knows of %v", got)
	}
	l.refuseRoutes(func(route int) error {
		if route == 0 {
			return errNoRoute
		}
		return nil
	})
	l.cutAll()
	waitState(t, y, "another path", func(s State) bool { return s.Up && s.Changes == 1 })
	if got := y.State().PeerAddr; got.IsValid() {
		t.Errorf("over the other route the peer is at %v, want none", got)
	}
	l.refuseRoutes(noRoutes)
	l.cutAll()
	waitState(t, y, "no path", func(s State) bool { return !s.Up })
	if got := y.State().PeerAddr; got.IsValid() {
		t.Errorf("without a path the peer is at %v", got)
	}
	l.refuseRoutes(nil)
	closeChannels(t, x, y)
}

// What is between two ends has a connection of its own to the responder, whose address
// is not taken for the peer's, whatever the peer believes.
func TestPeerAddrBehindAnother(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	l.caller.Direct = func(int) bool { return true }
	l.wrap = func(_ int, a, b net.Conn) (net.Conn, net.Conn) {
		return movedConn{a, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}}, b
	}
	x, y := l.open()
	if got := y.State().PeerAddr; got.IsValid() {
		t.Errorf("the peer is at %v, and says that it is elsewhere", got)
	}
	closeChannels(t, x, y)
}

// A movedConn has another address at its own end than at the other one.
type movedConn struct {
	net.Conn
	local net.Addr
}

func (c movedConn) LocalAddr() net.Addr { return c.local }

// A peer that lies has no address but the one that it comes from, and what is no address
// at all is refused.
func TestLyingPeerAddr(t *testing.T) {
	for from, refused := range map[string]bool{
		"192.0.2.7:80": false, "[2001:db8::1]:80": false,
		"192.0.2.7": true, "[fe80::1%eth0]:80": true, "[fe80::1%\x1b]0;x\a]:80": true, "[::ffff:192.0.2.7]:80": true,
		"db.example:80": true, "192.0.2.7:080": true, "192.0.2.07:80": true, " 192.0.2.7:80": true, "[2001:DB8::1]:80": true, "unix": true,
	} {
		t.Run(from, func(t *testing.T) {
			l := newLab(t, 1, Settings{}, Timing{}, Limits{})
			id, err := newID()
			if err != nil {
				t.Fatal(err)
			}
			p := l.rawInitiator(l.caller.Local, channelRequest{ID: id[:], Mode: modeNew, Window: maxWindow, From: from})
			if refused {
				p.wantRefused(code.Protocol)
				return
			}
			y := <-l.opened
			l.run(y)
			if got := y.State().PeerAddr; got.IsValid() {
				t.Errorf("the peer is at %v, and only it says so", got)
			}
			// The truth about the next path counts, and about that one only.
			nc, err := l.path(context.Background(), 0)
			if err != nil {
				t.Fatal(err)
			}
			request, err := channelRequest{ID: id[:], Mode: modeResume, Epoch: 1, Window: maxWindow, From: fromOf(nc)}.encode()
			if err != nil {
				t.Fatal(err)
			}
			c, err := Initiate(context.Background(), nc, l.caller.Local, l.local.Identifier(), PurposeChannel, request, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			waitState(t, y, "another path", func(s State) bool { return s.Epoch == 1 })
			if got, want := y.State().PeerAddr, addrPortOf(nc.LocalAddr()); got != want {
				t.Errorf("the peer is at %v, want %v", got, want)
			}
		})
	}
}

func FuzzParseFrom(f *testing.F) {
	for _, s := range []string{"", "192.0.2.1:80", "[2001:db8::1]:443", "[fe80::1%eth0]:1", "[::ffff:1.2.3.4]:5", "x:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ap, err := parseFrom(s)
		switch {
		case err != nil:
		case s == "" && ap.IsValid():
			t.Errorf("nothing is %v", ap)
		case s != "" && (ap.String() != s || ap.Addr().Zone() != "" || ap.Addr().Is4In6()):
			t.Errorf("%q is %v", s, ap)
		}
	})
}
