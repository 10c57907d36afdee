package ping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// The words, beside the names of codes, for what goes wrong on this side alone; they
// are those of metrics.
const (
	labelHandshake     = "handshake"
	labelWrongIdentity = "wrong_identity"
	labelVersion       = "version"
	labelCancelled     = "cancelled"
)

// explain puts into words why a step has failed, and what to change.
func (r *recorder) explain(s Step, err error) *Problem {
	why := &Problem{Error: oneLine(err)}
	if c := refusal(err); c != code.OK {
		why.Code, why.Remedy = label(c), r.refused(s, c)
	} else {
		why.Code, why.Remedy = r.failed(s, err)
	}
	return why
}

// oneLine returns an error's text as it can be shown: a peer may have said a part of it.
func oneLine(err error) string { return code.Printable(strings.ReplaceAll(err.Error(), "\n", "; ")) }

// label returns the code's name, and one word for all codes without one.
func label(c code.Code) string {
	if !c.Known() {
		return "unknown"
	}
	return c.String()
}

// refusal returns the code by which a peer has refused something or this side a peer,
// OK if that is not what err says.
func refusal(err error) code.Code {
	var (
		refused *channel.RefusedError
		stream  *tunnel.RefusedError
		peer    *channel.PeerError
		lost    *channel.LostError
		closed  *channel.CloseError
	)
	switch {
	case errors.As(err, &refused):
		return refused.Code
	case errors.As(err, &stream):
		return stream.Code
	case errors.As(err, &peer):
		return peer.Code
	case errors.As(err, &lost):
		return lost.Code
	case errors.As(err, &closed):
		return closed.Code
	case errors.Is(err, identity.ErrRolledBack):
		return code.RolledBack
	case errors.Is(err, identity.ErrDiverged):
		return code.Diverged
	}
	return code.OK
}

// failed returns the word for what no code says, and the remedy.
func (r *recorder) failed(s Step, err error) (word, remedy string) {
	var (
		wrong   *channel.IdentityError
		version *channel.VersionError
		name    *net.DNSError
		step    *channel.HandshakeError
	)
	switch {
	case errors.Is(err, errNoneFound):
		return "none_found", fmt.Sprintf("is an outlet running whose credential says service=%s, registered at this relay? "+
			"The relay has to trust the authority (authorities:), and to let %s connect", r.p.cfg.Service, r.inlet())
	case errors.As(err, &wrong):
		return labelWrongIdentity, fmt.Sprintf("%s answers there, not the %s that the route names. If that is your %s, write its identifier into the route "+
			"(\"culvert identity show\" prints it); if not, look at host and port: another program listens there", wrong.Got, s.At, s.At)
	case errors.As(err, &version):
		return labelVersion, "upgrade the older one"
	case errors.As(err, &name) && name.IsNotFound:
		return code.Unreachable.String(), "nobody knows that name: is the host in the route spelt right, and does this machine ask the right resolver?"
	case errors.As(err, &name):
		return code.Unreachable.String(), "this machine's resolver does not answer: look at its DNS settings"
	case errors.Is(err, syscall.ECONNREFUSED):
		return code.Unreachable.String(), fmt.Sprintf("nothing listens there: is the %s running, and are host and port of the route where it listens?", s.At)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return code.Unreachable.String(), "this machine has no network route to that address"
	case isTimeout(err) && s.Kind == string(relay.StepConnect):
		return code.Timeout.String(), "nothing answers: a firewall drops it, or the address is another machine's"
	case isTimeout(err):
		return code.Timeout.String(), fmt.Sprintf("the %s does not answer: is it stopped, or overloaded? Its log says more", s.At)
	case errors.Is(err, context.Canceled), r.ctx.Err() != nil:
		return labelCancelled, ""
	case errors.As(err, &step):
		return labelHandshake, "is a Culvert relay listening there? The address of an outlet belongs last in a route, with the outlet's own identifier"
	}
	return code.Unreachable.String(), ""
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// inlet is whom the others' settings have to name.
func (r *recorder) inlet() string { return r.p.local.Identifier().String() }

// next is the hop behind a step's, for a relay that was to carry on to it.
func (r *recorder) next(s Step) string {
	if s.Hop < len(r.at.route) {
		return r.at.route[s.Hop].Address()
	}
	return "the outlet"
}

// refused returns what to change where a peer has refused something, by its code, or
// this side a peer.
func (r *recorder) refused(s Step, c code.Code) string {
	switch c {
	case code.ConnectDenied:
		return fmt.Sprintf("let this inlet in under connect: in the settings of the relay: %s", r.inlet())
	case code.ExtendDenied:
		return fmt.Sprintf("name %s under extend: in the settings of the relay, and let this inlet in under connect: %s", r.next(s), r.inlet())
	case code.NotRegistered:
		return fmt.Sprintf("is the outlet %s running? Its relays: have to name this relay, and the relay's register: has to let it in", r.at.outlet)
	case code.Gone:
		return "that process of the outlet has ended: ping again"
	case code.Busy:
		return "the outlet is registered and takes no connection: look at its log, and at its link to the relay"
	case code.Draining, code.Shutdown:
		return "it is being stopped: wait until it is back, or use another route"
	case code.Unreachable:
		return fmt.Sprintf("is %s running, and can the relay reach it there?", r.next(s))
	case code.NoAddress:
		return fmt.Sprintf("the relay finds no address of %s: is the host in the route spelt as the relay's network has it?", r.next(s))
	case code.Limit:
		return "a limit is reached there: its log says which (limits: in the settings of a relay)"
	case code.FindDenied:
		return "the relay trusts no authority: name it under authorities: in the relay's settings, or name the outlet in the inlet's"
	case code.AuditFailed:
		return "its audit log cannot be written: look at its disk"
	case code.Internal:
		return "it has failed there: its log says why"
	}
	if text := refusedIdentity[c]; text != "" {
		return text
	}
	return r.refusedService(c)
}

// refusedService returns what to change where the outlet does not open the service.
func (r *recorder) refusedService(c code.Code) string {
	switch c {
	case code.ServiceUnknown:
		return fmt.Sprintf("the outlet calls no service %q: service: in the inlet's settings has to be name: in the outlet's", r.p.cfg.Service)
	case code.StreamDenied:
		return fmt.Sprintf("let this inlet in under allow: of %s in the settings of the outlet: %s", r.p.cfg.Service, r.inlet())
	case code.TargetRefused:
		return fmt.Sprintf("is the program behind %s running, and listening at target: of the outlet's settings?", r.p.cfg.Service)
	case code.TargetTLS:
		return fmt.Sprintf("the outlet's log says what its TLS with target: of %s fails at: a certificate, or a setting under tls:", r.p.cfg.Service)
	case code.TargetTimeout, code.TargetUnreachable:
		return fmt.Sprintf("can the outlet's machine reach target: of %s? The outlet's log names the address", r.p.cfg.Service)
	case code.AttributeMissing:
		return fmt.Sprintf("give the outlet the attribute service=%s at the authority", r.p.cfg.Service)
	case code.ChannelLost, code.Timeout, code.Dead:
		return "the path was lost, and no other has come: look at the steps of another ping"
	}
	return ""
}

// refusedIdentity is what to change where somebody's identity or credential is not
// accepted. It is never written.
var refusedIdentity = map[code.Code]string{
	code.IdentityDenied:      "are the clocks of both machines right? The reason says what of the identity was not accepted",
	code.RolledBack:          "an identity file is older than what others have seen of it: take the file that \"culvert identity rotate\" has written last",
	code.Diverged:            "the identity has two histories and is at its end: make a new one (docs/security.md, Replacing a key)",
	code.IdentityRevoked:     "the authority has revoked that identity for ever: make a new one, and enrol that",
	code.CredentialRevoked:   "the authority has revoked the credential: enrol again, or wait until another one was issued",
	code.CredentialExpired:   "the credential is over: can its owner reach the authority, which renews it?",
	code.NotYetValid:         "are the clocks of both machines and of the authority right?",
	code.UntrustedAuthority:  "name the credential's authority under authorities: where it is refused",
	code.AuthorityDiverged:   "the authority's identity has two histories: nothing of it counts any more (docs/authority.md)",
	code.AuthorityExpired:    "the authority's own key is over: rotate it (culvert identity rotate)",
	code.SignerReplaced:      "the authority's key was replaced: credentials are renewed by the new one; can their owners reach the authority?",
	code.AttributeConflict:   "two authorities say different things of one attribute: take one of the credentials away",
	code.RevocationsOverdue:  "the authority's revocation list is overdue: can the one who refuses reach the authority?",
	code.CredentialMalformed: "the credential is damaged: remove it from the folder state:, and enrol again",
	code.CredentialForged:    "the credential is not the authority's: remove it from the folder state:, and enrol again",
	code.CredentialSubject:   "the credential is another identity's: remove it from the folder state:, and enrol again",
}
