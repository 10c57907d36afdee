package authoritytest

import (
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// List returns the newest revocation list, nil if there is none.
func (a *Authority) List() *credential.List {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.list
}

// DropList has the authority have no list, and the next one be the first again.
func (a *Authority) DropList() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = nil
}

// Revoke makes the next list, and sends it to all: as a delta where there was one before.
func (a *Authority) Revoke(ids []identity.Identifier, credentials ...*credential.Credential) {
	a.t.Helper()
	before, list := a.sign(ids, credentials)
	if before == nil {
		a.Say(Whole(a.t, list))
		return
	}
	b, err := list.Delta(before)
	if err != nil {
		a.t.Fatal(err)
	}
	a.Say(credential.DeltaRevocations{Delta: b})
}

// RevokeSilently is Revoke that sends nothing: members have it when they ask.
func (a *Authority) RevokeSilently(ids []identity.Identifier, credentials ...*credential.Credential) {
	a.t.Helper()
	a.sign(ids, credentials)
}

// sign makes the next list, and returns it with the one before, nil if there was none.
func (a *Authority) sign(ids []identity.Identifier, credentials []*credential.Credential) (before, list *credential.List) {
	a.t.Helper()
	var serials []credential.RevokedSerial
	for _, c := range credentials {
		serials = append(serials, credential.RevokedSerial{Serial: c.Serial, End: c.NotAfter})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	number, set := uint64(1), (*credential.Set)(nil)
	if before = a.list; before != nil {
		number, set = before.Number()+1, before.Set()
	}
	set, err := set.Add(ids, serials)
	if err == nil {
		list, err = credential.SignList(a.id, number, time.Now(), time.Time{}, set)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.list = list
	return before, list
}

// Whole returns the message that has all of a list.
func Whole(t testing.TB, l *credential.List) credential.FullRevocations {
	b, err := l.Full()
	if err != nil {
		t.Error(err)
	}
	return credential.FullRevocations{List: b}
}
