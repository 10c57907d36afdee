package app

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// routesTo is a way to an authority, for its tickets.
func routesTo(id identity.Identifier) []route.Route {
	return []route.Route{{{Host: "127.0.0.1", Port: 1, Identifier: id}}}
}

// startAuthorityOf starts an authority with these settings; change is called before
// it runs.
func startAuthorityOf(t *testing.T, cfg config.Authority, change ...func(a *Authority)) (a *Authority, stop func()) {
	t.Helper()
	o, _ := newObs(t, "authority")
	a, err := NewAuthority(&cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(a)
	}
	if err := a.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, run(t, a.Run)
}

// startListening is startAuthorityOf for one that accepts members itself.
func startListening(t *testing.T, change ...func(a *Authority)) *Authority {
	t.Helper()
	key, id := newIdentity(t)
	a, _ := startAuthorityOf(t, config.Authority{
		Common: config.Common{Identity: key, DrainTimeout: time.Millisecond},
		Store:  filepath.Join(t.TempDir(), "authority.db"), Listen: []config.Address{local(0)}, Routes: routesTo(id),
	}, change...)
	return a
}

// A stranger is one identity's channel to an authority, on which it asks whatever
// it likes.
type stranger struct {
	as      *identity.Identity
	session *tunnel.Session
}

// newStranger opens a channel to the authority. It ends with the test.
func newStranger(t *testing.T, a *Authority, as *identity.Identity) *stranger {
	t.Helper()
	if as == nil {
		var err error
		if as, err = identity.New(time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	local, err := channel.NewLocal(as)
	if err != nil {
		t.Fatal(err)
	}
	caller := &channel.Caller{
		Local: local, Peer: a.Identifier(), Routes: 1, Settings: channel.Settings{Buffers: channel.NewBuffers(1 << 20), Grace: time.Millisecond},
		Path: func(ctx context.Context, _ int, _ *channel.Instance, _ int) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", a.Addrs()[0].String())
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ch, err := caller.Dial(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{as, tunnel.NewClient(ch, tunnel.Config{})}
	go func() { _ = s.session.Run(context.Background()) }()
	t.Cleanup(func() {
		s.session.Close(code.OK, "")
		<-s.session.Done()
	})
	return s
}

// open opens a stream to the authority's service.
func (s *stranger) open(t *testing.T) *memberClient {
	t.Helper()
	st, err := s.session.Open(t.Context(), tunnel.Open{Service: authority.ServiceName})
	if err != nil {
		t.Fatal(err)
	}
	return &memberClient{t: t, stream: st}
}

// ended waits for the session's end and returns the code that the authority gave.
func (s *stranger) ended(t *testing.T) string {
	t.Helper()
	select {
	case <-s.session.Lost():
	case <-time.After(patience):
		t.Fatal("the channel does not end")
	}
	return label(s.session.Err(), code.ChannelLost)
}

func ticketOf(t *testing.T, a *Authority, uses int) credential.EnrollTicket {
	t.Helper()
	ticket, _, err := a.deciding.Load().CreateTicket(t.Context(), authority.TicketRequest{Uses: uses})
	if err != nil {
		t.Fatal(err)
	}
	return credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret}
}

// Hundreds of identities that cost nothing hold all the places that there are for
// strangers: some silent, some asking all the time. Members renew all the while,
// newcomers enrol, and come in again as members.
func TestStrangersKeepNobodyFromTheAuthority(t *testing.T) {
	t.Parallel()
	const places, attackers = 24, 200
	a := startListening(t, func(a *Authority) { a.channels.bounds.strangers = places })
	enrol := ticketOf(t, a, attackers)
	member := newStranger(t, a, nil)
	renewing := member.open(t)
	if _, ok := renewing.ask(enrol).(credential.Issued); !ok {
		t.Fatal("the member is not enrolled")
	}
	junk := credential.EnrollTicket{ID: credential.TicketID{1}, Secret: credential.NewSecret(make([]byte, 32))}
	for i := range attackers {
		s := newStranger(t, a, nil)
		if i%2 == 0 { // the others are silent
			if r, ok := s.open(t).ask(junk).(credential.Refused); !ok || r.Code != code.TicketRefused {
				t.Fatalf("a forged ticket: %+v", r)
			}
		}
		if i%10 != 0 {
			continue
		}
		if _, ok := renewing.ask(credential.Renew{}).(credential.Issued); !ok {
			t.Fatalf("the member does not renew among %d strangers", i)
		}
		newcomer := newStranger(t, a, nil)
		if _, ok := newcomer.open(t).ask(enrol).(credential.Issued); !ok {
			t.Fatalf("a newcomer does not enrol among %d strangers", i)
		}
		again := newStranger(t, a, newcomer.as)
		if _, ok := again.open(t).ask(credential.Renew{}).(credential.Issued); !ok {
			t.Fatalf("a member does not come in again among %d strangers", i)
		}
	}
	if err := member.session.Err(); err != nil {
		t.Errorf("the member has lost its channel: %v", err)
	}
	eventually(t, "strangers have no more than their places", func() bool {
		_, streams := a.deciding.Load().Streams()
		a.channels.mu.Lock()
		defer a.channels.mu.Unlock()
		return len(a.channels.strangers) <= places && streams <= places && len(a.channels.all) <= places+a.channels.listed
	})
}

// A stranger's channel ends when its time is over, whatever it asks; that of one who
// has enrolled does not, and does once it is no member any more.
func TestStrangersLeaveAnAuthority(t *testing.T) {
	t.Parallel()
	a := startListening(t)
	expire := func() { // as their timers do
		a.channels.mu.Lock()
		var all []*reservation
		for _, places := range a.channels.places {
			for p := range places {
				all = append(all, p)
			}
		}
		a.channels.mu.Unlock()
		for _, p := range all {
			a.channels.expire(p)
		}
	}
	member, silent, asking := newStranger(t, a, nil), newStranger(t, a, nil), newStranger(t, a, nil)
	m := member.open(t)
	if _, ok := m.ask(ticketOf(t, a, 1)).(credential.Issued); !ok {
		t.Fatal("the member is not enrolled")
	}
	c := asking.open(t)
	go func() { // until the stream ends with its channel
		for b, _ := credential.AppendRequest(nil, 1, credential.Renew{}); ; {
			if _, err := c.stream.Write(b); err != nil {
				return
			}
			if _, _, err := credential.ReadAnswer(c.stream); err != nil {
				return
			}
		}
	}()
	expire()
	for _, s := range []*stranger{silent, asking} {
		if c := s.ended(t); c != code.NotEnrolled.String() {
			t.Errorf("a stranger's channel ends with %s, want not_enrolled", c)
		}
	}
	if _, ok := m.ask(credential.Renew{}).(credential.Issued); !ok {
		t.Error("who has enrolled does not renew when its time as a stranger is over")
	}
	if _, err := a.deciding.Load().Revoke(t.Context(), authority.Revocation{Identifiers: []identity.Identifier{member.as.Identifier()}}); err != nil {
		t.Fatal(err)
	}
	expire()
	if c := member.ended(t); c != code.NotEnrolled.String() {
		t.Errorf("the channel of who is no member any more ends with %s, want not_enrolled", c)
	}
}

// What a stranger sends is bounded, read or not; what a member sends is not.
func TestStrangersSendLittle(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	a := startListening(t, func(a *Authority) { a.channels.bounds.bytes = most })
	token := credential.EnrollKubernetes{Token: credential.NewSecret(make([]byte, credential.MaxToken))}
	b, err := credential.AppendRequest(nil, 1, token)
	if err != nil {
		t.Fatal(err)
	}
	s := newStranger(t, a, nil)
	st := s.open(t).stream
	go func() {
		for {
			if _, err := st.Write(b); err != nil {
				return
			}
		}
	}()
	if c := s.ended(t); c != code.Limit.String() {
		t.Errorf("a stranger that sends for ever is ended with %s, want limit", c)
	}
	m := newStranger(t, a, nil)
	c := m.open(t)
	if _, ok := c.ask(ticketOf(t, a, 1)).(credential.Issued); !ok {
		t.Fatal("the member is not enrolled")
	}
	for range 2 * most / len(b) {
		if _, ok := c.ask(token).(credential.Refused); !ok {
			t.Fatal("a member is not answered")
		}
	}
}

// Streams, which cost nothing, do not bring a stranger as many requests as it
// likes on one channel; nor do they take other strangers' places.
func TestStrangersOpenFewStreams(t *testing.T) {
	t.Parallel()
	a := startListening(t)
	waiting := newStranger(t, a, nil)
	w := waiting.open(t)
	w.ask(credential.Renew{})
	s := newStranger(t, a, nil)
	opened := 0
	for { // until the session is over
		st, err := s.session.Open(t.Context(), tunnel.Open{Service: authority.ServiceName})
		if err != nil {
			break
		}
		if st.Answered(t.Context()) == nil { // else the two before are still ending
			opened++
		}
		_ = st.Reset(code.Aborted)
	}
	if c := s.ended(t); c != code.Limit.String() || opened > 256<<10/streamCost {
		t.Errorf("ended with %s after %d streams, want limit after %d", c, opened, 256<<10/streamCost)
	}
	if r, ok := w.ask(credential.Renew{}).(credential.Refused); !ok || r.Code != code.NotEnrolled {
		t.Errorf("the other stranger: %+v, want not_enrolled", r)
	}
}

// A channel to an authority carries a stream, and another while that one ends.
func TestStreamsToAnAuthorityAreFew(t *testing.T) {
	t.Parallel()
	a := startListening(t)
	s := newStranger(t, a, nil)
	for range authorityStreams {
		s.open(t).ask(credential.Renew{})
	}
	st, err := s.session.Open(t.Context(), tunnel.Open{Service: authority.ServiceName})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Answered(t.Context()); tunnel.CodeOf(err) != code.Limit {
		t.Errorf("one stream more: %v, want limit", err)
	}
}

// memberTable is a table in which peers become members by a call.
type memberTable struct {
	*channels
	mu      sync.Mutex
	members map[identity.Identifier]bool
	busy    map[identity.Identifier]bool
	ended   map[*openChannel]code.Code
}

func newMemberTable() *memberTable {
	m := &memberTable{members: map[identity.Identifier]bool{}, busy: map[identity.Identifier]bool{}, ended: map[*openChannel]code.Code{}}
	bounds := channelBounds{all: 2, strangers: 3, eachStranger: 2, yields: true, time: time.Minute, bytes: 100, idle: func(id identity.Identifier) bool {
		return !m.busy[id]
	}}
	m.channels = newChannels(bounds, func(p policy.Peer) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.members[p.ID]
	}, nobodyWaits)
	m.end = func(ch *openChannel, r *refusal) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.ended[ch] = r.code
	}
	return m
}

func (m *memberTable) enrol(id identity.Identifier, is bool) {
	m.mu.Lock()
	m.members[id] = is
	m.mu.Unlock()
	m.reclass(id)
}

func (m *memberTable) take(t *testing.T, id identity.Identifier) *reservation {
	t.Helper()
	p, r := m.reserve(policy.Peer{ID: id})
	if r != nil {
		t.Fatal(r.logged())
	}
	m.occupy(p, &openChannel{})
	return p
}

func (m *memberTable) want(t *testing.T, strangers, listed int, ended map[*openChannel]code.Code) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.strangers) != strangers || m.listed != listed || fmt.Sprint(m.ended) != fmt.Sprint(ended) {
		t.Errorf("%d strangers, %d others, ended %v; want %d, %d and %v", len(m.strangers), m.listed, m.ended, strangers, listed, ended)
	}
}

// The oldest idle stranger gives way, once, and then its place is nobody's.
func TestStrangersGiveWay(t *testing.T) {
	m := newMemberTable()
	m.busy[id(1)] = true
	first, second := m.take(t, id(1)), m.take(t, id(2))
	m.take(t, id(3))
	m.want(t, 3, 0, nil)
	m.take(t, id(4))
	m.want(t, 3, 0, map[*openChannel]code.Code{second.ch: code.Limit})
	m.release(second, nil)
	m.want(t, 3, 0, map[*openChannel]code.Code{second.ch: code.Limit})
	for _, n := range []byte{2, 3, 4} {
		m.busy[id(n)] = true
	}
	m.take(t, id(5))
	m.want(t, 3, 0, map[*openChannel]code.Code{second.ch: code.Limit, first.ch: code.Limit})
	m.enrol(id(1), true) // too late for its channel
	m.want(t, 3, 0, map[*openChannel]code.Code{second.ch: code.Limit, first.ch: code.Limit})
	m.release(first, nil)
	m.busy[id(5)] = true
	m.take(t, id(5))
	if _, r := m.reserve(policy.Peer{ID: id(5)}); r == nil || r.code != code.Limit {
		t.Errorf("a third channel of one stranger: %v, want limit", r)
	}
	if len(m.places) != 3 {
		t.Errorf("%d peers have places, want 3", len(m.places))
	}
}

// Who enrols between the question who it is and its place is no stranger.
func TestEnrolledMeanwhile(t *testing.T) {
	m := newMemberTable()
	known := m.known
	m.known = func(p policy.Peer) bool {
		was := known(p)
		m.enrol(p.ID, true)
		return was
	}
	p, r := m.reserve(policy.Peer{ID: id(1)})
	if r != nil {
		t.Fatal(r.logged())
	}
	m.known = known
	m.occupy(p, &openChannel{})
	m.want(t, 0, 1, nil)
	m.release(p, nil)
}

// Who enrols is counted as a member from then on, with all channels, and who is
// none any more as a stranger, with a stranger's time and bytes.
func TestChannelsAreReclassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemberTable()
		a, b, c := m.take(t, id(1)), m.take(t, id(1)), m.take(t, id(2))
		m.want(t, 3, 0, nil)
		m.enrol(id(1), true)
		m.want(t, 1, 2, nil)
		m.enrol(id(1), true)
		m.want(t, 1, 2, nil)
		if a.spend(1 << 30) {
			t.Error("a member has sent too much")
		}
		m.enrol(id(3), true)
		if _, r := m.reserve(policy.Peer{ID: id(3)}); r == nil || r.code != code.Limit {
			t.Errorf("one member more than there may be: %v, want limit", r)
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		m.want(t, 1, 2, map[*openChannel]code.Code{c.ch: code.NotEnrolled})
		m.release(c, nil)
		m.enrol(id(1), false)
		m.want(t, 2, 0, map[*openChannel]code.Code{c.ch: code.NotEnrolled})
		if a.spend(100) || !a.spend(1) {
			t.Error("who is no member any more does not have a stranger's bytes")
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		m.want(t, 2, 0, map[*openChannel]code.Code{c.ch: code.NotEnrolled})
		m.release(b, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		m.want(t, 1, 0, map[*openChannel]code.Code{c.ch: code.NotEnrolled, a.ch: code.NotEnrolled})
		m.release(a, nil)
		m.want(t, 0, 0, map[*openChannel]code.Code{c.ch: code.NotEnrolled, a.ch: code.NotEnrolled})
		time.Sleep(time.Hour) // nothing is left that could end
	})
}
