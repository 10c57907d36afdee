package app

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// Callers that a relay has let in and that say nothing do not keep others out that come
// by the same relay: the oldest gives way, and the log says why it has ended.
func TestSilenceBehindARelayGivesWay(t *testing.T) {
	key, id := newIdentity(t)
	o, log := newObs(t, "outlet")
	out, err := NewOutlet(&config.Outlet{
		Common: config.Common{Identity: key}, Relays: []route.Route{{{Host: "127.0.0.1", Port: 1, Identifier: id}}},
		Services: []config.OutletService{{Name: "echo", Target: local(1), Allow: policy.List(id)}},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	a := out.agents.listed[0]
	call := func() net.Conn {
		nc, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		running.Go(func() { a.handle(ctx, nc, "") })
		return far
	}
	for range maxAgentHandshakes {
		call()
	}
	eventually(t, "they have the relay's part", func() bool { return len(a.slots) == maxAgentHandshakes })
	far := call()
	_ = far.SetDeadline(time.Now().Add(patience))
	if _, err := far.Write([]byte("C")); err != nil { // which only a handshake reads
		t.Errorf("one more caller is kept out by those that say nothing: %v", err)
	}
	eventually(t, "the log says who gave way", func() bool {
		for _, line := range log.lines(t, map[string]string{"msg": "handshake failed"}) {
			if strings.Contains(line["reason"].(string), turns.ErrGaveWay.Error()) {
				return true
			}
		}
		return false
	})
}
