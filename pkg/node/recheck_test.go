package node

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// TestRecheck: what a peer proves is asked again when the program says so, and counts from
// then on; where it proves something wrong, its channel is over.
func TestRecheck(t *testing.T) {
	bobLocal, bobs := newLocal(t)
	aliceLocal, _ := newLocal(t)
	var role atomic.Value
	role.Store("operator")
	bob, addr := listening(t, Config{Local: bobLocal, Attributes: func(channel.Peer) (map[string]string, error) {
		r := role.Load().(string)
		if r == "revoked" {
			return nil, errors.New("the identity is revoked")
		}
		return map[string]string{"role": r}, nil
	}})
	if err := bob.ServeChannels("channels", func(channel.Peer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	start(t, bob, "restart", echo, Options{Allow: Attribute("role", "operator")})
	alice := newNode(t, Config{Local: aliceLocal})
	c, err := alice.OpenChannel(inTime(t), Route{addr, "channels"}, bobs)
	if err != nil {
		t.Fatal(err)
	}
	to := Route{c.Address(), "restart"}
	wantEcho(t, alice, to, "as an operator")
	role.Store("guest")
	bob.Recheck()
	_, err = alice.Request(inTime(t), to, nil)
	wantCode(t, err, code.WorkerDenied)
	role.Store("operator")
	bob.Recheck()
	wantEcho(t, alice, to, "again")
	role.Store("revoked")
	bob.Recheck()
	<-c.Done()
	if c.Err() == nil {
		t.Error("the channel is over for no reason")
	}
}
