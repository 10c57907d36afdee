package authority

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/credential"
)

// What a record's decoder takes prints back to the same bytes.
func FuzzRecords(f *testing.F) {
	at := time.Unix(1_800_000_000, 0).UTC()
	for i, r := range []interface{ encode() ([]byte, error) }{
		&member{attributes: credential.Attributes{"role": "api"}, how: ByTicket, ticket: credential.TicketID{1}, enrolled: at, renewed: at, issued: []outstanding{{credential.Serial{1}, at}}},
		&member{how: ByKubernetes, subject: "pod", enrolled: at, renewed: at},
		&ticketRecord{hash: credential.TicketHash{1}, uses: 2, used: 1, created: at, expires: at, revoked: at},
		&revocation{at: at, number: 1, reason: "lost"},
		&revocation{at: at, number: 1, end: at, subject: identifier(1)},
		&dropped{end: at, number: 1, without: 2},
	} {
		b, err := r.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		var r interface{ encode() ([]byte, error) }
		var err error
		switch kind % 6 {
		case 0, 1:
			r, err = decodeMember(b)
		case 2:
			r, err = decodeTicket(b)
		case 3:
			r, err = decodeRevocation(b, false)
		case 4:
			r, err = decodeRevocation(b, true)
		case 5:
			r, err = decodeDropped(b)
		}
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("kind %d: %x was taken and is written as %x, %v", kind%6, b, again, err)
		}
	})
}

// A stream takes any bytes of a peer without harm.
func FuzzServe(f *testing.F) {
	for _, m := range []credential.Request{
		credential.Renew{},
		credential.FetchRevocations{Since: 1},
		credential.EnrollTicket{ID: credential.TicketID{1}, Secret: credential.NewSecret(make([]byte, 32))},
		credential.EnrollKubernetes{Token: credential.NewSecret([]byte("a.b.c"))},
	} {
		b, err := credential.AppendRequest(nil, 1, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	fix := start(f, Config{Tokens: fakeTokens(subjectTokens)})
	fix.store.db.NoSync = true
	f.Fuzz(func(t *testing.T, b []byte) {
		mine, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = fix.Serve(t.Context(), identifier(1), theirs)
			_ = theirs.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, mine) }() // whatever the answers are
		_, _ = mine.Write(b)
		_ = mine.Close()
		<-done
	})
}
