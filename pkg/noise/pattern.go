package noise

import (
	"fmt"
	"slices"
)

// A token is one step of a handshake message (Noise section 7.1 and 9; hfs
// section 3).
type token byte

const (
	tokenE     token = iota + 1 // an ephemeral X25519 key
	tokenS                      // a static X25519 key, encrypted where there is a key
	tokenEE                     // a secret between both ephemeral keys
	tokenES                     // between the initiator's ephemeral and the responder's static key
	tokenSE                     // between the initiator's static and the responder's ephemeral key
	tokenSS                     // between both static keys
	tokenPSK                    // a secret that both sides hold beforehand
	tokenE1                     // an ephemeral ML-KEM-768 encapsulation key
	tokenEKEM1                  // an ML-KEM-768 ciphertext for it, and its secret
)

// A Pattern is a handshake pattern: who sends which keys when, and which
// secrets are mixed in (Noise section 7). It is never written after it was
// made, and may be used by any number of handshakes at once.
type Pattern struct {
	name string
	// initiatorKnown and responderKnown say whose static key the other side
	// holds beforehand: the pre-messages "-> s" and "<- s".
	initiatorKnown, responderKnown bool
	// messages alternate, the initiator's first. One message alone makes a
	// one-way pattern, in which only the initiator may send afterwards.
	messages [][]token
}

// XXhfs is the pattern that Culvert speaks.
//
//	-> e, e1
//	<- e, ee, ekem1, s, es
//	-> s, se
var XXhfs = &Pattern{name: "XXhfs", messages: [][]token{
	{tokenE, tokenE1},
	{tokenE, tokenEE, tokenEKEM1, tokenS, tokenES},
	{tokenS, tokenSE},
}}

// The classical interactive patterns (Noise section 7.5).
var (
	NN = &Pattern{name: "NN", messages: [][]token{
		{tokenE},
		{tokenE, tokenEE},
	}}
	KN = &Pattern{name: "KN", initiatorKnown: true, messages: [][]token{
		{tokenE},
		{tokenE, tokenEE, tokenSE},
	}}
	NK = &Pattern{name: "NK", responderKnown: true, messages: [][]token{
		{tokenE, tokenES},
		{tokenE, tokenEE},
	}}
	KK = &Pattern{name: "KK", initiatorKnown: true, responderKnown: true, messages: [][]token{
		{tokenE, tokenES, tokenSS},
		{tokenE, tokenEE, tokenSE},
	}}
	NX = &Pattern{name: "NX", messages: [][]token{
		{tokenE},
		{tokenE, tokenEE, tokenS, tokenES},
	}}
	KX = &Pattern{name: "KX", initiatorKnown: true, messages: [][]token{
		{tokenE},
		{tokenE, tokenEE, tokenSE, tokenS, tokenES},
	}}
	XN = &Pattern{name: "XN", messages: [][]token{
		{tokenE},
		{tokenE, tokenEE},
		{tokenS, tokenSE},
	}}
	IN = &Pattern{name: "IN", messages: [][]token{
		{tokenE, tokenS},
		{tokenE, tokenEE, tokenSE},
	}}
	XK = &Pattern{name: "XK", responderKnown: true, messages: [][]token{
		{tokenE, tokenES},
		{tokenE, tokenEE},
		{tokenS, tokenSE},
	}}
	IK = &Pattern{name: "IK", responderKnown: true, messages: [][]token{
		{tokenE, tokenES, tokenS, tokenSS},
		{tokenE, tokenEE, tokenSE},
	}}
	XX = &Pattern{name: "XX", messages: [][]token{
		{tokenE},
		{tokenE, tokenEE, tokenS, tokenES},
		{tokenS, tokenSE},
	}}
	IX = &Pattern{name: "IX", messages: [][]token{
		{tokenE, tokenS},
		{tokenE, tokenEE, tokenSE, tokenS, tokenES},
	}}
)

// The one-way patterns (Noise section 7.4).
var (
	N = &Pattern{name: "N", responderKnown: true, messages: [][]token{
		{tokenE, tokenES},
	}}
	K = &Pattern{name: "K", initiatorKnown: true, responderKnown: true, messages: [][]token{
		{tokenE, tokenES, tokenSS},
	}}
	X = &Pattern{name: "X", responderKnown: true, messages: [][]token{
		{tokenE, tokenES, tokenS, tokenSS},
	}}
)

// WithPSK returns the pattern with the modifier psk0 or pskN (Noise section
// 9.4): a pre-shared key mixed in at the start of the first message, or at the
// end of message n. It is for classical patterns that have none yet.
func (p *Pattern) WithPSK(n int) (*Pattern, error) {
	if n < 0 || n > len(p.messages) {
		return nil, fmt.Errorf("noise: pattern %s has no place psk%d", p.name, n)
	}
	if p.has(tokenPSK) || p.has(tokenE1) {
		return nil, fmt.Errorf("noise: pattern %s takes no psk modifier", p.name)
	}
	with := *p
	with.name = fmt.Sprintf("%spsk%d", p.name, n)
	with.messages = slices.Clone(p.messages)
	if n == 0 {
		with.messages[0] = append([]token{tokenPSK}, p.messages[0]...)
	} else {
		with.messages[n-1] = append(slices.Clone(p.messages[n-1]), tokenPSK)
	}
	return &with, nil
}

// String returns the pattern's name with its modifiers, such as "XXhfs".
func (p *Pattern) String() string { return p.name }

// Protocol returns the full Noise name, such as
// "Noise_XXhfs_25519+MLKEM768_AESGCM_SHA256".
func (p *Pattern) Protocol(s Suite) string {
	dh := "25519"
	if p.has(tokenE1) {
		dh += "+MLKEM768"
	}
	return "Noise_" + p.name + "_" + dh + "_" + s.String() + "_SHA256"
}

// has reports whether any message has token t.
func (p *Pattern) has(t token) bool {
	for _, m := range p.messages {
		if slices.Contains(m, t) {
			return true
		}
	}
	return false
}

// known reports whether the static key of the initiator, or else of the
// responder, is a pre-message.
func (p *Pattern) known(initiator bool) bool {
	if initiator {
		return p.initiatorKnown
	}
	return p.responderKnown
}

// sendsStatic reports whether a message of the initiator's, or else of the
// responder's, carries its static key.
func (p *Pattern) sendsStatic(initiator bool) bool {
	for i, m := range p.messages {
		if writes(initiator, i) && slices.Contains(m, tokenS) {
			return true
		}
	}
	return false
}

// oneWay reports whether only the initiator may ever send.
func (p *Pattern) oneWay() bool { return len(p.messages) == 1 }

// writes reports whether the initiator, or else the responder, writes message
// i, counted from 0.
func writes(initiator bool, i int) bool { return initiator == (i%2 == 0) }
