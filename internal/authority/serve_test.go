package authority

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

func TestServe(t *testing.T) {
	f := start(t, Config{})
	ticket := f.ticket(TicketRequest{Attributes: credential.Attributes{"role": "api"}})
	c := f.dial(identifier(1))
	wantRefused(t, c.ask(credential.Renew{}), code.NotEnrolled)
	issued, ok := c.ask(credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret}).(credential.Issued)
	if !ok {
		t.Fatal("no credential")
	}
	v := f.verifier()
	if got, err := v.Verify(identifier(1), issued.Bundle, time.Now()); err != nil || got.Attributes["role"] != "api" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, ok := c.ask(credential.Renew{}).(credential.Issued); !ok {
		t.Error("not renewed on the same stream")
	}
	full, ok := c.ask(credential.FetchRevocations{}).(credential.FullRevocations)
	if !ok {
		t.Fatal("no list")
	}
	l, err := v.ApplyList(full.List, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := c.ask(credential.FetchRevocations{Since: l.Number()}).(credential.Unchanged); !ok || u.Number != l.Number() {
		t.Errorf("%+v, want unchanged", u)
	}
	if _, ok := c.ask(credential.FetchRevocations{Since: l.Number() + 1_000_000}).(credential.FullRevocations); !ok {
		t.Error("one who claims a list of the future does not get the whole")
	}
	_ = c.conn.Close()
	c.wantEnd(code.OK)
}

// Each new list reaches all members who stay, each by what it holds, and nobody
// else; who is revoked is told so, and his stream ends.
func TestPush(t *testing.T) {
	f := start(t, Config{})
	for i := range 20 { // so that a delta is shorter
		f.revokeID(identifier(1000 + i))
	}
	f.enrol(identifier(1), nil)
	f.enrol(identifier(2), nil)
	silent, asking, stranger := f.dial(identifier(1)), f.dial(identifier(2)), f.dial(identifier(3))
	verifiers := map[*client]*credential.Verifier{silent: f.verifier(), asking: f.verifier()}
	full, ok := asking.ask(credential.FetchRevocations{}).(credential.FullRevocations)
	if !ok {
		t.Fatal("no list")
	}
	if _, err := verifiers[asking].ApplyList(full.List, time.Now()); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, stranger.ask(credential.FetchRevocations{}), code.NotEnrolled, "culvert ticket create")
	for all, _ := f.Streams(); all < 3; all, _ = f.Streams() {
		time.Sleep(time.Millisecond) // silent's stream begins by itself
	}
	f.revokeID(identifier(50))
	for c, v := range verifiers {
		id, a := c.receive()
		if id != 0 {
			t.Errorf("a list with id %d, want 0", id)
		}
		var err error
		switch m := a.(type) {
		case credential.DeltaRevocations:
			if c == silent {
				t.Error("a delta to one who has nothing")
			}
			_, err = v.ApplyDelta(m.Delta, time.Now())
		case credential.FullRevocations:
			if c != silent {
				t.Error("the whole list to one who has most of it")
			}
			_, err = v.ApplyList(m.List, time.Now())
		default:
			t.Errorf("%T", a)
		}
		if err != nil || v.Revoked(identifier(50)) == nil {
			t.Errorf("applying: %v", err)
		}
	}
	// What comes next to the stranger is the answer to what it asks next.
	wantRefused(t, stranger.ask(credential.Renew{}), code.NotEnrolled)
	if stranger.unasked > 0 {
		t.Error("a stranger was sent a list")
	}
	f.revokeID(identifier(2))
	if _, a := asking.receive(); a == nil {
		t.Error("the revoked member hears nothing")
	}
	asking.wantEnd(code.IdentityRevoked)
	again := f.dial(identifier(2))
	wantRefused(t, again.ask(credential.FetchRevocations{}), code.IdentityRevoked, "make a new identity")
	again.wantEnd(code.IdentityRevoked)
}

func TestStreamsAreBounded(t *testing.T) {
	f := start(t, Config{})
	var open []*client
	for range maxStrangerStreams {
		c := f.dial(identifier(1))
		c.ask(credential.Renew{})
		open = append(open, c)
	}
	f.dial(identifier(1)).wantEnd(code.Limit)
	f.dial(identifier(2)).ask(credential.Renew{})
	if all, strangers := f.Streams(); all != maxStrangerStreams+1 || strangers != all {
		t.Errorf("%d streams, %d of strangers", all, strangers)
	}
	ticket := f.ticket(TicketRequest{})
	open[0].ask(credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret})
	if all, strangers := f.Streams(); all-strangers != maxStrangerStreams {
		t.Errorf("%d streams, %d of strangers, after one with %d has enrolled", all, strangers, maxStrangerStreams)
	}
	f.revokeID(identifier(1))
	for _, c := range open {
		c.wantRevoked()
	}
	if all, strangers := f.Streams(); all != 1 || strangers != 1 {
		t.Errorf("%d streams, %d of strangers, after who had the others was revoked", all, strangers)
	}
	f.enrol(identifier(4), nil)
	for range maxPeerStreams {
		f.dial(identifier(4)).ask(credential.Renew{})
	}
	f.dial(identifier(4)).wantEnd(code.Limit)
}

// Strangers that hold all their places keep neither members out nor newcomers: of
// those about whom nothing is being decided the oldest gives way.
func TestStrangersGiveWay(t *testing.T) {
	var c streams
	ended := map[int]error{}
	enter := func(n int, member bool) *stream {
		t.Helper()
		s := &stream{peer: identifier(n), end: func(err error) { ended[n] = err }}
		if r := c.enter(s, member); r != nil {
			t.Fatal(r)
		}
		t.Cleanup(func() { c.leave(s) })
		return s
	}
	var all []*stream
	for i := range maxStrangers {
		all = append(all, enter(i+1, false))
	}
	all[0].deciding.Store(true)
	enter(10_000, true)
	if len(ended) != 0 {
		t.Errorf("a member takes a stranger's place: %v", ended)
	}
	enter(10_001, false)
	wantRefusal(t, ended[2], code.Limit, "try again")
	enter(10_002, false)
	wantRefusal(t, ended[3], code.Limit)
	for _, s := range all {
		s.deciding.Store(true)
	}
	for n := range 2 {
		enter(10_003+n, false).deciding.Store(true)
	}
	// Those two have taken the places of 10,001 and 10,002, which were idle.
	enter(10_005, false)
	wantRefusal(t, ended[1], code.Limit)
	if len(ended) != 5 || len(c.strangers) != maxStrangers || c.members != 1 {
		t.Errorf("%d were ended, and there are %d strangers and %d members, want 5, %d and 1", len(ended), len(c.strangers), c.members, maxStrangers)
	}
}

// Whatever a peer asks meanwhile, its time as a stranger is bounded; that of a
// member is not, until it is none any more.
func TestStrangersTimeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{})
		c := f.dial(identifier(1))
		began := time.Now()
		for {
			c.send(credential.Renew{})
			if _, _, err := credential.ReadAnswer(c.conn); err != nil {
				break
			}
			time.Sleep(time.Second)
			synctest.Wait()
			select {
			case <-c.done:
				c.wantEnd(code.NotEnrolled)
			default:
				continue
			}
			break
		}
		if took := time.Since(began); took > EnrolTime+2*time.Second {
			t.Errorf("a stranger that asks all the time stays for %s", took)
		}
		ticket := f.ticket(TicketRequest{ExpiresIn: time.Hour})
		m := f.dial(identifier(2))
		m.ask(credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret})
		time.Sleep(10 * EnrolTime)
		m.ask(credential.Renew{})
		if err := f.store.db.Update(func(tx *bolt.Tx) error {
			id := identifier(2)
			return deleteMember(tx, id, &member{})
		}); err != nil {
			t.Fatal(err)
		}
		f.changed(identifier(2))
		time.Sleep(EnrolTime + time.Second)
		m.wantEnd(code.NotEnrolled)
	})
}

// Who is refused holds nobody up: nothing waits for the right to write.
func TestRefusalsOnlyRead(t *testing.T) {
	f := start(t, Config{})
	ticket := f.ticket(TicketRequest{})
	f.enrol(identifier(1), nil)
	tx, err := f.store.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	c := f.dial(identifier(2))
	wantRefused(t, c.ask(credential.Renew{}), code.NotEnrolled)
	wantRefused(t, c.ask(credential.EnrollTicket{ID: ticket.ID, Secret: credential.NewSecret(make([]byte, 32))}), code.TicketRefused)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.ask(credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret}).(credential.Issued); !ok {
		t.Error("the ticket does not enrol")
	}
}

// What a peer does not do in time ends its stream; what takes nothing, too.
func TestPeersThatHangAreLeft(t *testing.T) {
	for name, act := range map[string]func(c *client){
		"says nothing":      func(*client) {},
		"begins a request":  func(c *client) { _, _ = c.conn.Write([]byte{byte(3)}) },
		"takes no answer":   func(c *client) { c.send(credential.FetchRevocations{}) },
		"takes half of one": func(c *client) { c.send(credential.FetchRevocations{}); _, _ = io.ReadFull(c.conn, make([]byte, 5)) },
		"leaves a refusal":  func(c *client) { c.send(credential.Renew{}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, Config{})
				f.enrol(identifier(1), nil)
				c := f.dial(identifier(1))
				act(c)
				began := time.Now()
				<-c.done
				if took := time.Since(began); took > firstRequestTime+time.Second || !errors.Is(c.err, os.ErrDeadlineExceeded) {
					t.Errorf("ended after %s with %v", took, c.err)
				}
			})
		})
	}
}

// Nonsense ends the stream and nothing else.
func TestServeNonsense(t *testing.T) {
	f := start(t, Config{})
	for _, b := range []string{
		"\x00", strings.Repeat("\xff", 64), "\x03\x00\x00\x00\x00\x00\x00\x01", "GET / HTTP/1.1\r\n\r\n",
		"\x02\xff\xff\xff\x00\x00\x00\x01", "\x11\x00\x00\x01\x00\x00\x00\x01\xa0",
	} {
		c := f.dial(identifier(1))
		_, _ = c.conn.Write([]byte(b))
		_ = c.conn.Close()
		<-c.done
		if c.err == nil {
			t.Errorf("%q was taken for an end", b)
		}
	}
	f.enrol(identifier(1), nil)
	if _, ok := f.dial(identifier(1)).ask(credential.Renew{}).(credential.Issued); !ok {
		t.Error("nothing is issued any more")
	}
}

// A peer that asks all the time is answered at the rate that is allowed.
func TestRequestsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{})
		c := f.dial(identifier(1))
		began := time.Now()
		for range requestsAtOnce + 10 {
			c.ask(credential.Renew{})
		}
		if took := time.Since(began); took < 10*time.Second/requestsPerSecond-time.Second {
			t.Errorf("%d requests took %s", requestsAtOnce+10, took)
		}
	})
}

// The end of ctx ends streams, whatever they do.
func TestServeEndsWithItsContext(t *testing.T) {
	f := start(t, Config{})
	f.enrol(identifier(1), nil)
	errStop := errors.New("stopping")
	for _, b := range [][]byte{nil, {3}, mustRequest(t, credential.FetchRevocations{})} {
		mine, theirs := net.Pipe()
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- f.Serve(ctx, identifier(1), theirs) }()
		if _, err := mine.Write(b); err != nil {
			t.Fatal(err)
		}
		cancel(errStop)
		if err := <-done; !errors.Is(err, errStop) {
			t.Errorf("after %x: %v, want the cause", b, err)
		}
		_ = mine.Close()
	}
}

func mustRequest(t *testing.T, m credential.Request) []byte {
	t.Helper()
	b, err := credential.AppendRequest(nil, 1, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A failure of the authority's own is told as one, without what it is.
func TestServeInternalError(t *testing.T) {
	f := start(t, Config{})
	f.enrol(identifier(1), nil)
	c := f.dial(identifier(1))
	c.ask(credential.FetchRevocations{})
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, c.ask(credential.Renew{}), code.Internal, "see its log")
	<-c.done
	if c.err == nil || strings.Contains(c.err.Error(), "see its log") {
		t.Errorf("ended with %v, want what is the matter", c.err)
	}
}

// Traces hear of everything.
func TestTrace(t *testing.T) {
	var issues []Issue
	var refusals []string
	lists := 0
	f := start(t, Config{Trace: &Trace{
		Issued: func(i Issue) { issues = append(issues, i) },
		Refused: func(peer identity.Identifier, request string, r *Refusal) {
			refusals = append(refusals, peer.String()+" "+request+" "+r.Code.String())
		},
		Published: func(uint64, int) { lists++ },
	}})
	ticket := f.ticket(TicketRequest{})
	c := f.dial(identifier(1))
	c.ask(credential.Renew{})
	c.ask(credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret})
	c.ask(credential.Renew{})
	_ = c.conn.Close()
	<-c.done
	if len(issues) != 2 || !issues[0].New || issues[0].Request != "ticket" || issues[0].Ticket != ticket.ID || issues[1].New || issues[1].Request != "renew" {
		t.Errorf("issues %+v", issues)
	}
	if want := identifier(1).String() + " renew not_enrolled"; len(refusals) != 1 || refusals[0] != want || lists != 1 {
		t.Errorf("refusals %q, want %q; %d lists", refusals, want, lists)
	}
}
