package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/culvert-net/culvert/internal/audit"
	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// By which way the operator has come, as the audit log has it.
const (
	byAdmin = "admin" // the admin server
	byStore = "store" // a command that has the store open
)

// A decisionLog writes an authority's decisions into an audit log. It is the
// authority's [authority.Recorder].
type decisionLog struct {
	log *audit.Log // nil: none
	way string     // the operator's
}

// Ready is [audit.Log.Ready].
func (l decisionLog) Ready() error { return l.log.Ready() }

// Record writes one line.
func (l decisionLog) Record(d *authority.Decision) error {
	if l.log == nil {
		return nil
	}
	e := decisionEvent(d, l.way)
	switch {
	case d.Refusal != nil:
		e.Code, e.Reason = d.Refusal.Code.String(), d.Refusal.Reason
		if d.Refusal.Detail != nil {
			e.Reason += ": " + d.Refusal.Detail.Error()
		}
		auditDenied(l.log, &e)
		return nil
	case d.Takes():
		e.Code = code.OK.String()
		if recorded, err := l.log.Allow(&e); err != nil && !recorded {
			l.log.Record(&e) // when it can be written again
		}
		return nil
	}
	return auditAllowed(l.log, &e)
}

// decisionEvent returns a decision as a line has it.
func decisionEvent(d *authority.Decision, way string) audit.Event {
	e := audit.Event{Action: audit.Action(d.Action), Peer: audit.Peer{Identifier: d.Peer}, Subject: d.Subject, Reason: d.Reason}
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		e.Attributes = append(e.Attributes, name+"="+d.Attributes[name])
	}
	if d.Peer.IsZero() {
		e.Route = way
	}
	if !d.Target.IsZero() {
		e.Target = d.Target.String()
	}
	if d.Ticket != (credential.TicketID{}) {
		e.Ticket = d.Ticket.String()
		e.ID = e.Ticket
	}
	if d.Serial != (credential.Serial{}) {
		e.Serial = d.Serial.String()
		e.ID = e.Serial
	}
	return e
}

// An offlineAudit is the audit log of a command that has the authority's store
// open. It is opened with the first decision: most commands decide nothing.
type offlineAudit struct {
	cfg   *config.Authority
	owner identity.Identifier

	mu      sync.Mutex
	opened  bool
	log     *audit.Log // nil: there is none, or it could not be opened
	err     error      // why not
	stop    context.CancelFunc
	running sync.WaitGroup
}

// open returns where decisions go.
func (o *offlineAudit) open() (decisionLog, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cfg.Audit == "" || o.opened {
		return decisionLog{o.log, byStore}, o.err
	}
	o.opened = true
	to := o.cfg.Audit
	if to == "stdout" {
		to = "stderr" // the command's output is what it was asked for
	}
	var instance [16]byte
	_, _ = rand.Read(instance[:]) // never fails
	o.log, o.err = audit.New(audit.Config{
		Process: audit.Process{Component: string(config.KindAuthority), Identifier: o.owner, Instance: hex.EncodeToString(instance[:])},
		To:      to, Strict: o.cfg.AuditFailure == config.AuditDeny,
	})
	if o.err != nil {
		o.err = o.cfg.Fault("audit", o.err)
		return decisionLog{}, o.err
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.stop = cancel
	o.running.Go(func() { o.log.Run(ctx) })
	return decisionLog{o.log, byStore}, nil
}

// Ready is that of the log.
func (o *offlineAudit) Ready() error {
	l, err := o.open()
	if err != nil {
		return o.unless(err)
	}
	return l.Ready()
}

// Record is that of the log.
func (o *offlineAudit) Record(d *authority.Decision) error {
	l, err := o.open()
	if err != nil {
		return o.unless(err)
	}
	return l.Record(d)
}

// unless returns err where nothing is granted that cannot be recorded; else Close
// tells of it.
func (o *offlineAudit) unless(err error) error {
	if o.cfg.AuditFailure == config.AuditDeny {
		return err
	}
	return nil
}

// Close writes what is queued, and says what could not be.
func (o *offlineAudit) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log == nil {
		if o.err != nil {
			return fmt.Errorf("what was decided is not recorded: %w", o.err)
		}
		return nil
	}
	o.stop()
	o.running.Wait()
	if n := o.log.Stats().Dropped; n > 0 {
		return o.cfg.Fault("audit", errors.New("what was decided is not recorded: the audit log could not be written"))
	}
	return nil
}
