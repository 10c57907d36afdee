package config

import (
	"time"
)

// Bounds of an authority's lifetimes.
const (
	MinCredentialLifetime = time.Minute
	MaxCredentialLifetime = 24 * time.Hour
	MinListLifetime       = 10 * time.Second
	MaxListLifetime       = 30 * 24 * time.Hour
	MinForgetMembers      = 24 * time.Hour
	MaxForgetMembers      = 10 * 365 * 24 * time.Hour
)

// maxTicketRoutes is how many routes a ticket holds.
const maxTicketRoutes = 8

// authority reads an authority's settings.
func (d *decoder) authority(root *value) *Authority {
	s := d.section(root, "")
	s.hints = hintsFor(KindAuthority)
	s.hints["services"] = "it is a key of the commands inlet and outlet"
	s.hints["limits"] = "it is a key of the commands outlet and relay"
	s.synonyms = map[string]string{"database": "store", "file": "store", "lifetime": "credential_lifetime", "register": "relays", "relay": "relays", "route": "routes"}
	c := &Authority{Common: s.common(), Channels: s.channels()}
	s.need("store", "name the file of members, tickets and revocations (store: FILE or --store FILE); it is made if it is not there")
	c.Store = s.filePath("store")
	c.Relays = s.routes("relays", nil)
	c.Listen = s.listenAddresses("listen")
	if len(s.items("relays"))+len(s.items("listen")) == 0 && s.v.shape == shapeMap {
		s.need("relays", "say where members can reach the authority (relays: [tcp://host:port/IDENTIFIER] or --relay; or listen: to accept them directly)")
		s.notEmpty("relays", "nothing could reach the authority: write a relay's route, or an address in listen")
	}
	c.Routes = s.routes("routes", nil)
	s.ticketRoutes(c)
	c.CredentialLifetime = s.wholeSeconds("credential_lifetime", MinCredentialLifetime, MaxCredentialLifetime)
	c.ListLifetime = s.wholeSeconds("list_lifetime", MinListLifetime, MaxListLifetime)
	c.ForgetMembersAfter = s.wholeSeconds("forget_members_after", MinForgetMembers, MaxForgetMembers)
	if v := s.get("kubernetes"); v != nil {
		c.Kubernetes = d.kubernetes(v, "kubernetes")
	}
	if c.RenewWithoutToken = s.boolean("renew_without_token"); c.RenewWithoutToken && !s.has("kubernetes") {
		s.fault(s.origins["renew_without_token"], "renew_without_token", "has no meaning without kubernetes, by which nobody is enrolled: remove it, or add that section")
	}
	s.finish()
	c.origins, c.file, c.info = d.origins, d.file, d.info
	c.SetDefaults()
	return c
}

// ticketRoutes checks that a ticket can hold the way to the authority.
func (s *section) ticketRoutes(c *Authority) {
	key, routes := "routes", c.Routes
	if !s.has("routes") {
		key, routes = "relays", c.Relays
	}
	if len(routes) > maxTicketRoutes {
		s.fault(s.origins[key], key, "has %d routes, and a ticket holds %d: name those that members are to use under routes", len(routes), maxTicketRoutes)
	}
	if len(routes) == 0 && len(c.Listen) > 0 && !s.has("routes") {
		s.need("routes", "say how members reach the authority, which tickets tell them (routes: [tcp://host:port/IDENTIFIER] with the authority's own identifier, or --route)")
	}
}

// wholeSeconds reads a time of whole seconds within bounds; 0 if it is not there.
func (s *section) wholeSeconds(key string, least, most time.Duration) time.Duration {
	d := s.duration(key, least, most)
	if d%time.Second != 0 {
		s.fault(s.origins[join(s.path, key)], join(s.path, key), "%s is not a whole number of seconds", d)
		return 0
	}
	return d
}
