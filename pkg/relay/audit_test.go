package relay

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/route"
)

// A ledger holds a server to its word that each grant has an end, and one only.
type ledger struct {
	t testing.TB

	mu     sync.Mutex
	open   map[uint64]Grant
	grants int
}

// keepLedger makes cfg report to a ledger, which is checked when the server has
// ended.
func keepLedger(t testing.TB, cfg *Config) *ledger {
	l := &ledger{t: t, open: map[uint64]Grant{}}
	cfg.Audit = l.begin
	told := cfg.Trace.filled()
	trace := *told
	trace.Refused = func(r Refusal) {
		l.end(r.Grant, r.Request)
		told.Refused(r)
	}
	trace.Abandoned = func(p channel.Peer, request string, grant uint64, err error) {
		l.end(grant, request)
		told.Abandoned(p, request, grant, err)
	}
	trace.RegistrationEnded = func(r RegistrationStatus, c code.Code, err error) {
		l.end(r.Grant, "register")
		told.RegistrationEnded(r, c, err)
	}
	trace.JoinEnded = func(j JoinStatus, c code.Code, err error) {
		l.end(j.Grant, j.Kind)
		if (c == code.OK) != (err == nil) {
			t.Errorf("a join ended with %s and %v", c, err)
		}
		told.JoinEnded(j, c, err)
	}
	trace.Found = func(f Finding) {
		l.end(f.Grant, "find")
		told.Found(f)
	}
	cfg.Trace = &trace
	t.Cleanup(func() { // after the server's end, whose cleanup comes first
		l.mu.Lock()
		defer l.mu.Unlock()
		for id, g := range l.open {
			t.Errorf("grant %d, %s, has no end", id, g.Request)
		}
	})
	return l
}

func (l *ledger) begin(g Grant) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[g.ID]; ok || g.ID == 0 || g.Remote == nil || g.Peer.Identifier.IsZero() {
		l.t.Errorf("grant %+v: twice, or not whole", g)
	}
	l.open[g.ID] = g
	l.grants++
	return nil
}

// end takes a grant out; 0 is none.
func (l *ledger) end(id uint64, request string) {
	if id == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if g, ok := l.open[id]; !ok || g.Request != request {
		l.t.Errorf("an end of grant %d as %s, which is %+v", id, request, g)
	}
	delete(l.open, id)
}

// What cannot be recorded is refused before anything is done for it.
func TestUnrecorded(t *testing.T) {
	var dialled atomic.Bool
	refusals := make(chan Refusal, 3)
	relay := startRelay(t, func(c *Config) {
		c.Audit = func(Grant) error { return errors.New("no ink") }
		c.Trace.Refused = func(r Refusal) { refusals <- r }
		c.Trace.Registered = func(RegistrationStatus) { t.Error("an outlet was registered") }
	})
	o := newByHand(t, relay)
	_, _, err := o.ask(t, request{Kind: kindRegister})
	wantRefusal(t, err, code.AuditFailed, "no ink")
	next := listen(t, "127.0.0.1:0")
	defer next.Close()
	go func() {
		if nc, err := next.Accept(); err == nil {
			dialled.Store(true)
			nc.Close()
		}
	}()
	hop := relay.hop(t)
	far := route.Hop{Host: "127.0.0.1", Port: uint16(next.Addr().(*net.TCPAddr).Port), Identifier: newLocal(t).Identifier()}
	for _, r := range []route.Route{{hop}, {hop, far}} {
		wantRefusal(t, noPath(t, o.d, r, newLocal(t).Identifier(), nil), code.AuditFailed, "no ink")
	}
	relay.stop()
	next.Close()
	if dialled.Load() {
		t.Error("the relay dialled the next one")
	}
	for range 3 {
		if r := <-refusals; r.Grant != 0 || r.Code != code.AuditFailed {
			t.Errorf("traced %+v, want audit_failed and no grant", r)
		}
	}
}
