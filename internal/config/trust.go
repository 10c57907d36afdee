package config

import (
	"errors"
	"fmt"
	"slices"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// Trust are the settings about credentials, which inlets, outlets and relays have:
// whose count, and how the process comes by its own. The zero value is to have
// nothing to do with any.
type Trust struct {
	// Authorities are those whose credentials and revocations count, beside the
	// one that the process's own credential is of; at most
	// credential.MaxAuthorities.
	Authorities []identity.Identifier
	// Authority is where the own credential comes from; zero: the ticket's, or that
	// of the credential in the folder State.
	Authority AuthorityRef
	// Ticket enrols at the first start; nil: none.
	Ticket *credential.Ticket
	// TicketFile is the file that Ticket is from, which may be gone once it has
	// enrolled; "": none.
	TicketFile string
	// TicketRoutes are the ticket's.
	TicketRoutes []route.Route
	// KubernetesToken is the file of a projected service account token, which
	// enrols and renews; "": none.
	KubernetesToken string
}

// An AuthorityRef is an authority and the way to it.
type AuthorityRef struct {
	Identifier identity.Identifier
	Routes     []route.Route // best first; at least one, if there is an identifier
}

// trust reads the settings about credentials.
func (s *section) trust() (t Trust) {
	t.Authorities = s.identifiers("authorities")
	if n := len(t.Authorities); n > credential.MaxAuthorities-1 { // one more may be that of the own credential
		s.fault(s.origins[join(s.path, "authorities")], "authorities", "there are %d, at most %d are trusted", n, credential.MaxAuthorities-1)
	}
	if v := s.get("authority"); v != nil {
		t.Authority = s.authority(v)
	}
	s.ticket(&t)
	s.read("kubernetes_token", func(text string) error {
		t.KubernetesToken = resolve(text, s.origins["kubernetes_token"])
		return nil
	})
	s.trustFits(t)
	return t
}

// authority reads the section of that name.
func (s *section) authority(v *value) (a AuthorityRef) {
	in := s.section(v, "authority")
	in.synonyms = map[string]string{"route": "routes", "relays": "routes", "id": "identifier"}
	in.need("identifier", "say who the authority is (identifier: IDENTIFIER)")
	a.Identifier = in.identifier("identifier")
	in.need("routes", "say how to get there (routes: [tcp://host:port/IDENTIFIER]); the authority's own address, if it listens, is a route too")
	a.Routes = in.routes("routes", func(r route.Route) error { return endsAt(r, a.Identifier) })
	in.notEmpty("routes", "write at least one route")
	in.finish()
	return a
}

// ticketRoutes reads the routes in a ticket.
func ticketRoutes(t credential.Ticket) (routes []route.Route, err error) {
	for i, text := range t.Routes {
		r, err := route.Parse(text)
		if err == nil {
			err = endsAt(r, t.Authority)
		}
		if err != nil {
			return nil, fmt.Errorf("its route %d of %d: %w: have the authority make another ticket", i+1, len(t.Routes), err)
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// trustFits reports settings that contradict each other.
func (s *section) trustFits(t Trust) {
	state, key := s.has("state"), "ticket"
	if s.has("ticket_file") {
		key = "ticket_file"
	}
	switch a := t.Authority.Identifier; {
	case (t.Ticket != nil || t.TicketFile != "") && !state:
		s.fault(s.origins[key], key, "%w", errors.New("what it brings has to be kept for the next start, which does not use it again: name a folder (state: FOLDER or --state)"))
	case t.Ticket != nil && !a.IsZero() && t.Ticket.Authority != a:
		s.fault(s.origins[key], key, "it is of the authority %s, and authority.identifier is another: have a ticket made by that one, or remove the section authority", t.Ticket.Authority)
	case (t.Ticket != nil || t.TicketFile != "") && t.KubernetesToken != "":
		s.fault(s.origins["kubernetes_token"], "kubernetes_token", "a ticket enrols already: give one of the two")
	case t.KubernetesToken != "" && !s.has("authority"):
		s.fault(s.origins["kubernetes_token"], "kubernetes_token", "say which authority takes it (authority: with identifier and routes)")
	case s.has("authority") && t.Ticket == nil && !s.has(key) && t.KubernetesToken == "" && !state:
		s.fault(s.origins["authority"], "authority", "this process has no credential that could be renewed there: enrol it (ticket, ticket_file or kubernetes_token), or name the folder that has one (state)")
	}
}

// Trusted returns all authorities whose credentials count: Authorities, the one
// that is named and the ticket's, each once.
func (t *Trust) Trusted() []identity.Identifier {
	all := slices.Clone(t.Authorities)
	add := func(id identity.Identifier) {
		if !id.IsZero() && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	add(t.Authority.Identifier)
	if t.Ticket != nil {
		add(t.Ticket.Authority)
	}
	return all
}
