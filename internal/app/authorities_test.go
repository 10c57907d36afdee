package app

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/member"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// startBase makes what every process of that identity and folder has in common,
// and trusts an authority.
func startBase(t *testing.T, key, state string, authorities ...identity.Identifier) *base {
	t.Helper()
	o, _ := newObs(t, "relay")
	b, err := newBase(&config.Common{Identity: key, State: state}, nil, &config.Trust{Authorities: authorities}, nobody, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stopBase keeps what a process keeps when it stops.
func stopBase(t *testing.T, b *base) {
	t.Helper()
	if err := b.keys.memory.Sync(b.keys.state); err != nil {
		t.Fatal(err)
	}
}

// showing is a peer that shows one credential.
func showing(t *testing.T, authority *identity.Identity, notBefore time.Time, attributes credential.Attributes) channel.Peer {
	t.Helper()
	_, bundle, err := credential.Issue(authority, credential.Template{Subject: id(1), NotBefore: notBefore, Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	return channel.Peer{Identifier: id(1), Credentials: [][]byte{bundle}}
}

// refusedCode is why a peer's credential does not count, OK if it does.
func refusedCode(b *base, p channel.Peer) code.Code {
	j := b.trust.judge(p)
	switch {
	case j.nothing != nil:
		return j.nothing.Code
	case j.refused != nil:
		return j.refused.Code
	}
	return code.OK
}

// A key that an authority has replaced is worth nothing after a restart either; and
// what two histories have ended stays so.
func TestAuthoritiesAreRememberedOverRestarts(t *testing.T) {
	now := time.Now()
	first, err := identity.New(now.Add(-3 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	next, err := first.Rotate(now.Add(-30 * time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	thief, err := first.Rotate(now.Add(-20 * time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	key, _ := newIdentity(t)
	state := t.TempDir()
	role := credential.Attributes{"role": "api"}
	fresh, stolen, before := showing(t, next, now, role), showing(t, first, now, role), showing(t, first, now.Add(-45*time.Minute), role)

	b := startBase(t, key, state, first.Identifier())
	if c := refusedCode(b, fresh); c != code.OK {
		t.Fatalf("the new key's credential: %s", c)
	}
	stopBase(t, b)

	b = startBase(t, key, state, first.Identifier())
	if c := refusedCode(b, stolen); c != code.SignerReplaced {
		t.Errorf("the replaced key's credential after a restart: %s, want %s", c, code.SignerReplaced)
	}
	// While the newest history is remembered but not at hand, nobody can say when
	// the key was replaced.
	if c := refusedCode(b, before); c != code.SignerReplaced {
		t.Errorf("a credential from before, before the newest history was shown: %s, want %s", c, code.SignerReplaced)
	}
	for _, tt := range []struct {
		name string
		peer channel.Peer
		want code.Code
	}{{"new key's", fresh, code.OK}, {"from before", before, code.OK}, {"replaced key's", stolen, code.SignerReplaced}} {
		if c := refusedCode(b, tt.peer); c != tt.want {
			t.Errorf("once the newest history was shown, the credential %s: %s, want %s", tt.name, c, tt.want)
		}
	}
	if c := refusedCode(b, showing(t, thief, now, role)); c != code.AuthorityDiverged {
		t.Errorf("another history: %s, want %s", c, code.AuthorityDiverged)
	}
	stopBase(t, b)

	b = startBase(t, key, state, first.Identifier())
	for _, p := range []channel.Peer{fresh, before, showing(t, thief, now, role)} {
		if c := refusedCode(b, p); c != code.AuthorityDiverged {
			t.Errorf("after another restart: %s, want %s", c, code.AuthorityDiverged)
		}
	}
}

// keptList puts a list of an authority into the folder of a process.
func keptList(t *testing.T, state string, own identity.Identifier, authority *identity.Identity, revoked ...identity.Identifier) {
	t.Helper()
	set, err := (*credential.Set)(nil).Add(revoked, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := credential.SignList(authority, 1, time.Now(), time.Time{}, set)
	if err != nil {
		t.Fatal(err)
	}
	if err := member.NewStore(state, own).SaveList(l); err != nil {
		t.Fatal(err)
	}
}

// What is known of revocations holds in a process that is nobody's member, too; and
// what is missing in the folder is said.
func TestKeptListsAndTheLog(t *testing.T) {
	authority, err := identity.New(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	key, own := newIdentity(t)
	state := t.TempDir()
	_, bundle, err := credential.Issue(authority, credential.Template{Subject: own, NotBefore: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	there := route.Route{{Host: "127.0.0.1", Port: 1, Identifier: authority.Identifier()}}
	none := config.Trust{Authorities: []identity.Identifier{authority.Identifier()}}
	its := config.Trust{Authority: config.AuthorityRef{Identifier: authority.Identifier(), Routes: []route.Route{there}}}
	start := func(cfg config.Trust) (*base, *logBuffer) {
		o, log := newObs(t, "relay")
		b, err := newBase(&config.Common{Identity: key, State: state}, nil, &cfg, nobody, o)
		if err != nil {
			t.Fatal(err)
		}
		return b, log
	}
	logged := func(log *logBuffer, level, message string) bool {
		return len(log.lines(t, map[string]string{"level": level, "msg": message, "authority": authority.Identifier().String()})) > 0
	}

	if _, log := start(none); !logged(log, "info", noList) {
		t.Error("a first start does not say that no revocations are known")
	}
	if err := member.NewStore(state, own).Save(&member.Membership{Authority: authority.Identifier(), Routes: []string{there.String()}, Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	if _, log := start(its); !logged(log, "warn", noList) {
		t.Error("a credential without a list is not said")
	}
	keptList(t, state, own, authority, id(7))
	b, log := start(its)
	if logged(log, "warn", noList) || logged(log, "info", noList) || b.trust.verifier.Revoked(id(7)) == nil {
		t.Error("the list that is there is not known")
	}
	if err := os.Remove(filepath.Join(state, "credential-"+own.String())); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]config.Trust{"nobody's member": none, "a member to be": its} {
		b, log := start(cfg)
		if b.trust.verifier.Revoked(id(7)) == nil {
			t.Errorf("%s: the list is forgotten with the credential", name)
		}
		if want := b.member.member != nil; logged(log, "warn", noCredential) != want {
			t.Errorf("%s: that the credential has gone is said: %t, want %t", name, !want, want)
		}
	}
}

// A peer whose credentials contradict each other is not one without attributes: an
// expression that asks for their absence denies; a list that has the peer does not
// look at them.
func TestContradictingCredentialsAreNotNone(t *testing.T) {
	one, two := newAuthorityKey(t), newAuthorityKey(t)
	key, _ := newIdentity(t)
	b := startBase(t, key, t.TempDir(), one.Identifier(), two.Identifier())
	now := time.Now()
	single := showing(t, one, now, credential.Attributes{"role": "api"})
	torn := single
	torn.Credentials = append(torn.Credentials[:1:1], showing(t, two, now, credential.Attributes{"role": "guest"}).Credentials...)
	guard := func(connect *policy.Policy) *relayGuard {
		p := &RelayPolicy{}
		p.rules.Store(&relayRules{connect: connect, register: policy.List(), addresses: map[string]bool{"b:1": true}})
		return &relayGuard{p, b.trust}
	}
	without := guard(mustCompile(t, policy.Connect, `!has(peer.attr.revoked) || peer.attr.role != "guest"`))
	if err := without.mayConnect(single, id(2)); err != nil {
		t.Errorf("one credential: %v", err)
	}
	var denied *relay.DeniedError
	if err := without.mayConnect(torn, id(2)); !errors.As(err, &denied) || denied.Code != code.AttributeConflict || !strings.Contains(denied.Told, "attribute role") {
		t.Errorf("two that contradict each other: %v, want %s", err, code.AttributeConflict)
	}
	if err := without.mayExtend(torn, "b:1"); !errors.As(err, &denied) || denied.Code != code.AttributeConflict {
		t.Errorf("to be carried on: %v, want %s", err, code.AttributeConflict)
	}
	if without.policy.knows(b.trust.judge(torn).Peer) {
		t.Error("the relay takes the peer for one that it serves")
	}
	for name, g := range map[string]*relayGuard{"a list": guard(policy.List(id(1))), "who it is": guard(mustCompile(t, policy.Connect, `peer.id == "`+id(1).String()+`"`))} {
		if err := g.mayConnect(torn, id(2)); err != nil {
			t.Errorf("%s: %v, want that attributes do not matter", name, err)
		}
	}
}

// An authority whose history diverges when it calls ends at once what its credentials
// were for: everything is asked about again.
func TestAuthorityThatDivergesAsItCalls(t *testing.T) {
	now := time.Now()
	first := newAuthorityKey(t)
	one, err := first.Rotate(now.Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	thief, err := first.Rotate(now.Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	key, _ := newIdentity(t)
	b := startBase(t, key, t.TempDir(), first.Identifier())
	if c := refusedCode(b, showing(t, one, now, nil)); c != code.OK {
		t.Fatalf("before: %s", c)
	}
	<-b.trust.wake
	local, err := channel.NewLocal(thief)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		c, err := channel.Initiate(t.Context(), near, local, b.Identifier(), channel.PurposeHop, []byte{1}, channel.Options{})
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // the refusal
			_ = c.Close()
		}
		done <- err
	}()
	if _, err := channel.Respond(t.Context(), far, b.local, channel.PurposeHop, channel.Options{}); !errors.Is(err, identity.ErrDiverged) {
		t.Errorf("the other history: %v, want that it has diverged", err)
	}
	<-done
	select {
	case <-b.trust.wake:
	default:
		t.Error("nothing is asked about again")
	}
	if c := refusedCode(b, showing(t, one, now, credential.Attributes{"x": "y"})); c != code.AuthorityDiverged {
		t.Errorf("a credential afterwards: %s, want %s", c, code.AuthorityDiverged)
	}
}

func newAuthorityKey(t *testing.T) *identity.Identity {
	t.Helper()
	a, err := identity.New(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// An authority that has replaced its key and calls here, to register at a relay say,
// shows what tells its members' credentials from a thief's.
func TestAuthorityThatCallsShowsItsHistory(t *testing.T) {
	now := time.Now()
	first := newAuthorityKey(t)
	next, err := first.Rotate(now.Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	key, _ := newIdentity(t)
	b := startBase(t, key, t.TempDir(), first.Identifier())
	issued := showing(t, first, now.Add(-10*time.Minute), nil)
	if c := refusedCode(b, issued); c != code.OK {
		t.Fatalf("before: %s", c)
	}
	if err := b.keys.memory.Accept(next.History()); err != nil { // as every handshake does
		t.Fatal(err)
	}
	if err := b.trust.admit(channel.Peer{Identifier: next.Identifier(), History: next.History()}); err != nil {
		t.Fatal(err)
	}
	if c := refusedCode(b, issued); c != code.OK {
		t.Errorf("a credential from before its key was replaced: %s", c)
	}
	if c := refusedCode(b, showing(t, first, now.Add(10*time.Minute), nil)); c == code.OK {
		t.Error("the replaced key's credential counts")
	}
}
