package channel

import (
	"testing"
	"time"
	"unsafe"

	"github.com/culvert-net/culvert/pkg/identity"
)

// slept returns now as time.Now would after a sleep of the machine, of whole
// seconds: the wall clock has gone on by d, the monotonic clock has not.
func slept(t *testing.T, now time.Time, d time.Duration) time.Time {
	t.Helper()
	// The first word of a Time with a monotonic reading: a flag, 33 bits of
	// seconds, 30 bits of nanoseconds.
	after := now
	*(*uint64)(unsafe.Pointer(&after)) += uint64(int64(d/time.Second)) << 30
	if wall, mono := after.Round(0).Sub(now.Round(0)), after.Sub(now); wall != d || mono != 0 {
		t.Fatalf("the wall clock has moved by %s and the monotonic clock by %s, want %s and 0", wall, mono, d)
	}
	return after
}

// TestSleep has the machine sleep, and its clock put right: whatever the
// monotonic clock says, a handshake shows an attestation that holds.
func TestSleep(t *testing.T) {
	for _, tt := range []struct {
		name string
		d    time.Duration
		anew bool
	}{
		{"for an hour", time.Hour, false},
		{"until a little before the keys are renewed", renewAfter - 2*time.Hour, false},
		{"until they are", renewAfter + 2*time.Hour, true},
		{"over a weekend", 63 * time.Hour, true},
		{"a clock that was a little ahead", -attestBack / 2, false},
		{"a clock that was a day ahead", -24 * time.Hour, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := identity.New(time.Now().Add(-48 * time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			l, err := NewLocal(id)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			before, err := l.shows(now)
			if err != nil {
				t.Fatal(err)
			}
			after := slept(t, now, tt.d)
			shown, err := l.shows(after)
			if err != nil {
				t.Fatal(err)
			}
			if anew := !shown.static.Equal(before.static); anew != tt.anew {
				t.Errorf("the static key is another one: %v, want %v", anew, tt.anew)
			}
			public := [32]byte(shown.static.PublicKey().Bytes())
			if err := identity.VerifyAttestation(id.History(), shown.attestation, public, after, 0); err != nil {
				t.Errorf("what a handshake shows: %v", err)
			}
		})
	}
}
