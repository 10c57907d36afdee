package clients_test

import (
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		stop, err := startPostgres()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer stop()
		return m.Run()
	}())
}

// newIdentity returns a new identity. Programs keep theirs in a file:
// Config.IdentityFile.
func newIdentity() *identity.Identity {
	id, err := identity.New(time.Now())
	if err != nil {
		log.Fatal(err)
	}
	return id
}
