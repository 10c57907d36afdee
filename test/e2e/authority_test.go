//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// authority starts an authority that registers at a relay, and waits until it is
// ready.
func (w *world) authority(name, relay string) *node {
	w.t.Helper()
	return w.start("culvert authority", name, "", "store: "+filepath.Join(w.dir, name+".db")+"\nrelays: "+list([]string{w.hop(relay)})+"\n").wantReady()
}

// at runs a command about the authority n.
func (n *node) at(args ...string) (stdout, stderr string, code int) {
	n.w.t.Helper()
	cmd := unprivileged(exec.Command(program("culvert"), append(args, "--config", n.config)...))
	cmd.Dir = n.w.dir
	return tryCommand(n.w.t, patience, cmd)
}

// mustAt is at for a command that has to succeed; it returns the last line.
func (n *node) mustAt(args ...string) string {
	n.w.t.Helper()
	out, errOut, code := n.at(args...)
	if code != 0 {
		n.w.t.Fatalf("culvert %q: exit code %d: %s", args, code, errOut)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func (n *node) ticket(args ...string) credential.Ticket {
	n.w.t.Helper()
	t, err := credential.ParseTicket(n.mustAt(append([]string{"ticket", "create"}, args...)...))
	if err != nil {
		n.w.t.Fatal(err)
	}
	return t
}

// A member is a member's side of a stream to an authority.
type member struct {
	t      *testing.T
	id     identity.Identifier
	stream *tunnel.Stream
	last   uint32
}

// member enters a new identity's stream to the authority that a ticket names, by
// the ticket's route, as it will be for a new machine.
func (w *world) member(id *identity.Identity, ticket credential.Ticket) *member {
	w.t.Helper()
	local, err := channel.NewLocal(id)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := route.Parse(ticket.Routes[0])
	if err != nil {
		w.t.Fatal(err)
	}
	d := &relay.Dialer{Local: local}
	c := &channel.Caller{
		Local: local, Peer: ticket.Authority, Routes: 1, Settings: channel.Settings{Buffers: channel.NewBuffers(1 << 20)},
		Path: func(ctx context.Context, _ int, instance *channel.Instance, address int) (net.Conn, error) {
			return d.Path(ctx, r, ticket.Authority, instance, address)
		},
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var ch *channel.Channel
	if !eventually(patience, func() bool { ch, err = c.Dial(ctx, 0); return err == nil }) {
		w.t.Fatal(err)
	}
	s := tunnel.NewClient(ch, tunnel.Config{})
	go func() { _ = s.Run(context.Background()) }()
	w.t.Cleanup(func() {
		ch.Fail(code.Aborted, errors.New("the test is over")) // no word: the authority may be gone
		<-s.Done()
	})
	st, err := s.Open(ctx, tunnel.Open{Service: "culvert.authority"})
	if err != nil {
		w.t.Fatal(err)
	}
	return &member{t: w.t, id: id.Identifier(), stream: st}
}

// ask sends a request and returns its answer, passing over lists that nobody has
// asked for.
func (m *member) ask(q credential.Request) (credential.Answer, error) {
	m.last++
	b, err := credential.AppendRequest(nil, m.last, q)
	if err != nil {
		return nil, err
	}
	if _, err := m.stream.Write(b); err != nil {
		return nil, err
	}
	for {
		id, a, err := m.receive()
		if err != nil || id == m.last {
			return a, err
		}
	}
}

func (m *member) receive() (uint32, credential.Answer, error) {
	_ = m.stream.SetReadDeadline(time.Now().Add(patience))
	return credential.ReadAnswer(m.stream)
}

func (m *member) wantIssued(q credential.Request) []byte {
	m.t.Helper()
	a, err := m.ask(q)
	issued, ok := a.(credential.Issued)
	if !ok {
		m.t.Fatalf("%T %+v, %v: want a credential", a, a, err)
	}
	return issued.Bundle
}

func (m *member) wantRefused(q credential.Request, want code.Code, part string) {
	m.t.Helper()
	a, err := m.ask(q)
	if r, ok := a.(credential.Refused); !ok || r.Code != want || !strings.Contains(r.Reason, part) {
		m.t.Errorf("%+v, %v: want %s with %q", a, err, want, part)
	}
}

func enrol(t credential.Ticket) credential.EnrollTicket {
	return credential.EnrollTicket{ID: t.ID, Secret: t.Secret}
}

func newID(t *testing.T) *identity.Identity {
	t.Helper()
	id, err := identity.New(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// everybody lets a relay connect those who have no credential yet.
const everybody = "connect: 'true'\n"

func authorityWorld(t *testing.T) (*world, *node) {
	t.Helper()
	w := newWorld(t)
	w.start("relay", "relay", "", "listen: ["+`"tcp://`+w.addr("relay")+`"`+"]\nregister: "+list([]string{w.id("authority")})+"\n"+everybody).wantReady()
	return w, w.authority("authority", "relay")
}

// The authority behind a relay: a ticket enrols once, a revocation is pushed
// within seconds, a killed authority comes back with all that it has said.
func TestAuthority(t *testing.T) {
	t.Parallel()
	w, a := authorityWorld(t)
	ticket := a.ticket("--attr", "role=api", "--uses", "1", "--expires-in", "10m")
	id := newID(t)
	m := w.member(id, ticket)
	m.wantRefused(credential.Renew{}, code.NotEnrolled, "culvert ticket create")
	bundle := m.wantIssued(enrol(ticket))
	v, err := credential.NewVerifier(credential.Config{Authorities: []identity.Identifier{ticket.Authority}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(m.id, bundle, time.Now())
	if err != nil || got.Attributes["role"] != "api" {
		t.Fatalf("%+v, %v", got, err)
	}
	other := w.member(newID(t), ticket)
	other.wantRefused(enrol(ticket), code.TicketRefused, "used up (1 of 1)")
	forged := ticket
	forged.Secret = credential.NewSecret(make([]byte, 32))
	other.wantRefused(enrol(forged), code.TicketRefused, "no such ticket")
	short := a.ticket("--expires-in", "1s")
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(2 * time.Second)))
	other.wantRefused(enrol(short), code.TicketRefused, "expired at")
	if line := a.mustAt("authority", "list"); !strings.Contains(line, m.id.String()) || !strings.Contains(line, "role=api") {
		t.Errorf("culvert authority list: %q", line)
	}

	began := time.Now()
	a.mustAt("revoke", "--reason", "test", got.Serial.String())
	_, pushed, err := m.receive()
	full, ok := pushed.(credential.FullRevocations)
	if took := time.Since(began); err != nil || !ok || took > cutTime {
		t.Fatalf("%T, %v after %s: want a list within %s", pushed, err, took, cutTime)
	}
	if _, err := v.ApplyList(full.List, time.Now()); err != nil || v.Check(got, time.Now()) == nil {
		t.Errorf("the credential is not revoked: %v", err)
	}

	a.signal(syscall.SIGKILL)
	<-a.done
	a.restart().wantReady()
	again := w.member(id, ticket)
	if _, err := v.Verify(m.id, again.wantIssued(credential.Renew{}), time.Now()); err != nil {
		t.Errorf("renewed after the authority was killed: %v", err)
	}
	other = w.member(newID(t), ticket)
	other.wantRefused(enrol(ticket), code.TicketRefused, "used up")
	if log := a.log.String(); strings.Contains(log, "culvert_ticket_1") {
		t.Errorf("the log has a ticket")
	}
}

// Of many machines that use a ticket's last uses at once as many get in as it
// says, with the authority killed in the middle.
func TestAuthorityKilledWhileTicketsAreUsed(t *testing.T) {
	t.Parallel()
	w, a := authorityWorld(t)
	const uses, machines = 5, 16
	ticket := a.ticket("--uses", "5")
	var members []*member
	for range machines {
		members = append(members, w.member(newID(t), ticket))
	}
	var in atomic.Int64
	var all sync.WaitGroup
	killed := make(chan struct{})
	for _, m := range members {
		all.Go(func() {
			if a, err := m.ask(enrol(ticket)); err == nil {
				if _, ok := a.(credential.Issued); ok && in.Add(1) == 2 {
					close(killed)
				}
			}
		})
	}
	<-killed
	a.signal(syscall.SIGKILL)
	<-a.done
	a.restart().wantReady()
	all.Wait()
	out, errOut, exit := a.at("authority", "list")
	if n := int64(strings.Count(out, "\n")); exit != 0 || n < in.Load() || n > uses {
		t.Errorf("%d members, and %d were told so, by a ticket of %d uses: %s", n, in.Load(), uses, errOut)
	}
}

// A backup of a running authority is the authority, once it is restored; a store
// that is cut off is refused.
func TestAuthorityBackup(t *testing.T) {
	t.Parallel()
	w, a := authorityWorld(t)
	ticket := a.ticket("--uses", "2")
	id := newID(t)
	w.member(id, ticket).wantIssued(enrol(ticket))
	backup := filepath.Join(w.dir, "backup.db")
	a.mustAt("authority", "backup", backup)
	if _, errOut, exit := a.at("authority", "restore", backup); exit != 1 || !strings.Contains(errOut, "stop the authority first") {
		t.Errorf("restoring under a running authority: %d, %s", exit, errOut)
	}
	a.stop()
	store := filepath.Join(w.dir, "authority.db")
	if err := os.Truncate(store, 20_000); err != nil {
		t.Fatal(err)
	}
	cmd := unprivileged(exec.Command(program("culvert"), "authority", "--config", a.config))
	if _, errOut, exit := tryCommand(t, patience, cmd); exit != 1 || !strings.Contains(errOut, "it is damaged: restore a backup") {
		t.Errorf("a store that is cut off: exit code %d, %s", exit, errOut)
	}
	a.mustAt("authority", "restore", backup)
	a.restart().wantReady()
	w.member(id, ticket).wantIssued(credential.Renew{})
}
