package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// Bounds of what is read, checked before anything is allocated.
const (
	maxRequest = 1 << 10
	maxMessage = 512
	maxService = 253 // bytes of a service's name, as in a stream's OPEN
)

// A requestKind is what a caller asks of a relay.
type requestKind uint8

const (
	kindRegister requestKind = 1
	kindPark     requestKind = 2
	kindConnect  requestKind = 3
	kindExtend   requestKind = 4
	kindFind     requestKind = 5
)

// String returns the request's name, as errors, logs and metrics have it.
func (k requestKind) String() string {
	switch k {
	case kindRegister:
		return "register"
	case kindPark:
		return "park"
	case kindConnect:
		return "connect"
	case kindExtend:
		return "extend"
	case kindFind:
		return "find"
	default:
		return "unknown"
	}
}

// A request is the payload of the handshake's third message: a CBOR map in
// deterministic encoding, at most 1 KiB. Who asks, identity and instance, is
// what the handshake has proven; register and park say no more than that.
//
//	1 kind      1 register, 2 park, 3 connect, 4 extend, 5 find
//	2 outlet    connect: identifier, 32 bytes
//	3 instance  connect, optional: that process of the outlet's, 16 bytes
//	4 address   extend: host:port, canonical as in a hop's URL
//	5 order     extend: 32 bytes by which the host's addresses are ordered
//	6 index     extend: which of them, in that order, from 0
//	7 service   find: a service's name, 1 to 253 bytes of printable characters
//
// Keys that are not known are passed over.
type request struct {
	Kind     requestKind `cbor:"1,keyasint"`
	Outlet   []byte      `cbor:"2,keyasint,omitempty"`
	Instance []byte      `cbor:"3,keyasint,omitempty"`
	Address  string      `cbor:"4,keyasint,omitempty"`
	Order    []byte      `cbor:"5,keyasint,omitempty"`
	Index    uint16      `cbor:"6,keyasint,omitempty"`
	Service  string      `cbor:"7,keyasint,omitempty"`
}

func connectRequest(outlet identity.Identifier, instance *channel.Instance) request {
	r := request{Kind: kindConnect, Outlet: outlet[:]}
	if instance != nil {
		r.Instance = instance[:]
	}
	return r
}

func extendRequest(address string, order [32]byte, index int) request {
	return request{Kind: kindExtend, Address: address, Order: order[:], Index: uint16(min(max(index, 0), math.MaxUint16))}
}

func findRequest(service string) request { return request{Kind: kindFind, Service: service} }

func (r request) encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return canon.Marshal(r)
}

// parseRequest reads and checks a request.
func parseRequest(b []byte) (request, error) {
	var r request
	if len(b) > maxRequest {
		return r, fmt.Errorf("request of %d bytes, at most %d", len(b), maxRequest)
	}
	if err := canon.Unmarshal(b, &r); err != nil {
		return request{}, fmt.Errorf("reading request: %w", err)
	}
	if err := r.check(); err != nil {
		return request{}, err
	}
	return r, nil
}

// check holds a request to the fields of its kind.
func (r request) check() error {
	connect := r.Kind == kindConnect
	extend := r.Kind == kindExtend
	switch {
	case r.Kind < kindRegister || r.Kind > kindFind:
		return fmt.Errorf("request of unknown kind %d", r.Kind)
	case connect && len(r.Outlet) != len(identity.Identifier{}):
		return fmt.Errorf("connect: identifier of %d bytes, want %d", len(r.Outlet), len(identity.Identifier{}))
	case connect && r.Instance != nil && len(r.Instance) != len(channel.Instance{}):
		return fmt.Errorf("connect: instance of %d bytes, want %d", len(r.Instance), len(channel.Instance{}))
	case r.Kind != kindFind && r.Service != "":
		return fmt.Errorf("%s: has fields of find", r.Kind)
	case !connect && (r.Outlet != nil || r.Instance != nil):
		return fmt.Errorf("%s: has fields of connect", r.Kind)
	case extend && len(r.Order) != 32:
		return fmt.Errorf("extend: order of %d bytes, want 32", len(r.Order))
	case extend:
		return checkAddress(r.Address)
	case r.Address != "" || r.Order != nil || r.Index != 0:
		return fmt.Errorf("%s: has fields of extend", r.Kind)
	case r.Kind == kindFind:
		return checkService(r.Service)
	}
	return nil
}

// checkService holds a service's name to what a stream's OPEN may ask for.
func checkService(name string) error {
	switch {
	case name == "" || len(name) > maxService:
		return fmt.Errorf("find: service name of %d bytes, want 1 to %d", len(name), maxService)
	case code.Printable(name) != name:
		return errors.New("find: service name with unprintable characters")
	}
	return nil
}

// checkAddress holds an address to the one spelling that a relay's list of
// allowed addresses is compared with.
func checkAddress(address string) error {
	host, port, err := route.ParseAddress("tcp://" + address)
	if err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	if canonical := (route.Hop{Host: host, Port: port}).Address(); canonical != address {
		return fmt.Errorf("extend: address %q is not in its canonical form, %q", address, canonical)
	}
	return nil
}

// A messageKind is what a message says.
type messageKind uint8

const (
	msgOK       messageKind = 1 // relay: the request is granted
	msgRenew    messageKind = 2 // outlet: keep my registration
	msgRenewed  messageKind = 3 // relay: it is kept, for another lease
	msgMore     messageKind = 4 // relay: park that many conns
	msgDraining messageKind = 5 // either: I am going away, whoever is new goes elsewhere
	msgGo       messageKind = 6 // relay: this parked conn is wanted
	msgGoing    messageKind = 7 // outlet: and taken; the outlet's last record
	msgListed   messageKind = 8 // relay: these are some of those that were found
	msgEnd      messageKind = 9 // relay: all were listed, but for what left out says
)

// A message is what follows a handshake: on the conn's stream, a u16 length,
// big-endian, 1 to 512, and a CBOR map in deterministic encoding.
//
//	1 kind      as above
//	2 count     more: how many
//	3 lease     ok to register: the lease in milliseconds
//	4 ping      ok to park: the relay's ping interval in milliseconds
//	5 address   ok to extend: the IP address and port that were reached; see isReached
//	6 replicas  listed: 1 to 8 outlets
//	7 left out  end: there are more than were listed
//
// Keys that are not known are passed over.
type message struct {
	Kind    messageKind `cbor:"1,keyasint"`
	Count   uint16      `cbor:"2,keyasint,omitempty"`
	Lease   uint32      `cbor:"3,keyasint,omitempty"`
	Ping    uint32      `cbor:"4,keyasint,omitempty"`
	Address string      `cbor:"5,keyasint,omitempty"`

	Replicas []listed `cbor:"6,keyasint,omitempty"`
	LeftOut  bool     `cbor:"7,keyasint,omitempty"`
}

// maxListed is how many outlets one message lists.
const maxListed = 8

// A listed is an outlet of a message:
//
//	1 outlet    identifier, 32 bytes
//	2 instance  16 bytes
//	3 draining  it is going away
type listed struct {
	Outlet   []byte `cbor:"1,keyasint"`
	Instance []byte `cbor:"2,keyasint"`
	Draining bool   `cbor:"3,keyasint,omitempty"`
}

// checkListed holds what a message lists to its bounds.
func (m message) checkListed() error {
	if n := len(m.Replicas); n > maxListed || (n > 0) != (m.Kind == msgListed) {
		return fmt.Errorf("%w: of kind %d that lists %d outlets", errMessage, m.Kind, n)
	}
	for _, l := range m.Replicas {
		if len(l.Outlet) != len(identity.Identifier{}) || len(l.Instance) != len(channel.Instance{}) {
			return fmt.Errorf("%w: lists an identifier of %d bytes with an instance of %d", errMessage, len(l.Outlet), len(l.Instance))
		}
	}
	return nil
}

// errMessage is wrapped by errors that say the peer has sent what is no
// message, or not one for now.
var errMessage = errors.New("unexpected message")

// writeMessage hands m to w in one Write.
func writeMessage(w io.Writer, m message) error {
	body, err := canon.Marshal(m)
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(body)), uint16(len(body)))
	_, err = w.Write(append(b, body...))
	return err
}

// readMessage reads exactly one message. An end before its first byte is the
// reader's own error.
func readMessage(r io.Reader) (message, error) {
	var m message
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return m, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n == 0 || n > maxMessage {
		return m, fmt.Errorf("%w: %d bytes long, want 1 to %d", errMessage, n, maxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return m, fmt.Errorf("reading message: %w", err)
	}
	if err := canon.Unmarshal(body, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	if m.Kind < msgOK || m.Kind > msgEnd {
		return message{}, fmt.Errorf("%w: of unknown kind %d", errMessage, m.Kind)
	}
	if err := m.checkListed(); err != nil {
		return message{}, err
	}
	if m.Address != "" && !isReached(m.Address) {
		return message{}, fmt.Errorf("%w: address %q", errMessage, m.Address)
	}
	return m, nil
}

// isReached reports whether an address that a relay says it has reached is an IP address
// and a port. The zone, which may be of any characters otherwise, is the name or number
// of an interface of the relay's (RFC 4007, section 11.2), and goes into logs and
// terminals.
func isReached(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || len(ap.Addr().Zone()) > maxZone {
		return false
	}
	for _, r := range ap.Addr().Zone() {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r) {
			return false
		}
	}
	return true
}

// maxZone bounds a zone, in bytes: an interface's name has 15 on Linux (IFNAMSIZ).
const maxZone = 15

// millis is a duration on the wire.
func millis(d time.Duration) uint32 {
	return uint32(min(max(d/time.Millisecond, 1), math.MaxUint32))
}

// fromMillis reads a duration that a peer has sent, held between bounds, so
// that no peer makes this side spin or sleep for ever.
func fromMillis(ms uint32, low, high time.Duration) time.Duration {
	return min(max(time.Duration(ms)*time.Millisecond, low), high)
}
