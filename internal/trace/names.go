package trace

// Names of spans: what is done, behind which the service's name stands where it is one
// of the settings.
const (
	SpanStream = "stream" // a proxied connection, at the inlet and at the outlet
	SpanDial   = "dial"   // the outlet's connection to the service's target
)

// Names of events.
const (
	EventChannel     = "channel acquired" // there is a channel with a path for the stream
	EventOpenSent    = "open sent"        // OPEN is on its way
	EventPassedOver  = "replica passed over"
	EventDecided     = "policy decided"
	EventFirstByte   = "first byte" // has come from the service
	EventPathLost    = "path lost"  // the stream waits for another
	EventPathChanged = "path changed"
)

// Names of attributes; those that do not begin with culvert are OpenTelemetry's
// (semantic conventions, General attributes), as is error.type.
const (
	AttrClientAddress = "client.address"
	AttrServerAddress = "server.address"
	AttrServerPort    = "server.port"

	AttrService      = "culvert.service"
	AttrPeer         = "culvert.peer"          // the identifier that the peer has proven
	AttrPeerInstance = "culvert.peer.instance" // its process
	AttrRoute        = "culvert.route"         // the way to the outlet, or that the peer came by
	AttrChannel      = "culvert.channel"
	AttrStream       = "culvert.stream" // its number on the channel: the same on both sides, as in logs
	AttrCode         = "culvert.code"   // how it ended: a code's name
	AttrToService    = "culvert.bytes.to_service"
	AttrToClient     = "culvert.bytes.to_client"
	AttrCause        = "culvert.cause" // why a path was changed
	AttrDown         = "culvert.down"  // for how many milliseconds there was no path
)
