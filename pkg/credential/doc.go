// Package credential owns what an authority signs and what is said to it:
// credentials, which give an identity attributes for a while; revocation
// lists, which take identities and credentials back; tickets, by which a new
// machine enrols; and the requests and answers between members and the
// authority. A [Verifier] says what counts.
//
// # Wire format
//
// All structures are CBOR in core deterministic encoding (RFC 8949, section
// 4.2.1) as package canon reads it. Those that are signed have no unknown keys.
// Times are whole seconds since 1970-01-01T00:00:00Z, at most 253402300799.
// Integers outside of CBOR are big-endian. Signatures are those of
// [identity.Identity.Sign]: Ed25519 (RFC 8032) over a label, one zero byte and
// the signed bytes. Identifiers, histories and the hash of a change are package
// identity's.
//
//	bundle = {                          at most 8,192 bytes
//	  1: bytes .cbor history,           of the issuer
//	  2: bytes .cbor credential,        the bytes that are signed
//	  3: bytes .size 64,                signature by the signer's key
//	}
//	credential = {
//	  1: bytes .size 16,                serial, random
//	  2: bytes .size 32,                issuer's identifier
//	  3: bytes .size 32,                signer: hash of a change of the history
//	  4: bytes .size 32,                subject's identifier
//	  ? 5: {1*32 name => value},        attributes; absent if there are none
//	  6: uint,                          not before
//	  7: uint,                          not after (exclusive), at most 86,400
//	}                                   later than not before
//	name  = 1 to 64 of a-z 0-9 . _ -    text
//	value = at most 256 bytes of text without control characters
//
//	signature: Ed25519("culvert credential v1" 0x00 || credential)
//
// A revocation list is a signed head, and entries that hash to what the head
// says. How they came together does not matter then: the whole list and every
// delta that leads to it have one head and one signature.
//
//	list = {                            at most 8,388,608 bytes
//	  1: bytes .cbor history,           of the issuer
//	  2: bytes .cbor head,              the bytes that are signed
//	  3: bytes .size 64,                signature by the last change's key
//	  ? 4: bytes,                       identifiers revoked
//	  ? 5: bytes,                       serials revoked
//	}
//	delta = {                           at most 8,388,608 bytes
//	  1, 2, 3                           as above
//	  4: uint,                          number of the list it leads from
//	  ? 5: bytes,                       identifiers added
//	  ? 6: bytes,                       serials added
//	  ? 7: bytes,                       serials dropped, 16 bytes each
//	}
//	head = {
//	  1: bytes .size 32,                issuer's identifier
//	  2: bytes .size 32,                signer: hash of the last change
//	  3: uint,                          number, from 1
//	  4: uint,                          issued
//	  ? 5: uint,                        next: another list is promised by then
//	  6: bytes .size 32,                hash of the state
//	}
//	identifiers = 32 bytes each         strictly ascending, as bytes
//	serials     = 16 bytes serial || u64 end of the credential
//	                                    strictly ascending by serial
//
//	signature: Ed25519("culvert revocations v1" 0x00 || head)
//	state:     SHA-256("culvert revocation state v1" 0x00 ||
//	             u32 number of identifiers || identifiers || serials)
//
// A list has at most 200,000 entries. Absent and empty are the same, and the
// first is the encoding.
//
// The text of a ticket is "culvert_ticket_1_" and the base32 of package
// identity's identifiers, without padding, of
//
//	u16 length || ticket || first 4 bytes of
//	  SHA-256("culvert ticket v1" 0x00 || u16 length || ticket)
//
//	ticket = {
//	  1: bytes .size 32,                authority's identifier
//	  2: [1*8 text],                    routes to it: printable ASCII, 1 to 2,560
//	  3: bytes .size 16,                id
//	  4: bytes,                         secret, 16 to 64 bytes
//	}
//	kept of it: SHA-256("culvert ticket secret v1" 0x00 || id || secret)
//
// Members and the authority speak, on one stream of bytes in each direction,
// in messages:
//
//	kind u8 || length of the body u24 || id u32 || body
//
//	 1 enrol by ticket       {1: id (16 bytes), 2: secret}
//	 2 enrol by Kubernetes   {1: token (text of 1 to 16,384 bytes)}
//	 3 renew                 {}
//	 4 fetch revocations     {1: number of the list held, 0 for none}
//	16 issued                {1: bundle (bytes)}
//	17 full list             list
//	18 delta                 delta
//	19 unchanged             {1: number of the newest list}
//	20 refused               {1: code, ? 2: reason}
//
// Requests are 1 to 4; the answer has the request's id, which is not 0. With
// id 0 the authority sends a full list or a delta that nobody asked for.
//
// # What counts
//
// A credential counts while its issuer is trusted, its times hold, and neither
// it nor the identifier of its subject is revoked. Its signer has to be the
// issuer's last change at the time of not before, as far as the issuer's
// history is known; so a key that was replaced signs nothing that holds longer
// than [MaxLifetime] after that. Of those that a peer has shown of one authority
// the newest alone counts. A revocation list is taken from the last
// change only.
//
// # What the package does not do
//
// It keeps nothing, reads no clock, opens no connection and does not log. It
// does not say what an attribute is good for, and does not read routes.
package credential
