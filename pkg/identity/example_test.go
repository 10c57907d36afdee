package identity_test

import (
	"fmt"
	"log"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

// A key is replaced and the identifier stays; the peer, which gets history and
// attestation in the handshake, checks the key it speaks to.
func Example() {
	now := time.Now()
	old, err := identity.New(now)
	if err != nil {
		log.Fatal(err)
	}
	id, err := old.Rotate(now)
	if err != nil {
		log.Fatal(err)
	}
	static := [32]byte{1} // in earnest: the public half of a fresh X25519 key
	attestation, err := id.Attest(static, now, now.Add(identity.MaxAttestationTime))
	if err != nil {
		log.Fatal(err)
	}

	history, err := identity.ParseHistory(id.History().Bytes())
	if err != nil {
		log.Fatal(err)
	}
	err = identity.VerifyAttestation(history, attestation, static, time.Now(), 5*time.Minute)
	fmt.Println("verified:", err == nil)
	fmt.Println("same identifier:", history.Identifier() == old.Identifier())
	fmt.Println("history continues:", history.Extends(old.History()))
	fmt.Println("identifier's length:", len(history.Identifier().String()))
	// Output:
	// verified: true
	// same identifier: true
	// history continues: true
	// identifier's length: 52
}
