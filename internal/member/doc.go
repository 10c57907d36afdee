// Package member owns what a process does to have a credential: it enrols once,
// by a ticket or a Kubernetes token, keeps what it got in a folder, has it renewed
// well before it ends, and takes in the authority's revocation lists, as they come
// and by asking.
//
// It dials nothing, shows its credential to nobody and ends nobody's channels:
// how the authority is reached is handed in, and what happens is told to a
// [Trace]. It does not log.
package member
