// Package admin owns what the command line and a running authority say to each
// other: a handler for the authority's admin server, and the client of it. Both
// hold the same [Access], of which a file that only the authority's user can read
// has what the client needs: a loopback's port is open to every user and every
// browser of the machine, and may be another user's while the authority does not
// run. Over TLS, and not by a challenge to the token's holder: one who listens at
// the address and carries on what is said would have had the answers, and there
// is a ticket's secret in them.
//
// It opens no listener and decides nothing.
package admin

import (
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Prefix is where the handler is to be mounted.
const Prefix = "/authority/"

// The requests and answers, in JSON.
type (
	wireTicketRequest struct {
		Attributes credential.Attributes `json:"attributes,omitempty"`
		Uses       int                   `json:"uses,omitempty"`
		ExpiresIn  float64               `json:"expires_in_seconds,omitempty"`
	}
	wireNewTicket struct {
		Ticket string     `json:"ticket"` // with its secret
		Info   wireTicket `json:"info"`
	}
	wireTicket struct {
		ID         string                `json:"id"`
		Attributes credential.Attributes `json:"attributes,omitempty"`
		Uses       int                   `json:"uses"`
		Used       int                   `json:"used"`
		Created    time.Time             `json:"created"`
		Expires    time.Time             `json:"expires"`
		Revoked    time.Time             `json:"revoked,omitzero"`
	}
	wireRevocation struct {
		Identifiers []identity.Identifier `json:"identifiers,omitempty"`
		Serials     []string              `json:"serials,omitempty"`
		Reason      string                `json:"reason,omitempty"`
		Own         bool                  `json:"own,omitempty"`
	}
	wireRevoked struct {
		Number  uint64 `json:"number"`
		Added   int    `json:"added"`
		Already int    `json:"already"`
	}
	wireMember struct {
		Identifier identity.Identifier   `json:"identifier"`
		Attributes credential.Attributes `json:"attributes,omitempty"`
		How        string                `json:"how"`
		Ticket     string                `json:"ticket,omitempty"`
		Subject    string                `json:"subject,omitempty"`
		Enrolled   time.Time             `json:"enrolled"`
		Renewed    time.Time             `json:"renewed"`
		Serials    []string              `json:"serials,omitempty"`
		NotAfter   time.Time             `json:"not_after"`
	}
	wireError struct {
		Error string `json:"error"`
	}
)

func ticketToWire(t authority.TicketInfo) wireTicket {
	return wireTicket{t.ID.String(), t.Attributes, t.Uses, t.Used, t.Created, t.Expires, t.Revoked}
}

func (w wireTicket) ticket() (authority.TicketInfo, error) {
	id, err := credential.ParseTicketID(w.ID)
	return authority.TicketInfo{ID: id, Attributes: w.Attributes, Uses: w.Uses, Used: w.Used, Created: w.Created, Expires: w.Expires, Revoked: w.Revoked}, err
}

func memberToWire(m authority.MemberInfo) wireMember {
	w := wireMember{
		Identifier: m.Identifier, Attributes: m.Attributes, How: m.How, Subject: m.Subject,
		Enrolled: m.Enrolled, Renewed: m.Renewed, NotAfter: m.NotAfter,
	}
	if m.How == authority.ByTicket {
		w.Ticket = m.Ticket.String()
	}
	for _, s := range m.Serials {
		w.Serials = append(w.Serials, s.String())
	}
	return w
}

func (w wireMember) member() (m authority.MemberInfo, err error) {
	m = authority.MemberInfo{
		Identifier: w.Identifier, Attributes: w.Attributes, How: w.How, Subject: w.Subject,
		Enrolled: w.Enrolled, Renewed: w.Renewed, NotAfter: w.NotAfter,
	}
	if w.Ticket != "" {
		if m.Ticket, err = credential.ParseTicketID(w.Ticket); err != nil {
			return m, err
		}
	}
	m.Serials, err = parseSerials(w.Serials)
	return m, err
}

func parseSerials(texts []string) (list []credential.Serial, err error) {
	for _, text := range texts {
		s, err := credential.ParseSerial(text)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
