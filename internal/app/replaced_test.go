package app

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A session that waits for a path ends at once when a later process of the same
// identity and name answers, and only then.
func TestLinkEndsASessionWhosePeerWasReplaced(t *testing.T) {
	was := channel.Peer{Identifier: identity.Identifier{9}, Instance: channel.Instance{1}, Name: "db-0"}
	with := func(change func(p *channel.Peer)) channel.Peer { p := was; change(&p); return p }
	for _, tc := range []struct {
		name     string
		was, is  channel.Peer
		replaced bool
	}{
		{"restarted", was, with(func(p *channel.Peer) { p.Instance[0] = 2 }), true},
		{"the same process", was, was, false},
		{"another name", was, with(func(p *channel.Peer) { p.Instance[0], p.Name = 2, "db-1" }), false},
		{"another identity", was, with(func(p *channel.Peer) { p.Instance[0], p.Identifier[0] = 2, 8 }), false},
		{"no name", with(func(p *channel.Peer) { p.Name = "" }), with(func(p *channel.Peer) { p.Instance[0], p.Name = 2, "" }), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := tc.was
				n := &fakeNet{connect: func(context.Context, int) error { return nil }, peer: func() channel.Peer { return answers }}
				l := n.link(t, 1)
				ends := make(chan error, 2)
				l.trace.ended = func(_ *held, err error, _ bool) { ends <- err }
				start(t, l)
				old, err := l.acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				answers = tc.is
				old.session.(*fakeSession).setPath(errors.New("reset"))
				next := l.session(t, time.Minute)
				synctest.Wait()
				select {
				case err := <-ends:
					var lost *channel.LostError
					if !tc.replaced || !errors.As(err, &lost) || lost.Code != code.Replaced {
						t.Errorf("the old session has ended: %v, want it replaced: %v", err, tc.replaced)
					}
				default:
					if tc.replaced {
						t.Error("the old session has not ended")
					}
				}
				next.setPath(errors.New("reset")) // which has no successor
				synctest.Wait()
				select {
				case err := <-ends:
					t.Errorf("the new session has ended: %v", err)
				default:
				}
				l.release(old)
			})
		})
	}
}

// A process that can still be reached keeps its streams when another one of its
// name has started, until it cannot be reached.
func TestLinkKeepsASessionWithAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := channel.Peer{Instance: channel.Instance{1}, Name: "db-0"}
		n := &fakeNet{connect: func(context.Context, int) error { return nil }, peer: func() channel.Peer { return answers }}
		l := n.link(t, 1)
		start(t, l)
		old, err := l.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		answers.Instance[0] = 2
		s := old.session.(*fakeSession)
		close(s.draining)
		synctest.Wait()
		if next := l.session(t, time.Minute); next == s {
			t.Fatal("the draining session is still used")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		select {
		case <-old.done:
			t.Error("the old session was ended while it had a path")
		default:
		}
		s.setPath(errors.New("reset"))
		synctest.Wait()
		select {
		case <-old.done:
		default:
			t.Error("the old session waits for a process that was replaced")
		}
		l.release(old)
	})
}
