package authority

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A recorder keeps what it is told, and fails when it is to.
type recorder struct {
	mu            sync.Mutex
	list          []Decision
	ready, record error
}

func (r *recorder) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

func (r *recorder) Record(d *Decision) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, *d)
	return r.record
}

func (r *recorder) set(ready, record error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready, r.record = ready, record
}

// decided returns the actions so far, those that were refused with their code, and
// forgets them.
func (r *recorder) decided() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.list {
		text := d.Action
		if d.Refusal != nil {
			text += " " + d.Refusal.Code.String()
		}
		list = append(list, text)
	}
	r.list = nil
	return list
}

// What cannot be recorded is not granted, and what takes away is done all the
// same.
func TestNothingIsGrantedUnrecorded(t *testing.T) {
	full := errors.New("disk full")
	for name, tt := range map[string]struct {
		ready, record error
		denied        []string
	}{
		"known before": {full, nil, []string{"enroll audit_failed", "create_ticket audit_failed"}},
		"found out":    {nil, full, []string{"enroll", "create_ticket"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			f := start(t, Config{Recorder: r})
			ticket, other := f.ticket(TicketRequest{}), f.ticket(TicketRequest{})
			c := f.dial(identifier(1))
			r.decided()
			r.set(tt.ready, tt.record)
			enrol := credential.EnrollTicket{ID: ticket.ID, Secret: ticket.Secret}
			if a, ok := c.ask(enrol).(credential.Refused); !ok || a.Code != code.AuditFailed || strings.Contains(a.Reason, "disk") {
				t.Errorf("%+v, want audit_failed and no more", a)
			}
			if _, _, err := f.CreateTicket(t.Context(), TicketRequest{}); err == nil || !strings.Contains(err.Error(), "cannot be recorded") {
				t.Errorf("making a ticket: %v", err)
			}
			if got := r.decided(); !reflect.DeepEqual(got, tt.denied) {
				t.Errorf("recorded %q, want %q", got, tt.denied)
			}
			if list, err := f.Tickets(t.Context()); err != nil || len(list) != 2 {
				t.Errorf("%d tickets, %v, want 2", len(list), err)
			}
			if out, err := f.Revoke(t.Context(), Revocation{Identifiers: []identity.Identifier{identifier(9)}}); err != nil || out.Added != 1 {
				t.Errorf("%+v, %v: want it revoked", out, err)
			}
			if err := f.RevokeTicket(t.Context(), other.ID); err != nil {
				t.Error(err)
			}
			if got, want := r.decided(), []string{"revoke", "revoke_ticket"}; !reflect.DeepEqual(got, want) {
				t.Errorf("recorded %q, want %q", got, want)
			}
			r.set(nil, nil)
			// The ticket's use may be gone: it is good for the same one again.
			if _, ok := c.ask(enrol).(credential.Issued); !ok {
				t.Error("not enrolled when it can be recorded again")
			}
			if got := r.decided(); !reflect.DeepEqual(got, []string{"enroll"}) {
				t.Errorf("recorded %q, want the enrolment", got)
			}
		})
	}
}

// Who tries on while nothing can be recorded fills nothing.
func TestRefusedForTheRecordLeavesNothing(t *testing.T) {
	r := &recorder{}
	f := start(t, Config{Recorder: r})
	f.enrol(identifier(1), nil)
	r.set(errors.New("disk full"), nil)
	for range maxOutstanding {
		if _, err := f.renew(identifier(1)); err == nil {
			t.Fatal("renewed, unrecorded")
		}
	}
	r.set(nil, nil)
	if _, err := f.renew(identifier(1)); err != nil {
		t.Errorf("not renewed when it can be recorded again: %v", err)
	}
}
