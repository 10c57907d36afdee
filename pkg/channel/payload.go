package channel

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	maxCredentials     = 16
	maxCredentialBytes = 8 << 10 // all of them together
	maxRequest         = 4 << 10
)

// A payload is the encrypted content of message 2 and of message 3, in
// canonical CBOR. Request is message 3's only.
type payload struct {
	History     []byte   `cbor:"1,keyasint"`
	Attestation []byte   `cbor:"2,keyasint"`
	Instance    []byte   `cbor:"3,keyasint"`
	Credentials [][]byte `cbor:"4,keyasint,omitempty"`
	Request     []byte   `cbor:"5,keyasint,omitempty"`
	Name        string   `cbor:"6,keyasint,omitempty"`
}

func (l *Local) payload(s *shown, request []byte) ([]byte, error) {
	if len(request) > maxRequest {
		return nil, fmt.Errorf("request of %d bytes, at most %d", len(request), maxRequest)
	}
	return l.payloadOf(s, l.presents(), request)
}

func (l *Local) payloadOf(s *shown, credentials [][]byte, request []byte) ([]byte, error) {
	return canon.Marshal(payload{
		History:     s.history,
		Attestation: s.attestation,
		Instance:    l.instance[:],
		Credentials: credentials,
		Request:     request,
		Name:        l.name,
	})
}

// verifyPayload checks what the peer says of itself against the static key
// that Noise has proven. The order is the design's: canonical decoding, the
// identifier and the chain (both in ParseHistory), the attestation's signature
// and key and times, the last change's own times.
func verifyPayload(b, static []byte, now time.Time, skew time.Duration) (Peer, []byte, error) {
	var p payload
	if len(b) > maxHandshakeMsg {
		return Peer{}, nil, fmt.Errorf("payload of %d bytes", len(b))
	}
	if err := canon.Unmarshal(b, &p); err != nil {
		return Peer{}, nil, fmt.Errorf("reading the payload: %w", err)
	}
	if len(static) != 32 {
		return Peer{}, nil, errors.New("no static key")
	}
	if len(p.Instance) != len(Instance{}) {
		return Peer{}, nil, fmt.Errorf("instance of %d bytes, want %d", len(p.Instance), len(Instance{}))
	}
	if err := p.checkSizes(); err != nil {
		return Peer{}, nil, err
	}
	h, err := identity.ParseHistory(p.History)
	if err != nil {
		return Peer{}, nil, fmt.Errorf("reading the history: %w", err)
	}
	if err := identity.VerifyAttestation(h, p.Attestation, [32]byte(static), now, skew); err != nil {
		return Peer{}, nil, fmt.Errorf("checking the attestation of %s: %w", h.Identifier(), err)
	}
	if err := h.CheckTime(now, skew); err != nil {
		return Peer{}, nil, fmt.Errorf("checking the key of %s: %w", h.Identifier(), err)
	}
	return Peer{
		Identifier:  h.Identifier(),
		Instance:    Instance(p.Instance),
		Name:        p.Name,
		History:     h,
		Credentials: p.Credentials,
	}, p.Request, nil
}

func (p *payload) checkSizes() error {
	if err := checkCredentials(p.Credentials); err != nil {
		return err
	}
	if len(p.Request) > maxRequest {
		return fmt.Errorf("request of %d bytes, at most %d", len(p.Request), maxRequest)
	}
	if p.Name != "" {
		return identity.CheckName(p.Name)
	}
	return nil
}

// checkCredentials holds the bounds of what a handshake carries.
func checkCredentials(bundles [][]byte) error {
	if len(bundles) > maxCredentials {
		return fmt.Errorf("%d credentials, at most %d", len(bundles), maxCredentials)
	}
	if n := credentialBytes(bundles); n > maxCredentialBytes {
		return fmt.Errorf("credentials of %d bytes, at most %d", n, maxCredentialBytes)
	}
	return nil
}

func credentialBytes(bundles [][]byte) (n int) {
	for _, b := range bundles {
		n += len(b)
	}
	return n
}

// A channelRequest is the request of a handshake with [PurposeChannel]: it names
// the channel, and says whether it is new or goes on.
type channelRequest struct {
	ID       []byte `cbor:"1,keyasint"`           // 16 random bytes, the channel's name
	Mode     uint64 `cbor:"2,keyasint"`           // modeNew or modeResume
	Received uint64 `cbor:"3,keyasint,omitempty"` // resume: bytes the initiator has
	Epoch    uint64 `cbor:"4,keyasint,omitempty"` // resume: one higher at each attempt
	Window   uint64 `cbor:"5,keyasint"`           // bytes the responder may have on their way
	From     string `cbor:"6,keyasint,omitempty"` // ip:port of the initiator's end of the path's connection; "": that does not lead to the responder, or it is not known
}

const (
	modeNew    = 1
	modeResume = 2
)

// newID draws a channel's name.
func newID() (id ID, err error) {
	if _, err := rand.Read(id[:]); err != nil {
		return id, fmt.Errorf("naming the channel: %w", err)
	}
	return id, nil
}

// anyRequest asks for a new channel of a Conn that is no Channel's path.
func anyRequest() ([]byte, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	return channelRequest{ID: id[:], Mode: modeNew, Window: maxWindow}.encode()
}

func (r channelRequest) encode() ([]byte, error) { return canon.Marshal(r) }

// parseChannelRequest reads what encode made, and refuses what no initiator
// says.
func parseChannelRequest(b []byte) (channelRequest, error) {
	var r channelRequest
	if err := canon.Unmarshal(b, &r); err != nil {
		return channelRequest{}, fmt.Errorf("reading the channel request: %w", err)
	}
	switch {
	case len(r.ID) != 16:
		return channelRequest{}, fmt.Errorf("%w: channel name of %d bytes, want 16", ErrProtocol, len(r.ID))
	case r.Window < minWindow:
		return channelRequest{}, fmt.Errorf("%w: window of %d bytes, at least %d", ErrProtocol, r.Window, minWindow)
	case r.Mode == modeNew && (r.Received != 0 || r.Epoch != 0):
		return channelRequest{}, fmt.Errorf("%w: a new channel that has a past", ErrProtocol)
	case r.Mode == modeResume && r.Epoch == 0:
		return channelRequest{}, fmt.Errorf("%w: resume without an epoch", ErrProtocol)
	case r.Mode != modeNew && r.Mode != modeResume:
		return channelRequest{}, fmt.Errorf("%w: channel mode %d", ErrProtocol, r.Mode)
	}
	if _, err := parseFrom(r.From); err != nil {
		return channelRequest{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return r, nil
}
