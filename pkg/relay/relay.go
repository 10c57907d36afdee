// Package relay owns the hop: the server that joins a caller to an outlet or
// to the next relay, and both kinds of its clients. A [Dialer] makes a path
// along a route, and finds outlets at its end; an [Agent] keeps an outlet registered and takes the paths that
// callers make to it.
//
// Every hop is reached by a handshake for [channel.PurposeHop], in which the
// relay proves the identity that the hop's URL names and learns the caller's.
// The request is in the handshake's third message (see [request]); the caller
// sends nothing more until the answer, which is a [message] or a refusal:
//
//	register    ok(lease)         then a control conversation: renew, renewed, more, draining
//	park        ok(ping)          then PINGs, until go is answered by going; then raw bytes
//	connect     ok                then raw bytes, both ways, to the outlet
//	extend      ok(address)       then raw bytes, both ways, to the next hop
//	find        ok                then the outlets that offer a service: listed, as often as it takes, and end
//
// Raw bytes are what the ends put there: the relay holds no key of theirs. It
// does not look into them, does not keep them and does not log.
package relay

import (
	"errors"
	"time"
)

// ErrDraining is the cause of a join's end while its relay drains.
var ErrDraining = errors.New("relay is draining")

const (
	// maxAddresses bounds how many addresses of one host are used.
	maxAddresses = 32
	// SpareConns is how many parked conns a relay keeps for each registration.
	SpareConns = 2
)

// past is a deadline that has always expired: it frees a Read.
var past = time.Unix(1, 0)
