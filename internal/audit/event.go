package audit

import (
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

// A Kind says what a line is about.
type Kind string

// The kinds.
const (
	Decision Kind = "decision" // whether somebody may do something
	End      Kind = "end"      // of what was allowed; there is one for each
)

// An Action is what somebody wants to do.
type Action string

// The actions: of streams and channels, at a relay, and at an authority.
const (
	Open    Action = "open"    // a stream to a service
	Channel Action = "channel" // a channel
	Resume  Action = "resume"  // another path of a channel that there is

	Handshake Action = "handshake" // be taken for whom its keys say that it is

	Register Action = "register" // offer an outlet at a relay
	Park     Action = "park"     // leave a spare connection there, for a registration
	Connect  Action = "connect"  // be joined to an outlet
	Extend   Action = "extend"   // be carried on to another relay
	Find     Action = "find"     // be told which outlets there offer a service

	Enroll Action = "enroll" // become a member of an authority
	Renew  Action = "renew"  // get a credential, as a member
	Fetch  Action = "fetch"  // get an authority's revocation list

	CreateTicket Action = "create_ticket" // make a ticket, by which others enrol
	RevokeTicket Action = "revoke_ticket" // make a ticket worthless
	Revoke       Action = "revoke"        // take a credential, or an identifier, back
)

// Actions returns all actions, in the order of the documentation.
func Actions() []Action {
	return []Action{Open, Channel, Resume, Handshake, Register, Park, Connect, Extend, Find, Enroll, Renew, Fetch, CreateTicket, RevokeTicket, Revoke}
}

// A Process says who writes the log. It stands on every line.
type Process struct {
	Component  string // inlet, outlet, relay or authority
	Identifier identity.Identifier
	Instance   string // in hexadecimal
}

// A Peer is whom a line is about, as far as that is known.
type Peer struct {
	Identifier  identity.Identifier // zero: it was not proven
	Instance    string              // in hexadecimal; "" when not known
	Credentials []string            // the serials of those that counted, or were shown in a handshake that was refused; on decisions
}

// An Event is what one line says. A field that is zero is left out, but for
// those that docs/audit.md calls always there. Texts may hold anything: they are
// escaped, and cut when they are too long.
type Event struct {
	Kind    Kind
	Action  Action
	ID      string // the same on a decision and its end, and on nothing else
	Allowed bool   // of a decision
	Peer    Peer
	Remote  string // the transport address that the peer came from
	Route   string // the way that it came by, where the process knows it
	Service string // as the peer has called it
	Target  string // what the peer wants to reach: an identifier or host:port
	Client  string // the address of the program beside the inlet, as the inlet claims it

	// At an authority.
	Ticket     string   // id of the ticket, never its secret
	Serial     string   // of the credential that is issued or revoked
	Subject    string   // whose token it was
	Attributes []string // NAME=VALUE each

	Code   string // a code's name, or a word of docs/audit.md
	Reason string // for people

	// Of an end.
	ToService, ToClient int64         // bytes carried
	Duration            time.Duration // since the decision
}

// MaxLine bounds a line, its newline included, in bytes: what a pipe takes as
// one piece (PIPE_BUF of Linux, pipe(7)).
const MaxLine = 4096

// Bounds of one line's texts, in bytes as they are written, so that the longest
// line there can be is shorter than MaxLine.
const (
	maxID          = 96
	maxWord        = 48
	maxName        = 256 // a service, a target
	maxAddress     = 128
	maxRoute       = 512
	maxReason      = 1024
	maxCredentials = 16 // more than a handshake carries
	maxSerial      = 40
	maxAttributes  = 1024 // all of them
)

// maxEnd bounds what stands on a line behind its attributes, and minTexts is the
// least room in which it makes sense to begin a text, in bytes.
const (
	maxEnd   = maxWord + maxReason + len(`,"code":"","reason":"","to_service":,"to_client":,"duration":}`) + 20 + 20 + 24 + len("\n")
	minTexts = 64
)

const timeLayout = "2006-01-02T15:04:05.000000Z"

// appendProcess appends the members that every line of a process has.
func appendProcess(dst []byte, p *Process) []byte {
	o := object{dst}
	o.text("component", p.Component, maxWord)
	o.text("identifier", identifier(p.Identifier), maxWord+maxWord)
	o.text("instance", p.Instance, maxWord)
	return o.b
}

// appendHead appends a line's beginning: what tells it from all others.
func appendHead(dst []byte, seq uint64, at time.Time) []byte {
	o := object{append(dst, '{')}
	o.key("time")
	o.b = append(at.UTC().AppendFormat(append(o.b, '"'), timeLayout), '"')
	o.number("seq", seq)
	return append(o.b, ',')
}

// maxHead bounds what appendHead appends, in bytes.
const maxHead = len(`{"time":"","seq":,`) + len(timeLayout) + 20

// appendTail appends the rest of a line. process is what appendProcess made.
func appendTail(dst, process []byte, e *Event) []byte {
	o := object{append(dst, process...)}
	o.text("event", string(e.Kind), maxWord)
	o.text("action", string(e.Action), maxWord)
	o.optional("id", e.ID, maxID)
	if e.Kind == Decision {
		decision := "denied"
		if e.Allowed {
			decision = "allowed"
		}
		o.text("decision", decision, maxWord)
	}
	o.text("peer", identifier(e.Peer.Identifier), maxWord+maxWord)
	o.optional("peer_instance", e.Peer.Instance, maxWord)
	if e.Kind == Decision {
		o.list("credentials", e.Peer.Credentials[:min(len(e.Peer.Credentials), maxCredentials)], maxSerial)
	}
	o.optional("remote", e.Remote, maxAddress)
	o.optional("route", e.Route, maxRoute)
	o.optional("service", e.Service, maxName)
	o.optional("target", e.Target, maxName)
	o.optional("client", e.Client, maxAddress)
	o.optional("ticket", e.Ticket, maxSerial)
	o.optional("serial", e.Serial, maxSerial)
	// What an authority writes has nothing of what fills other lines; where a line
	// is full all the same, these two are what is cut.
	room := MaxLine - maxHead - len(o.b) - maxEnd
	if e.Subject != "" && room > minTexts {
		o.text("subject", e.Subject, min(maxName, room-len(`,"subject":""`)))
	}
	room = MaxLine - maxHead - len(o.b) - maxEnd
	if len(e.Attributes) > 0 && room > minTexts {
		o.listWithin("attributes", e.Attributes, min(maxAttributes, room-len(`,"attributes":[]`)))
	}
	o.text("code", e.Code, maxWord)
	o.optional("reason", e.Reason, maxReason)
	if e.Kind == End {
		o.number("to_service", uint64(max(0, e.ToService)))
		o.number("to_client", uint64(max(0, e.ToClient)))
		o.seconds("duration", e.Duration)
	}
	return append(o.b, '}', '\n')
}

// identifier returns an identifier's text, and none for one that is not known.
func identifier(id identity.Identifier) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
