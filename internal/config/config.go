package config

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A Kind says whose settings they are. Its text is the command's name.
type Kind string

// The kinds.
const (
	KindInlet  Kind = "inlet"
	KindOutlet Kind = "outlet"
	KindRelay  Kind = "relay"

	// KindAuthority is that of "culvert authority".
	KindAuthority Kind = "authority"
)

// Command returns how the command of that kind is called.
func (k Kind) Command() string {
	if k == KindAuthority || k == KindWebhook {
		return "culvert " + string(k)
	}
	return string(k)
}

// Defaults, which SetDefaults puts where a field is zero.
const (
	DefaultConnectTimeout = 10 * time.Second
	DefaultDialTimeout    = 10 * time.Second
	DefaultDrainTimeout   = 30 * time.Second
	DefaultKeepalive      = 5 * time.Second
	DefaultGrace          = 60 * time.Second
	DefaultBuffers        = 256 << 20
	DefaultLogFormat      = "console"
	DefaultLogLevel       = "info"
	DefaultAuditFailure   = AuditContinue
	DefaultSandbox        = SandboxOn
)

// The choices of Common.Sandbox.
const (
	SandboxOn  = "on"  // the process can open only its own files, where the system has Landlock
	SandboxOff = "off" // it can open what its user can
)

// The choices of Common.AuditFailure.
const (
	AuditContinue = "continue" // lines that cannot be written are counted
	AuditDeny     = "deny"     // nothing is allowed that is not written
)

// The names of Common.Audit that stand for standard streams.
const (
	AuditStdout = "stdout"
	AuditStderr = "stderr"
)

// Bounds of what can be configured.
const (
	MinKeepalive = time.Second
	// MaxKeepalive leaves two pings in the 60 s after which a relay takes a
	// silent connection for dead.
	MaxKeepalive = 30 * time.Second
	MinSkew      = time.Second
	MaxSkew      = credential.MaxSkew
	MinRekey     = time.Second
	MaxRekey     = 24 * time.Hour
	MinTimeout   = time.Millisecond
	MaxTimeout   = 24 * time.Hour
	// MaxGrace bounds how long what nobody comes back for is held.
	MaxGrace   = time.Hour
	MinBuffers = 1 << 20
	// MaxRelayDial is that of a relay's dial_timeout: its callers do not wait
	// longer.
	MaxRelayDial = 4 * time.Second

	MinRate = 1 << 10 // bytes per second; a join begins with a handshake, which has 10 s
)

// Common are the settings that every command has. The zero value of a field
// means its default.
type Common struct {
	Identity     string        // the private identity file's path
	State        string        // the folder for what is to be known after a restart; "": nothing is
	Metrics      Address       // where to serve /healthz, /readyz and /metrics; zero: nowhere
	Admin        string        // where to serve these and /status: "host:port" of a loopback, "unix:///path", or "" for nowhere
	DrainTimeout time.Duration // how long a stopping process waits for its streams
	Keepalive    time.Duration // a peer that was sent nothing for this long is pinged
	ClockSkew    time.Duration // how far others' clocks may be off; zero: what pkg/channel and pkg/credential take
	LogFormat    string        // console or json
	LogLevel     string        // debug, info, warn or error
	Audit        string        // where the audit log goes: a file's path, stdout, stderr, or "" for nowhere
	AuditFailure string        // what happens while its lines cannot be written: continue or deny
	Sandbox      string        // whether the process is confined to its files: on or off

	held    *identity.Identity // see Hold
	names   map[string]string  // see Call
	file    string             // see File
	info    fs.FileInfo        // see FileInfo
	origins map[string]Origin  // by key path, such as services[0].listen
}

// Channels are the settings of channels, which inlets and outlets have.
type Channels struct {
	Name    string        // of the process: one that starts later under the same identity and name takes its place; "": none
	Grace   time.Duration // how long a channel is kept without a path
	Buffers int64         // bytes that all channels together may hold for sending again
}

// An Inlet holds the settings of the inlet command.
type Inlet struct {
	Common
	Channels
	Trust
	Services       []InletService // at least one
	ConnectTimeout time.Duration  // how long a local client waits while there is no channel
	Rekey          time.Duration  // how old the keys of a channel become, give or take a tenth; zero: what pkg/channel takes
	Tracing        Tracing
}

// An InletService is a local listener and the way to the service behind it.
type InletService struct {
	Listen  Address             // accepts plain connections, by TCP (port 0 takes a free one) or a unix socket
	Service string              // the name that the outlet knows
	Outlet  identity.Identifier // who must answer; zero: any outlet whose credentials say that it offers the service
	Routes  []route.Route       // alternatives, best first, or all those whose last hops are asked for outlets; at least one

	ListenMode fs.FileMode // of the unix socket to listen at; zero: DefaultListenMode
	Limits     ServiceLimits
}

// ByName reports whether the service is any outlet's that proves to offer it.
func (s *InletService) ByName() bool { return s.Outlet.IsZero() }

// An Outlet holds the settings of the outlet command.
type Outlet struct {
	Common
	Channels
	Trust
	Relays      []route.Route   // registers at the last hop of each; this or Listen is not empty
	Listen      []Address       // accepts channels directly
	Services    []OutletService // at least one, names unique
	DialTimeout time.Duration   // for dialling a target
	Limits      OutletLimits
	Tracing     Tracing
}

// OutletLimits bound what callers can make an outlet do that listens. Zero stands
// for the default, which internal/app has.
type OutletLimits struct {
	HandshakesPerSecond int // begun by all callers of Listen together, with a burst of one second's worth
}

// An OutletService is a name and the target behind it.
type OutletService struct {
	Name   string
	Target Address
	Allow  *policy.Policy // who may use it, of [policy.Open]; nobody else

	TLS *TargetTLS // how TLS is spoken with the target; nil: it is not
	// ProxyProtocol is the version of the PROXY protocol's header that the target is
	// sent first: 1 or 2; 0: none.
	ProxyProtocol int
	// TrustClientAddress has the header name the client's address as the inlet claims
	// it, and not the inlet's own.
	TrustClientAddress bool
	Limits             ServiceLimits
}

// A Relay holds the settings of the relay command.
type Relay struct {
	Common
	Trust
	Listen      []Address      // at least one
	Register    *policy.Policy // who may offer an outlet
	Connect     *policy.Policy // who may be joined to one
	Extend      Extend         // who may be carried on, and where to
	DialTimeout time.Duration  // for dialling the next relay; zero: what pkg/relay takes
	Limits      Limits
}

// An Authority holds the settings of the command "culvert authority".
type Authority struct {
	Common
	Channels
	Store              string        // the file of members, tickets and revocations
	Relays             []route.Route // registers at the last hop of each; this or Listen is not empty
	Listen             []Address     // accepts members directly
	Routes             []route.Route // by which members reach it, for tickets; the relays' if there are none
	CredentialLifetime time.Duration // whole seconds; zero: what internal/authority takes
	ListLifetime       time.Duration // a newer revocation list is promised by then; zero: none is
	ForgetMembersAfter time.Duration // a member by ticket that has not renewed for so long is forgotten; zero: 90 days
	Kubernetes         *Kubernetes   // whose tokens enrol; nil: nobody's
	RenewWithoutToken  bool          // members enrolled by a token renew without another one
}

// Limits bound what callers can make a relay hold or do. Zero stands for the
// default, which pkg/relay has.
type Limits struct {
	HandshakesPerSecond      int   // begun by all callers together, with a burst of one second's worth
	HandshakesInFlight       int   // begun and not ended, of all callers
	Connections              int   // accepted and open, of all callers
	ConnectionsPerIdentity   int   // accepted and open, of one caller
	RegistrationsPerIdentity int   // instances of one outlet side by side
	WaitingCallers           int   // callers that wait for one registration's spare connection
	BytesPerSecond           int64 // for each direction of one join; 0: no limit
}

// SetDefaults puts the default where a setting is zero. The Load functions have
// done so already.
func (c *Inlet) SetDefaults() {
	c.Common.setDefaults()
	c.Channels.setDefaults()
	setDefault(&c.ConnectTimeout, DefaultConnectTimeout)
}

// SetDefaults puts the default where a setting is zero. The Load functions have
// done so already.
func (c *Outlet) SetDefaults() {
	c.Common.setDefaults()
	c.Channels.setDefaults()
	setDefault(&c.DialTimeout, DefaultDialTimeout)
}

// SetDefaults puts the default where a setting is zero, but for the lifetimes. The
// Load functions have done so already.
func (c *Authority) SetDefaults() {
	c.Common.setDefaults()
	c.Channels.setDefaults()
	if len(c.Routes) == 0 {
		c.Routes = c.Relays
	}
}

// SetDefaults puts the default where a setting is zero, but for DialTimeout and
// Limits. The Load functions have done so already.
func (c *Relay) SetDefaults() { c.Common.setDefaults() }

func (c *Common) setDefaults() {
	setDefault(&c.DrainTimeout, DefaultDrainTimeout)
	setDefault(&c.Keepalive, DefaultKeepalive)
	setDefault(&c.LogFormat, DefaultLogFormat)
	setDefault(&c.LogLevel, DefaultLogLevel)
	setDefault(&c.AuditFailure, DefaultAuditFailure)
	setDefault(&c.Sandbox, DefaultSandbox)
}

func (c *Channels) setDefaults() {
	setDefault(&c.Grace, DefaultGrace)
	setDefault(&c.Buffers, DefaultBuffers)
}

func setDefault[T comparable](p *T, d T) {
	var zero T
	if *p == zero {
		*p = d
	}
}

// Shared returns c itself, for those that take settings of any kind.
func (c *Common) Shared() *Common { return c }

// Histories returns the file in the folder State that has what is known of others'
// identities; "" where there is no such folder.
func (c *Common) Histories() string {
	if c.State == "" {
		return ""
	}
	return filepath.Join(c.State, "histories")
}

// File returns the name of the file that the settings are from; "" where there was
// none, and for settings that no Load function made.
func (c *Common) File() string { return c.file }

// FileInfo returns what was known of the file before it was read, so that a change
// since then can be seen; nil where there is no file.
func (c *Common) FileInfo() fs.FileInfo { return c.info }

// Origin returns where the setting with that key path came from, such as
// "metrics" or "services[0].listen". It is zero for a default, and for settings
// that no Load function made.
func (c *Common) Origin(key string) Origin { return c.origins[key] }

// Where names the setting with that key path for a person: "metrics in
// relay.yaml:7:10", "--metrics", "CULVERT_METRICS", or the key alone.
func (c *Common) Where(key string) string {
	at := c.Origin(key)
	switch {
	case at.Name != "":
		return at.Name
	case at.IsZero():
		return c.called(key)
	}
	return key + " in " + at.String()
}

// Fault says that err is the fault of the setting with that key path. What it
// returns prints like the faults that the Load functions find, and wraps err.
func (c *Common) Fault(key string, err error) error {
	return &Fault{At: c.Origin(key), Key: c.called(key), Err: err}
}

// ListenError says what to do about err, which listening at the address of the
// setting with that key path returned. It wraps err.
func (c *Common) ListenError(key string, err error) error {
	return fmt.Errorf("%w: %s: choose another address, or stop the program that has this one", err, c.Where(key))
}
