// Package identity owns long-lived identities: Ed25519 keys, the signed
// history that ties a sequence of them to one identifier, the attestation of a
// short-lived X25519 key by the last of them, the signatures that other
// packages need of them ([Identity.Sign]), and the files all that is kept in.
//
// # Wire format
//
// All structures are CBOR in core deterministic encoding (RFC 8949, section
// 4.2.1) as package canon reads it: one encoding for each value, no unknown
// keys. Times are whole seconds since 1970-01-01T00:00:00Z, as unsigned
// integers of at most 253402300799 (the end of the year 9999). Signatures are
// pure Ed25519 (RFC 8032) over a label, which ends in one zero byte, and the
// signed bytes right behind it. `a || b` is concatenation.
//
//	history = [1*32 signed-change]      at most 8,192 bytes
//
//	signed-change = {
//	  1: bytes .cbor change,            the bytes that are signed
//	  2: bytes .size 64,                signature by the change's own key
//	  ? 3: bytes .size 64,              signature by the previous change's key;
//	}                                   absent in the first change only
//	change = {
//	  ? 1: bytes .size 32,              hash of the previous signed-change;
//	                                    absent in the first change only
//	  2: bytes .size 32,                Ed25519 public key
//	  3: uint,                          created
//	  4: uint,                          expires, later than created
//	}
//
//	both signatures: Ed25519("culvert identity change v1" 0x00 || change)
//	hash of a change = SHA-256(signed-change), its signatures included
//	identifier       = hash of the first change
//
// So the hash of the last change names every byte of the history. In a valid
// history no key comes twice, every key is a canonical point of more than
// small order, and each change is created while the previous one holds:
// previous created <= created < previous expires. The last change's key is the
// current one; it holds from created (inclusive) to expires (exclusive). This
// package makes changes that hold for [Validity] at most.
//
//	attestation = {                     at most 512 bytes
//	  1: bytes .cbor attested,          the bytes that are signed
//	  2: bytes .size 64,                signature by the last change's key
//	}
//	attested = {
//	  1: bytes .size 32,                identifier
//	  2: bytes .size 32,                hash of the last change
//	  3: bytes .size 32,                X25519 static public key
//	  4: uint,                          not before
//	  5: uint,                          not after (exclusive), at most 86,400
//	}                                   later than not before
//
//	signature: Ed25519("culvert identity attestation v1" 0x00 || attested)
//
// The text form of an identifier is its base32 (RFC 4648, section 6) in lower
// case without padding: 52 characters.
//
// # Files
//
// A private file is two PEM blocks (RFC 7468, section 3, in the strict form that
// [encoding/pem] prints: no headers, lines of 64 characters, LF line ends,
// nothing before, between or behind): CULVERT PRIVATE KEY, the 32-byte seed,
// and CULVERT IDENTITY, the history. The second block alone is the public file.
//
// # Newest histories
//
// That a key was replaced means something only to those who know it: to anybody
// else its history, as it was before, verifies as well as ever. A [Memory] knows,
// and can be kept in a file.
//
// # What an identity is not
//
// Rotation is hygiene: it does not undo a theft, since the thief of a key can
// write a change too. A stolen key is undone by taking its identifier out of
// every list and by a new identity. Two histories of which neither continues
// the other are the trace of such a theft, and [Newer] and [Memory] refuse both.
//
// The package does not say which identifiers are trusted, makes no X25519
// keys, reads no clock but to wait for another process's lock, and does not log.
package identity
