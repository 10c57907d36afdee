package ping

import (
	"context"
	"sync"
	"time"

	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/relay"
)

// A recorder puts down what happens on a way, and tells the Trace. It is used by
// several goroutines, since the channel looks after its path by itself.
type recorder struct {
	ctx context.Context // of the whole: when it has ended, nothing else is at fault
	p   *Pinger
	way *Way
	at  place

	mu sync.Mutex
	// attempt are the steps of the present one, which are told when it is over: only
	// then is known whether it was one.
	attempt []relay.Step
	began   time.Time // when the path was there, and then when the outlet was proven
	known   bool      // the outlet has proven its identity
	quiet   bool      // the channel is open: what comes now makes another path
}

// stepped is the Dialer's Trace.
func (r *recorder) stepped(s relay.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quiet {
		return
	}
	if s.Kind == relay.StepConnect {
		r.flushLocked() // which begins another attempt
	}
	r.attempt = append(r.attempt, s)
}

// flush tells of the attempt that is over.
func (r *recorder) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushLocked()
}

func (r *recorder) flushLocked() {
	attempt := r.attempt
	r.attempt = nil
	if r.wasTheEnd(attempt) {
		return
	}
	for _, s := range attempt {
		r.addLocked(r.step(s))
	}
}

// wasTheEnd reports whether an attempt has only found out that a hop, which was tried
// already, has no more addresses.
func (r *recorder) wasTheEnd(attempt []relay.Step) bool {
	if len(attempt) == 0 {
		return false
	}
	last := attempt[len(attempt)-1]
	if remedy.Word(last.Err) != code.NoAddress.String() {
		return false
	}
	for _, s := range r.way.Steps {
		if s.Problem != nil && (s.Hop > last.Hop || s.Hop == last.Hop && s.Request == last.Request) {
			return true
		}
	}
	return false
}

// step is a Dialer's step as reports have it.
func (r *recorder) step(s relay.Step) Step {
	step := r.at.hop(s.Hop - 1)
	step.Address, step.Addresses, step.Kind, step.Request, step.Seconds = s.Address, s.Addresses, string(s.Kind), s.Request, s.Took.Seconds()
	if s.Err != nil {
		step.Problem = r.explain(step, s.Err)
	}
	return step
}

// hop returns the beginning of a step at a hop of the route, from 0.
func (at place) hop(i int) Step {
	h := at.route[i]
	s := Step{At: AtRelay, Hop: i + 1, Identifier: h.Identifier.String(), Host: h.Address()}
	if h.Identifier == at.outlet {
		s.At = AtOutlet
	}
	return s
}

// outlet returns the beginning of a step at the outlet.
func (r *recorder) outlet(kind string) Step {
	last := r.at.hop(len(r.at.route) - 1)
	if last.At != AtOutlet {
		last = Step{At: AtOutlet, Hop: last.Hop + 1, Identifier: r.at.outlet.String()}
	}
	last.Kind = kind
	return last
}

// pathed notes that there is a path, on which the handshake with the outlet begins.
func (r *recorder) pathed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quiet {
		return
	}
	r.flushLocked()
	if r.began, r.known = time.Now(), false; err != nil {
		r.began = time.Time{}
	}
}

// proven notes that the outlet has proven its identity.
func (r *recorder) proven() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quiet {
		return
	}
	s := r.outlet(string(relay.StepHandshake))
	s.Seconds = time.Since(r.began).Seconds()
	r.addLocked(s)
	r.began, r.known = time.Now(), true
}

// dialled notes that the channel is open, or why it is not.
func (r *recorder) dialled(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushLocked()
	r.quiet = true
	if r.began.IsZero() {
		return // there was no path, and the steps say why
	}
	kind := StepChannel
	if !r.known {
		kind = string(relay.StepHandshake)
	}
	s := r.outlet(kind)
	s.Seconds = time.Since(r.began).Seconds()
	if err != nil {
		s.Problem = r.explain(s, err)
	}
	r.addLocked(s)
}

// changed notes what has happened to the path.
func (r *recorder) changed(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.way.Changes) < maxChanges {
		r.way.Changes = append(r.way.Changes, c)
	}
}

// maxChanges bounds how many changes of one path a report has.
const maxChanges = 100

func (r *recorder) add(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(s)
}

func (r *recorder) addLocked(s Step) {
	if len(r.way.Steps) == maxSteps {
		return
	}
	r.way.Steps = append(r.way.Steps, s)
	r.p.cfg.Trace.Stepped(r.way, s)
}

// maxSteps bounds how many steps of one way a report has: hosts can have many
// addresses.
const maxSteps = 512

// farthest returns the last step that has failed at the hop that is farthest along the
// route, and whether there is one: what has failed there is what a person wants to know.
func (r *recorder) farthest() (far Step, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.way.Steps {
		if s.Problem != nil && s.Hop >= far.Hop {
			far, found = s, true
		}
	}
	return far, found
}
