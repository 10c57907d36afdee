package app

import (
	"slices"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/member"
	"github.com/culvert-net/culvert/internal/sandbox"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// A ticket that comes while a process runs needs a restart where it would count at one,
// and is of no interest to a member. That one is gone is no change.
func TestReloadOfTickets(t *testing.T) {
	authority, err := identity.New(time.Now().Add(-time.Hour))
	must(t, err)
	there := route.Route{{Host: "127.0.0.1", Port: 1, Identifier: authority.Identifier()}}
	ticket := func(of identity.Identifier, n byte) *credential.Ticket {
		return &credential.Ticket{Authority: of, Routes: []string{there.String()}, ID: credential.TicketID{n}, Secret: credential.NewSecret(make([]byte, credential.MinTicketSecret))}
	}
	first, second, other := ticket(authority.Identifier(), 1), ticket(authority.Identifier(), 2), ticket(id(9), 1)
	for _, tt := range []struct {
		name       string
		enrolled   bool
		was, is    *credential.Ticket
		restarting bool
	}{
		{"none", false, nil, nil, false},
		{"the same", false, first, ticket(authority.Identifier(), 1), false},
		{"gone", false, first, nil, false},
		{"gone from a member", true, first, nil, false},
		{"new", false, nil, first, true},
		{"another, and the first did not enrol", false, first, second, true},
		{"another, for a member", true, first, second, false},
		{"a first, for a member by what was kept", true, nil, first, false},
		{"another authority's", false, first, other, true},
		{"another authority's, for a member", true, first, other, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, own := newIdentity(t)
			state := t.TempDir()
			if tt.enrolled {
				_, bundle, err := credential.Issue(authority, credential.Template{Subject: own, NotBefore: time.Now()})
				must(t, err)
				must(t, member.NewStore(state, own).Save(&member.Membership{Authority: authority.Identifier(), Routes: []string{there.String()}, Bundle: bundle}))
			}
			was := &config.Trust{Ticket: tt.was}
			if tt.was != nil {
				was.TicketRoutes = []route.Route{there}
			}
			o, _ := newObs(t, "relay")
			b, err := newBase(&config.Common{Identity: key, State: state}, nil, was, nobody, o)
			must(t, err)
			rev := b.revise(nil, was, &config.Trust{Ticket: tt.is}, sandbox.Files{}, func() error { return nil })
			if got := slices.Equal(rev.restart, []string{"ticket"}); got != tt.restarting || !got && len(rev.restart) > 0 {
				t.Errorf("%q need a restart, want the ticket: %v", rev.restart, tt.restarting)
			}
		})
	}
}
