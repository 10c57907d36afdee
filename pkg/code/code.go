// Package code owns the numbers that travel in CLOSE, REFUSED and RST: one
// space for channels, hops, streams and credentials, so that a log line, a metric label and
// docs/protocol.md name the same thing everywhere. It does not say when a code
// is sent; the package that sends it does.
package code

import "strconv"

// A Code says why something ended or was refused. It travels as a big-endian
// u16. A receiver treats a number it does not know as an error of unknown
// kind, never as [OK].
type Code uint16

// Any layer.
const (
	OK          Code = 0 // a clean end
	Protocol    Code = 1 // the peer broke the protocol
	Internal    Code = 2 // this side failed in a way that is not the peer's doing
	Shutdown    Code = 3 // this process is stopping
	Timeout     Code = 4 // what was awaited did not come in time
	Limit       Code = 5 // a configured or fixed bound is reached
	AuditFailed Code = 6 // what would be allowed cannot be recorded, so it is not
)

// Channels (docs/protocol.md, "Channel").
const (
	Stale          Code = 16 // resume with an epoch that is not the highest seen
	UnknownChannel Code = 17 // resume of a channel this instance does not hold
	KeyExhausted   Code = 18 // the hard byte limit under one key is reached
	Dead           Code = 19 // nothing was received for two keepalive intervals
	ChannelDenied  Code = 20 // the peer may not open channels here
	IdentityDenied Code = 21 // the peer's identity does not verify, or does not hold now; on hops, too
	RolledBack     Code = 24 // the peer's identity has a newer key than the one it uses
	Diverged       Code = 25 // the peer's identity has two histories of which neither continues the other
)

// Hops (docs/protocol.md, "Relay").
const (
	RegisterDenied Code = 32 // the relay's policy does not allow this peer to register
	ConnectDenied  Code = 33 // the relay's policy does not allow this peer to connect
	ExtendDenied   Code = 34 // the relay's policy does not allow this peer to be carried on to that address
	NotRegistered  Code = 35 // no outlet with that identifier is registered here
	Gone           Code = 36 // the wanted instance is not registered here any more
	Busy           Code = 37 // no spare connection of the outlet came free in time
	Draining       Code = 38 // the relay is going away and joins nobody any more
	Unreachable    Code = 39 // the next hop did not answer a dial
	NoAddress      Code = 40 // extend's index is past the host's last address, or the host is unknown
	Replaced       Code = 41 // the same instance registered again, or a process of the same name has taken the place of this one
	LeaseExpired   Code = 42 // the registration was not renewed in time
	FindDenied     Code = 43 // the relay finds no outlets by their services, since it trusts no authority
)

// Streams (docs/protocol.md, "Tunnel").
const (
	ServiceUnknown    Code = 64 // the outlet offers no service of that name
	StreamDenied      Code = 65 // the policy does not allow this peer this service
	TargetRefused     Code = 66 // the target answered the dial with a refusal
	TargetTimeout     Code = 67 // the target did not answer the dial in time
	TargetUnreachable Code = 68 // the target's host is unknown or without a route
	TargetReset       Code = 69 // the target reset its connection
	ClientReset       Code = 70 // the client beside the inlet reset its connection
	ChannelLost       Code = 71 // the channel under the stream ended
	Aborted           Code = 72 // the program closed the stream before its end
	IdleTimeout       Code = 73 // no byte has moved for the idle time of the service, at neither end
	TargetTLS         Code = 74 // TLS with the target has failed, or the target has ended without close_notify
)

// Credentials and revocation lists (docs/protocol.md, "Credentials").
const (
	UntrustedAuthority   Code = 96  // the issuer is not among the trusted authorities
	AuthorityDiverged    Code = 97  // the authority's history has two versions that contradict each other
	AuthorityExpired     Code = 98  // the authority's own key does not hold now
	CredentialMalformed  Code = 99  // what was presented is no credential, or breaks its bounds
	CredentialForged     Code = 100 // the signature is not the authority's
	CredentialSubject    Code = 101 // the credential is for another identifier
	SignerReplaced       Code = 102 // the key that signed was not the authority's current one at that time
	NotYetValid          Code = 103 // the credential's time, or the revocation list's, has not begun
	CredentialExpired    Code = 104 // the credential's time is over
	CredentialRevoked    Code = 105 // the authority has revoked this credential
	IdentityRevoked      Code = 106 // an authority has revoked the identifier, for ever
	AttributeConflict    Code = 107 // two credentials give one attribute different values
	RevocationsOverdue   Code = 108 // the authority's next revocation list has not come in time
	RevocationsMalformed Code = 109 // what was presented is no revocation list, or breaks its bounds
	RevocationsForged    Code = 110 // the signature is not the authority's, or is over something else
	RevocationsOld       Code = 111 // the list's number is not above that of the one held
	RevocationsBase      Code = 112 // the delta does not fit the list held: the full list is needed
	RevocationsLost      Code = 113 // the list lacks what was revoked and has to stay so
	AttributeMissing     Code = 114 // no credential that counts gives the peer an attribute that it needs
)

// An authority's refusals (docs/protocol.md, "Credentials").
const (
	TicketRefused Code = 128 // the ticket is unknown, used or out of date
	TokenRefused  Code = 129 // the Kubernetes token is not accepted
	NotEnrolled   Code = 130 // the authority has no member of that identifier
)

// Messages (docs/protocol.md, "Node").
const (
	NoWorker      Code = 160 // there is no worker of that name, or nobody waits for the answer any more
	WorkerDenied  Code = 161 // the worker, hop or node does not allow this message
	WorkerStopped Code = 162 // the worker has stopped before it was the message's turn
	WorkerFailed  Code = 163 // the worker could not do what the message asked
	TooManyHops   Code = 164 // the message has passed as many hops as it may, or its routes have grown too long
	Circle        Code = 165 // the worker waits itself, by way of others perhaps, for who sends or asks
	LinkLost      Code = 166 // the conn to the next node has ended
)

// All codes with their names. Names are stable:
// metrics use them as label values.
var names = map[Code]string{ //nolint:gosec // G101: names of reasons, no credentials
	OK: "ok", Protocol: "protocol", Internal: "internal", Shutdown: "shutdown", Timeout: "timeout", Limit: "limit",
	AuditFailed: "audit_failed",
	Stale:       "stale", UnknownChannel: "unknown_channel", KeyExhausted: "key_exhausted", Dead: "dead", ChannelDenied: "channel_denied",
	RolledBack: "rolled_back", Diverged: "diverged", IdentityDenied: "identity_denied",
	RegisterDenied: "register_denied", ConnectDenied: "connect_denied", ExtendDenied: "extend_denied",
	NotRegistered: "not_registered", Gone: "gone", Busy: "busy", Draining: "draining", Unreachable: "unreachable",
	NoAddress: "no_address", Replaced: "replaced", LeaseExpired: "lease_expired", FindDenied: "find_denied",
	ServiceUnknown: "service_unknown", StreamDenied: "stream_denied", TargetRefused: "target_refused",
	TargetTimeout: "target_timeout", TargetUnreachable: "target_unreachable", TargetReset: "target_reset",
	ClientReset: "client_reset", ChannelLost: "channel_lost", Aborted: "aborted",
	IdleTimeout: "idle_timeout", TargetTLS: "target_tls",
	UntrustedAuthority: "untrusted_authority", AuthorityDiverged: "authority_diverged", AuthorityExpired: "authority_expired",
	CredentialMalformed: "credential_malformed", CredentialForged: "credential_forged", CredentialSubject: "credential_subject",
	SignerReplaced: "signer_replaced", NotYetValid: "not_yet_valid", CredentialExpired: "credential_expired",
	CredentialRevoked: "credential_revoked", IdentityRevoked: "identity_revoked", AttributeConflict: "attribute_conflict",
	RevocationsOverdue: "revocations_overdue", RevocationsMalformed: "revocations_malformed", RevocationsForged: "revocations_forged",
	RevocationsOld: "revocations_old", RevocationsBase: "revocations_base", RevocationsLost: "revocations_lost",
	AttributeMissing: "attribute_missing",
	TicketRefused:    "ticket_refused", TokenRefused: "token_refused", NotEnrolled: "not_enrolled",
	NoWorker: "no_worker", WorkerDenied: "worker_denied", WorkerStopped: "worker_stopped", WorkerFailed: "worker_failed",
	TooManyHops: "too_many_hops", Circle: "circle", LinkLost: "link_lost",
}

// String returns the code's stable name, or "code_N" for a number without one.
func (c Code) String() string {
	if s, ok := names[c]; ok {
		return s
	}
	return "code_" + strconv.Itoa(int(c))
}

// Known reports whether the code has a name.
func (c Code) Known() bool {
	_, ok := names[c]
	return ok
}

// All returns every code that has a name, in no order. The map is the
// caller's.
func All() map[Code]string {
	all := make(map[Code]string, len(names))
	for c, s := range names {
		all[c] = s
	}
	return all
}
