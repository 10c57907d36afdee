package remedy

import (
	"strings"

	"github.com/culvert-net/culvert/pkg/code"
)

// Facts are what is known where a remedy is told, "" where it is not: with them a
// sentence names what it is about.
type Facts struct {
	Inlet   string // this inlet's identifier
	Outlet  string // that of the outlet that is to be reached
	Got     string // that of whoever has answered in another's place
	Next    string // HOST:PORT behind the hop that refuses
	Service string // the service's name
}

// Of returns what a person can do about what is called by that word, one sentence
// without its full stop; "" where there is nothing to do, or nothing to say before the
// reason was read.
func Of(word string, f Facts) string {
	text := sentences[word]
	if !strings.Contains(text, "{") {
		return text
	}
	name := f.Service
	if name == "" {
		name = "NAME"
	}
	return strings.NewReplacer(
		"{inlet}", aside(f.Inlet), "{outlet}", aside(f.Outlet), "{got}", aside(f.Got), "{next}", aside(f.Next), "{service}", aside(f.Service), "{name}", name,
	).Replace(text)
}

// aside returns what is put behind a word that it makes precise.
func aside(fact string) string {
	if fact == "" {
		return ""
	}
	return " (" + fact + ")"
}

// sentences are what to look at and to change, by word. What stands in braces is a
// fact. Never written.
var sentences = map[string]string{
	WrongIdentity: "write the identifier{got} that the machine at that address proves to have, if it is the one that is meant, or the right machine's address",
	Handshake:     "see that at that address is what the route says: a relay, or the outlet itself where the hop has the outlet's identifier",
	Version:       "upgrade the older one",

	code.Internal.String():    "look at the log of the side that has failed, and report it",
	code.Shutdown.String():    "wait until it is back, or use another route: it is being stopped",
	code.Timeout.String():     "see that the other side can be reached, and is not too busy: nothing has answered",
	code.Limit.String():       "raise the limit that the reason names under limits in the settings of the side that refuses, if so much is meant",
	code.AuditFailed.String(): "make room for the audit log of the side that refuses: it cannot be written",

	code.Dead.String():           "see why the path was lost: \"culvert ping\" measures each hop",
	code.ChannelLost.String():    "see why the path was lost: \"culvert ping\" measures each hop",
	code.ChannelDenied.String():  "add this inlet{inlet} to allow of a service in the outlet's settings",
	code.IdentityDenied.String(): "set the clocks on both sides, if one is wrong; the reason says what of the identity was not accepted",
	code.RolledBack.String():     "take the identity file that \"culvert identity rotate\" has written last: others have seen a newer key",
	code.Diverged.String():       "make a new identity: this one has two histories, and is at its end",

	code.RegisterDenied.String(): "add this outlet to register in the relay's settings",
	code.ConnectDenied.String():  "add this inlet{inlet} to connect in the settings of the relay",
	code.ExtendDenied.String(): "write the hops in their order, the nearest first; if they are, add the next one's address{next} to extend, and this inlet{inlet} to connect, " +
		"in the settings of the relay that refuses",
	code.NotRegistered.String(): "write the outlet's own identifier (\"culvert identity show\" prints it), and as the last hop a relay that is among relays in the outlet's settings; " +
		"and see that the outlet{outlet} runs",
	code.Gone.String():        "try again: that process of the outlet has ended",
	code.Busy.String():        "look at the outlet's log, and at its link to the relay: it is registered, and none of its connections comes free",
	code.Draining.String():    "wait until it is back, or use another route: it is being stopped",
	code.Unreachable.String(): "see that the next hop{next} runs, and can be reached at that address from where it was tried",
	code.NoAddress.String():   "write the host of the next hop{next} as the network of the relay that refuses has it",
	code.FindDenied.String():  "add the authority to authorities in the relay's settings, or name the outlet in the inlet's",

	code.ServiceUnknown.String():    "write the name of the service{service} as the outlet's settings have it",
	code.StreamDenied.String():      "add this inlet{inlet} to allow of the service{service} in the outlet's settings",
	code.TargetRefused.String():     "see that the service{service} listens at target in the outlet's settings",
	code.TargetTimeout.String():     "see that target in the outlet's settings can be reached from the outlet's machine",
	code.TargetUnreachable.String(): "see that target in the outlet's settings is right, and can be reached from the outlet's machine",
	code.TargetTLS.String():         "look at the outlet's log: it names the certificate, or the setting under tls, that TLS with the target fails at",

	code.UntrustedAuthority.String():  "add the authority to authorities in the settings of the side that refuses",
	code.AuthorityDiverged.String():   "make a new authority: this one's identity has two histories, and nothing of it counts any more",
	code.AuthorityExpired.String():    "make a new authority: this one's key was not replaced before its end",
	code.CredentialMalformed.String(): "remove the credential from the folder state of its owner, and enrol again: it is damaged",
	code.CredentialForged.String():    "remove the credential from the folder state of its owner, and enrol again: it is not the authority's",
	code.CredentialSubject.String():   "remove the credential from the folder state of its owner, and enrol again: it is another identity's",
	code.SignerReplaced.String():      "see that the credential's owner can reach the authority: its key was replaced, and it renews credentials by the new one",
	code.NotYetValid.String():         "set the clocks of both machines and of the authority",
	code.CredentialExpired.String():   "see that the credential's owner can reach the authority, which renews it",
	code.CredentialRevoked.String():   "wait until its owner has another one, or enrol again: the authority has revoked this credential",
	code.IdentityRevoked.String():     "make a new identity, and enrol that: the authority has revoked this one for ever",
	code.AttributeConflict.String():   "take one of the two credentials away: their authorities say different things of one attribute",
	code.RevocationsOverdue.String():  "see that the authority runs, and that the side that refuses can reach it: its next revocation list has not come",
	code.AttributeMissing.String():    "have the authority enrol that outlet with the attribute service={name}",
	code.TicketRefused.String():       "have the authority make another ticket (\"culvert ticket create\")",
}
