package app

import (
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
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
