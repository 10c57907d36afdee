// Package policy owns the answer to "may this peer do this?": a list of
// identifiers, or an expression of the Common Expression Language
// (https://github.com/google/cel-spec) over what is known of the peer and of
// what it asks for. Whatever is not allowed is denied, and so is whatever
// cannot be evaluated: an attribute that the peer lacks, a request that the
// policy was not made for, an evaluation beyond its bound. Every denial says why.
//
// An expression is type-checked and its cost bounded once, by [Compile]. The
// variables are
//
//	peer.id    string               the peer's identifier, 52 characters
//	peer.attr  map(string, string)  what its credentials say of it
//	action     string               open, register, connect or extend
//	now        timestamp            when the peer asks
//	service    string               open: the service's name
//	target     string               connect: the identifier of the wanted outlet
//	to         string               extend: the host:port, as in a hop's URL
//
// and the functions and macros are those of CEL's standard library, of which
// matches takes its pattern and getHours and its like their time zone as a
// literal only.
//
// It verifies no credential: whoever asks has proven the identifier and the
// attributes that it puts into a [Request]. It embeds no time zones: a program
// that runs where the system has none imports time/tzdata.
package policy
