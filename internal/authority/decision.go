package authority

import (
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// The actions that are decided about, as docs/audit.md names them.
const (
	ActionEnroll       = "enroll"
	ActionRenew        = "renew"
	ActionFetch        = "fetch"
	ActionCreateTicket = "create_ticket"
	ActionRevokeTicket = "revoke_ticket"
	ActionRevoke       = "revoke"
)

// A Decision is what was decided about one request, or about one of the things
// that a request has revoked. Fields that have no meaning are zero.
type Decision struct {
	Action     string
	Peer       identity.Identifier // who asks; zero for the operator
	Ticket     credential.TicketID // shown, made or revoked
	Subject    string              // of a token
	Attributes credential.Attributes
	Serial     credential.Serial   // issued or revoked
	Target     identity.Identifier // who, or whose credential, is revoked
	Reason     string              // the operator's, for a revocation
	Refusal    *Refusal            // nil: it is granted
}

// Takes reports whether the decision takes something away: it stands whether or
// not it can be recorded.
func (d *Decision) Takes() bool {
	return d.Action == ActionRevoke || d.Action == ActionRevokeTicket
}

// A Recorder writes down what is decided, before whoever has asked hears of it. It
// is used by many goroutines, and may make them wait for a moment.
type Recorder interface {
	// Ready says why nothing can be recorded now: then nothing is granted.
	Ready() error
	// Record writes a decision down. An error says that what it grants must not be
	// had, since it could not be recorded; the recorder has noted that as far as it
	// can.
	Record(d *Decision) error
}

// unrecorded refuses what cannot be recorded, for a reason that only the log has.
func unrecorded(err error) *Refusal {
	r := refuse(code.AuditFailed, "what is granted here cannot be recorded now: try again")
	r.Detail = err
	return r
}

// recordable says why nothing can be granted now, nil if something can.
func (a *Authority) recordable() *Refusal {
	if a.cfg.Recorder == nil {
		return nil
	}
	if err := a.cfg.Recorder.Ready(); err != nil {
		return unrecorded(err)
	}
	return nil
}

// record writes a decision down, and says why what it grants must not be had.
func (a *Authority) record(d *Decision) error {
	if a.cfg.Recorder == nil {
		return nil
	}
	if err := a.cfg.Recorder.Record(d); err != nil {
		r := unrecorded(err)
		r.recorded = true
		return r
	}
	return nil
}
