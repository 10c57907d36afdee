package noise

import "slices"

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
// made, and may be used by any number of handshakes at once. There is one; the
// classical patterns, by whose public vectors the machine is tested, are the
// tests' own.
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
