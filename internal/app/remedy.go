package app

import (
	"go.uber.org/zap"

	"github.com/culvert-net/culvert/pkg/code"
)

// remedies say, for what a person's mistake is behind most of the time, what to look at
// and to change, by the name of the code or, where the other side has said none, of
// what went wrong here.
var remedies = map[string]string{
	labelWrongIdentity: "write the identifier that the machine at that address proves to have, if it is the one that is meant, or the right machine's address",
	labelHandshake:     "at that address has to be what the route says: a relay, or the outlet itself where the hop has the outlet's identifier",

	code.RegisterDenied.String():     "add this outlet to register in the relay's settings",
	code.ConnectDenied.String():      "add this inlet to connect in the settings of the relay",
	code.ExtendDenied.String():       "write the hops in their order, the nearest first; if they are, add the next one's address to extend in the settings of the relay that refuses",
	code.NotRegistered.String():      "write the outlet's own identifier (\"culvert identity show\" prints it), and as the last hop a relay that is among relays in the outlet's settings; and see that the outlet runs",
	code.ServiceUnknown.String():     "write the name of the service as the outlet's settings have it",
	code.StreamDenied.String():       "add this inlet to allow of the service in the outlet's settings",
	code.ChannelDenied.String():      "add this inlet to allow of a service in the outlet's settings",
	code.TargetRefused.String():      "see that the service listens at target in the outlet's settings",
	code.TargetTimeout.String():      "see that target in the outlet's settings can be reached from the outlet's machine",
	code.TargetUnreachable.String():  "see that target in the outlet's settings is right and can be reached from the outlet's machine",
	code.NotYetValid.String():        "set the clocks on both sides",
	code.UntrustedAuthority.String(): "add the authority to authorities in the settings of the side that refuses",
	code.TicketRefused.String():      "have the authority make another ticket (\"culvert ticket create\")",
	code.AttributeMissing.String():   "have the authority enrol that outlet with the attribute service=NAME",
}

// remedied adds to what is logged about a code what to do.
func remedied(fields []zap.Field, name string) []zap.Field {
	if text := remedies[name]; text != "" {
		fields = append(fields, zap.String("remedy", text))
	}
	return fields
}
