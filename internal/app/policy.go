package app

import (
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A policy says which peers may use which services: those that a service lists
// and nobody else. It does not change.
type policy struct {
	allowed map[string]map[identity.Identifier]bool // by service
	listed  map[identity.Identifier]bool            // those that may use any service
}

func newPolicy(services []config.OutletService) policy {
	p := policy{allowed: map[string]map[identity.Identifier]bool{}, listed: map[identity.Identifier]bool{}}
	for _, s := range services {
		allowed := map[identity.Identifier]bool{}
		for _, id := range s.Allow {
			allowed[id] = true
			p.listed[id] = true
		}
		p.allowed[s.Name] = allowed
	}
	return p
}

// allows reports whether the peer may use the service.
func (p policy) allows(peer identity.Identifier, service string) bool {
	return p.allowed[service][peer]
}

// knows reports whether the peer may use any service.
func (p policy) knows(peer identity.Identifier) bool { return p.listed[peer] }
