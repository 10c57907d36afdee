package authority

import (
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Ten thousand members and a hundred thousand revocations: everything an
// authority does stays a matter of moments.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds")
	}
	const members, revocations = 10_000, 100_000
	f := start(t, Config{})
	f.store.db.NoSync = true // what is asked here is not what is durable
	// Their records, without the signatures of 10,000 enrolments.
	for from := 0; from < members; from += 1000 {
		putMembers(t, f, from, 1000)
	}
	ids := make([]identity.Identifier, revocations)
	for i := range ids {
		ids[i] = identifier(1_000_000 + i*7)
	}
	v := f.verifier()
	steps := []struct {
		name string
		most time.Duration
		do   func()
	}{
		{"revoking all", 20 * time.Second, func() { f.revokeID(ids...) }},
		{"the whole list", 5 * time.Second, func() { f.apply(t, v) }},
		{"revoking one more", 5 * time.Second, func() { f.revokeID(identifier(5)) }},
		{"a delta", 5 * time.Second, func() {
			if kind := f.apply(t, v); kind != "delta" {
				t.Errorf("one more comes as %s", kind)
			}
		}},
		{"the same delta for all others", time.Second, func() {
			n, _ := f.Number()
			for range members {
				if _, err := f.since(f.list(), n-1); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"renewing", time.Second, func() {
			if _, err := f.renew(identifier(77)); err != nil {
				t.Fatal(err)
			}
		}},
		{"all members", 5 * time.Second, func() {
			n := 0
			for after := (identity.Identifier{}); ; {
				page, err := f.Members(t.Context(), after, 0)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				n, after = n+len(page), page[len(page)-1].Identifier
			}
			if n != members-1 {
				t.Errorf("%d members, want %d", n, members-1)
			}
		}},
		{"a restart", 20 * time.Second, func() { f.restart(Config{}) }},
		{"a list after the restart", 5 * time.Second, func() { f.apply(t, v) }},
	}
	for _, s := range steps {
		began := time.Now()
		s.do()
		took := time.Since(began)
		t.Logf("%s took %s", s.name, took.Round(time.Millisecond))
		if took > s.most*raceFactor {
			t.Errorf("%s took %s, more than %s", s.name, took, s.most*raceFactor)
		}
	}
	if l := v.List(f.Identifier()); l.Set().Len() != revocations+1 {
		t.Errorf("the verifier has %d entries", l.Set().Len())
	}
}

// putMembers stores members as enrolling makes them.
func putMembers(t *testing.T, f *fixture, from, n int) {
	t.Helper()
	at := wholeSeconds(time.Now())
	err := f.store.db.Update(func(tx *bolt.Tx) error {
		for i := range n {
			m := &member{
				attributes: credential.Attributes{"role": "api"}, how: ByTicket, ticket: credential.TicketID{1}, enrolled: at, renewed: at,
				issued: []outstanding{{credential.Serial{byte(i), 1}, at.Add(time.Hour)}, {credential.Serial{byte(i), 2}, at.Add(time.Hour)}},
			}
			if err := putMember(tx, identifier(from+i), nil, m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
