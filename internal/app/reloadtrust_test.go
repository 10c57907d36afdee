package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/member"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// revoking returns an authority's list that has one identifier.
func revoking(t *testing.T, authority *identity.Identity, number uint64, whom identity.Identifier) *credential.List {
	t.Helper()
	set, err := (*credential.Set)(nil).Add([]identity.Identifier{whom}, nil)
	must(t, err)
	l, err := credential.SignList(authority, number, time.Now(), time.Time{}, set)
	must(t, err)
	return l
}

// relayWithState returns a relay that follows a file and has a folder state, with what
// keeps lists there.
func relayWithState(t *testing.T, more string) (*Relay, *settingsFile, *member.Store) {
	t.Helper()
	key, id := newIdentity(t)
	state := t.TempDir()
	f := &settingsFile{t: t, name: filepath.Join(t.TempDir(), "relay.yaml")}
	f.text = fmt.Sprintf("identity: %s\nstate: %s\nlisten: [tcp://127.0.0.1:0]\nregister: [%s]\n", key, state, id)
	replaceFile(t, f.name, f.text+more)
	cfg, err := config.LoadRelay(fileSource(f.name))
	must(t, err)
	o, log := newObs(t, "relay")
	r, err := NewRelay(cfg, o)
	must(t, err)
	r.Follow(func() (*config.Relay, error) { return config.LoadRelay(fileSource(f.name)) })
	f.log = func() *logBuffer { return log }
	return r, f, member.NewStore(state, id)
}

// An authority that is trusted from now on has what it had revoked: the list that is
// kept holds from the moment on that the authority counts, as it does at a start.
func TestReloadTakesKeptLists(t *testing.T) {
	a, err := identity.New(time.Now().Add(-time.Minute))
	must(t, err)
	_, revoked := newIdentity(t)
	authorities := "authorities: [" + a.Identifier().String() + "]\n"

	r, f, store := relayWithState(t, "")
	must(t, store.SaveList(revoking(t, a, 7, revoked)))
	replaceFile(t, f.name, f.text+authorities)
	r.file.read(true)
	if l := r.trust.verifier.List(a.Identifier()); l == nil || l.Number() != 7 {
		t.Errorf("the list that holds is %v, want the one that is kept", l)
	}
	if err := r.trust.verifier.Revoked(revoked); err == nil {
		t.Error("who is revoked is not, since the authority was named while the process runs")
	}

	// Taken out by mistake, and put back.
	replaceFile(t, f.name, f.text)
	r.file.read(true)
	replaceFile(t, f.name, f.text+authorities)
	r.file.read(true)
	if err := r.trust.verifier.Revoked(revoked); err == nil {
		t.Error("who is revoked is so no more, since the authority was taken out for a moment")
	}
}

// A list that is kept and cannot be read keeps the file from being taken, as it keeps
// a process from starting.
func TestReloadRefusesDamagedLists(t *testing.T) {
	a, err := identity.New(time.Now().Add(-time.Minute))
	must(t, err)
	_, revoked := newIdentity(t)
	r, f, store := relayWithState(t, "")
	must(t, store.SaveList(revoking(t, a, 1, revoked)))
	lists, err := filepath.Glob(filepath.Join(r.common.State, "revocations-*"))
	must(t, err)
	must(t, os.Truncate(lists[0], 20))
	replaceFile(t, f.name, f.text+"log_level: error\nauthorities: ["+a.Identifier().String()+"]\n")
	r.file.read(true)
	lines := f.log().lines(t, map[string]string{"msg": "settings file cannot be taken, what holds stays"})
	if len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["error"]), lists[0]) {
		t.Errorf("the log has %v, want that %s cannot be taken", lines, lists[0])
	}
	if r.trust.enabled.Load() || !r.trust.sameAs(nil) {
		t.Error("the authority is trusted without its list")
	}
}

// An inlet whose services are those of whoever proves to offer them is not left without
// anybody who could say who does: it would not start so either.
func TestReloadLeavesNoServiceByNameWithoutAuthorities(t *testing.T) {
	key, _ := newIdentity(t)
	_, relay := newIdentity(t)
	_, a := newIdentity(t)
	f := filepath.Join(t.TempDir(), "inlet.yaml")
	text := fmt.Sprintf("identity: %s\nstate: %s\nservices:\n  - listen: tcp://127.0.0.1:0\n    service: db\n    routes: [tcp://127.0.0.1:1/%s]\n", key, t.TempDir(), relay)
	authorities := "authorities: [" + a.String() + "]\n"
	replaceFile(t, f, text+authorities)
	cfg, err := config.LoadInlet(fileSource(f))
	must(t, err)
	o, log := newObs(t, "inlet")
	in, err := NewInlet(cfg, o)
	must(t, err)
	in.Follow(func() (*config.Inlet, error) { return config.LoadInlet(fileSource(f)) })
	replaceFile(t, f, text)
	in.file.read(true)
	lines := log.lines(t, map[string]string{"msg": "settings file cannot be taken, what holds stays"})
	if len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["error"]), "services[0].outlet") {
		t.Errorf("the log has %v, want that nobody could say who offers the service", lines)
	}
	if !in.trust.sameAs([]identity.Identifier{a}) {
		t.Error("the authority is not trusted any more")
	}
}
