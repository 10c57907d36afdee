package ping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/culvert-net/culvert/internal/remedy"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/relay"
)

// noneFound is the word for a relay that lists no outlet.
const noneFound = "none_found"

// explain puts into words why a step has failed, and what to change.
func (r *recorder) explain(s Step, err error) *Problem {
	why := &Problem{Error: oneLine(err), Code: remedy.Word(err)}
	facts := r.facts(s, err)
	switch {
	case errors.Is(err, errNoneFound):
		why.Code = noneFound
	case (why.Code == "" || why.Code == remedy.Handshake) && r.ctx.Err() != nil:
		why.Code = remedy.Cancelled
	case why.Code == "":
		// It is this machine that did not get there, so the next hop is this step's.
		why.Code, facts.Next = code.Unreachable.String(), s.Host
	}
	if why.Remedy = r.here(s, why.Code, err); why.Remedy == "" {
		why.Remedy = remedy.Of(why.Code, facts)
	}
	return why
}

// oneLine returns an error's text as it can be shown: a peer may have said a part of it.
func oneLine(err error) string { return code.Printable(strings.ReplaceAll(err.Error(), "\n", "; ")) }

// facts are those that make a remedy precise.
func (r *recorder) facts(s Step, err error) remedy.Facts {
	f := remedy.Facts{Inlet: r.p.local.Identifier().String(), Service: r.p.cfg.Service}
	if !r.at.outlet.IsZero() {
		f.Outlet = r.at.outlet.String()
	}
	if s.Hop < len(r.at.route) {
		f.Next = r.at.route[s.Hop].Address()
	}
	var wrong *channel.IdentityError
	if errors.As(err, &wrong) {
		f.Got = wrong.Got.String()
	}
	return f
}

// here returns what to change where this machine itself has found out, about a step of its
// own: there is more to say than the word does. "" is for all else.
func (r *recorder) here(s Step, word string, err error) string {
	var (
		name *net.DNSError
		lost *channel.LostError
	)
	switch {
	case word == noneFound:
		return fmt.Sprintf("see that an outlet runs whose credential says service=%s, and that it is registered at this relay; "+
			"the relay has to trust the authority (authorities), and to let this inlet (%s) connect", r.p.cfg.Service, r.p.local.Identifier())
	case word != code.Unreachable.String() && word != code.Timeout.String(), errors.As(err, &lost):
		return ""
	case errors.As(err, &name) && name.IsNotFound:
		return "see that the host in the route is spelt right, and that this machine asks the right resolver: nobody knows that name"
	case errors.As(err, &name):
		return "look at the DNS settings of this machine: its resolver does not answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("see that the %s runs, and listens where host and port of the route say: nothing does", s.At)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "see why this machine has no network route to that address"
	case !remedy.IsTimeout(err) || errors.Is(err, context.Canceled):
		return ""
	case s.Kind == string(relay.StepConnect):
		return "look for a firewall that drops it, or at the address, which may be another machine's: nothing answers"
	}
	return fmt.Sprintf("see that the %s is not stopped, or overloaded: it does not answer; its log says more", s.At)
}
