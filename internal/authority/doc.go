// Package authority owns an authority: the store of its members, tickets and
// revocations, the decision who is issued a credential, the making of
// revocation lists, and the serving of one member's stream.
//
// # The store
//
// One bbolt file. Every change is one transaction, and on disk before anybody
// hears of it: a ticket's use and the member that it made, a revocation and the
// number of the list that has it. Integers in keys are big-endian; values are
// CBOR in core deterministic encoding (RFC 8949, section 4.2.1) with integer keys.
//
//	meta         schema, identifier, number (of the newest list)
//	members      identifier => member
//	subjects     subject || 0x00 || identifier => nothing
//	tickets      id => ticket, with the hash of its secret
//	identifiers  identifier => when and by which list it was revoked
//	serials      serial => the same, and the end of the credential
//	dropped      serial => what was dropped from the list, for deltas from older lists
//	numbers      number of a list => when it was issued
//
// Numbers of lists rise by one at least, and are no lower than the clock in
// seconds: so a store that was restored from a backup goes on above all numbers
// that have been in use since the backup was made.
//
// # What the package does not do
//
// It opens no listener, speaks to members over conns that it is handed, reads no
// settings and does not log.
package authority
