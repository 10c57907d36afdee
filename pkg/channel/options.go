package channel

import (
	"encoding/hex"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/noise"
)

// A Purpose says what a handshake is for. It is in the preamble, which is the
// Noise prologue, so neither side can be made to mistake one for the other.
type Purpose byte

const (
	// PurposeHop is a request to a relay.
	PurposeHop Purpose = 1
	// PurposeChannel is an end-to-end channel between inlet and outlet.
	PurposeChannel Purpose = 2
)

// String returns "hop" or "channel".
func (p Purpose) String() string {
	switch p {
	case PurposeHop:
		return "hop"
	case PurposeChannel:
		return "channel"
	default:
		return "unknown purpose"
	}
}

// An Instance names one running process: random bytes drawn at its start.
type Instance [16]byte

// String returns the instance in lower-case hexadecimal.
func (i Instance) String() string { return hex.EncodeToString(i[:]) }

// A Peer is whom a handshake has authenticated. It is a value; its History is
// immutable and shared.
type Peer struct {
	Identifier  identity.Identifier
	Instance    Instance
	Name        string // what the process is called, "" if nothing; its own claim
	History     *identity.History
	Credentials [][]byte // opaque to this package
}

// Options are a handshake's settings. The zero value is the default.
type Options struct {
	// Timeout bounds the whole handshake; 0 means 10 s.
	Timeout time.Duration
	// Suite is the initiator's choice; 0 means AES-GCM where the CPU has AES
	// instructions, else ChaCha20-Poly1305. A responder takes either.
	Suite noise.Suite
	// Admit is asked about the peer before [LocalConfig.Admit], in the same way: by the
	// initiator before message 3. Whom it refuses is not remembered. Nil admits
	// everybody.
	Admit func(Peer) error
	// Linger bounds how long Close waits for what was written to leave, and
	// for the peer to end its side; 0 means 1 s.
	Linger time.Duration
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Linger <= 0 {
		o.Linger = time.Second
	}
	if o.Suite == 0 {
		o.Suite = noise.ChaChaPoly
		if noise.CPUHasAES() {
			o.Suite = noise.AESGCM
		}
	}
	return o
}
