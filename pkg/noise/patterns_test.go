package noise

import (
	"fmt"
	"slices"
)

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
