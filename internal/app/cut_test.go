package app

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A sleeper is a target that neither reads nor writes until it is woken.
type sleeper struct {
	accepted chan *net.TCPConn
	wake     chan struct{}
	ended    chan error // how each conn that was accepted ends, once it is woken
}

func startSleeper(t *testing.T) (*sleeper, config.Address) {
	t.Helper()
	s := &sleeper{accepted: make(chan *net.TCPConn, 4), wake: make(chan struct{}), ended: make(chan error, 4)}
	a := serveTCP(t, func(nc *net.TCPConn) {
		s.accepted <- nc
		<-s.wake
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		_, err := io.Copy(io.Discard, nc)
		if err == nil { // the end that it was sent before the reset
			_, err = nc.Write([]byte("still here?"))
		}
		s.ended <- err
	})
	t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-s.wake:
		default:
			close(s.wake)
		}
	}))
	return s, a
}

// wantReset wakes the target, which has to find its connection reset.
func (s *sleeper) wantReset(t *testing.T) {
	t.Helper()
	close(s.wake)
	select {
	case err := <-s.ended:
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the target's connection ends with %v, want a reset", err)
		}
	case <-time.After(patience):
		t.Error("the target's connection does not end")
	}
}

// cram writes to a conn until nothing more is taken, which it has tried twice: a time may
// be over before the first byte was offered, where the process was kept from running.
func cram(nc *net.TCPConn) error {
	b := make([]byte, 1<<20)
	for idle := 0; idle < 2; {
		_ = nc.SetWriteDeadline(time.Now().Add(250 * time.Millisecond))
		n, err := nc.Write(b)
		switch {
		case err != nil && !os.IsTimeout(err):
			return err
		case n > 0:
			idle = 0
		default:
			idle++
		}
	}
	return nil
}

// mustCram is cram for a conn that has to live.
func mustCram(t *testing.T, nc *net.TCPConn) {
	t.Helper()
	if err := cram(nc); err != nil {
		t.Errorf("writing until nothing is taken: %v", err)
	}
}

// A stream that is cut frees its target's connection and all that copies, although
// the target neither reads nor writes.
func TestCutEndsASilentTarget(t *testing.T) {
	t.Parallel()
	for _, what := range []struct {
		name string
		send func(t *testing.T, nc *net.TCPConn)
	}{
		{"nothing sent", func(*testing.T, *net.TCPConn) {}},
		{"all full", mustCram},
		{"half closed", func(t *testing.T, nc *net.TCPConn) {
			if err := nc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		for _, how := range []struct {
			name string
			cut  func(a *testAuthority, sys *system)
			code code.Code
		}{
			{"credential revoked", func(a *testAuthority, sys *system) { a.Revoke(nil, a.Issued(sys.inlet.Identifier())) }, code.CredentialRevoked},
			{"identity revoked", func(a *testAuthority, sys *system) {
				a.Revoke([]identity.Identifier{sys.inlet.Identifier()})
			}, code.IdentityRevoked},
			{"inlet stops", func(_ *testAuthority, sys *system) { sys.stopInlet() }, code.Shutdown},
			{"outlet stops", func(_ *testAuthority, sys *system) { sys.stopOutlet() }, code.Shutdown},
		} {
			t.Run(what.name+"/"+how.name, func(t *testing.T) {
				t.Parallel()
				target, address := startSleeper(t)
				a := startAuthority(t)
				sys := startTrusting(t, a, func(s *setup) {
					s.target = address
					inlet, outlet := s.inlet, s.outlet
					s.inlet = func(c *config.Inlet) { inlet(c); c.DrainTimeout = 50 * time.Millisecond }
					s.outlet = func(c *config.Outlet) { outlet(c); c.DrainTimeout = 50 * time.Millisecond }
				})
				nc := sys.dial(t)
				select {
				case <-target.accepted:
				case <-time.After(patience):
					t.Fatal("the target was not dialled")
				}
				what.send(t, nc)
				eventually(t, "the stream is carried", func() bool {
					list := sys.outlet.channels.list()
					return len(list) == 1 && len(list[0].carried()) == 1
				})
				watch := testenv.Start(t)
				how.cut(a, sys)
				eventually(t, "the outlet carries nothing any more", func() bool { return sys.outlet.countStreams() == 0 })
				if took := watch.Took(); took > cutTimeout {
					t.Errorf("the stream ended after %s, want %s at most", took, cutTimeout)
				}
				eventually(t, "the log says why", func() bool {
					for _, message := range []string{"stream refused", "stream ended early"} {
						for _, line := range sys.outletLog.lines(t, map[string]string{"msg": message, "service": "echo"}) {
							// An inlet that stops may be gone before its last word on a stream is here.
							if c := line["code"]; c == how.code.String() || c == code.ChannelLost.String() && how.code == code.Shutdown {
								return true
							}
						}
					}
					return false
				})
				target.wantReset(t)
			})
		}
	}
}

// A client that neither reads nor writes, too, loses its connection when its
// outlet is cut off.
func TestCutEndsASilentClient(t *testing.T) {
	t.Parallel()
	a := startAuthority(t)
	full := make(chan struct{})
	sys := startTrusting(t, a, func(s *setup) {
		s.target = serveTCP(t, func(nc *net.TCPConn) {
			mustCram(t, nc)
			close(full)
			_ = nc.SetReadDeadline(time.Now().Add(patience))
			_, _ = nc.Read(make([]byte, 1))
		})
	})
	nc := sys.dial(t)
	select {
	case <-full:
	case <-time.After(patience):
		t.Fatal("the client takes everything")
	}
	a.Revoke([]identity.Identifier{sys.outlet.Identifier()})
	watch := testenv.Start(t)
	eventually(t, "the inlet carries nothing any more", func() bool { return sys.inlet.countStreams() == 0 })
	if took := watch.Took(); took > cutTimeout {
		t.Errorf("the stream ended after %s, want %s at most", took, cutTimeout)
	}
	wantReset(t, nc)
}
