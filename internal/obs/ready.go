package obs

import (
	"errors"
	"slices"
	"strings"
	"sync"
)

// ServiceCheck returns the name of the check that says whether one service is
// ready. /readyz?service=NAME asks for it alone.
func ServiceCheck(service string) string { return "service/" + service }

// A Ready holds named checks. A process is ready when it has at least one and
// all pass, so that one that is still starting is not. The zero Ready has none.
// All methods may be called at any time.
type Ready struct {
	mu     sync.Mutex
	checks map[string]func() error
}

// Set makes the check with that name, or changes it: nil is ready, an error
// says why not, in words for the operator.
func (r *Ready) Set(name string, err error) { r.SetFunc(name, func() error { return err }) }

// SetFunc makes the check with that name, or changes it: check is asked each
// time. It must return at once, and may use r.
func (r *Ready) SetFunc(name string, check func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checks == nil {
		r.checks = map[string]func() error{}
	}
	r.checks[name] = check
}

// Delete removes the check with that name, if it is there.
func (r *Ready) Delete(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.checks, name)
}

// A State is what one check says.
type State struct {
	Name string
	Err  error // nil if ready
}

// errStarting is what a process without checks is said to be.
var errStarting = errors.New("starting")

// Check asks all checks and returns their states by name, and whether the
// process is ready. Without checks there is one state, "process", not ready.
func (r *Ready) Check() (ready bool, states []State) {
	r.mu.Lock()
	checks := make(map[string]func() error, len(r.checks))
	for name, check := range r.checks {
		checks[name] = check
	}
	r.mu.Unlock()
	if len(checks) == 0 {
		return false, []State{{Name: "process", Err: errStarting}}
	}
	ready = true
	for name, check := range checks {
		s := State{Name: name, Err: check()}
		ready = ready && s.Err == nil
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return ready, states
}

// CheckOne asks one check; found is false if there is none of that name.
func (r *Ready) CheckOne(name string) (state State, found bool) {
	r.mu.Lock()
	check := r.checks[name]
	r.mu.Unlock()
	if check == nil {
		return State{Name: name}, false
	}
	return State{Name: name, Err: check()}, true
}
