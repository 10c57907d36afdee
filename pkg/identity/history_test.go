package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The wire format's known answer: it changes only together with the labels'
// version.
func TestKnownHistory(t *testing.T) {
	h := testIdentity(t, 2).History()
	const (
		wantID   = "pwta4smyxcymnz5wp27ng6aeaegwc7x7wsxvmd2qeszzqryboj5a"
		wantHash = "757e85e82897268e7d1930b1fada97342baa8c4d53a9006ad46995b40aac3dc0" // SHA-256 of the whole history
	)
	if got := h.Identifier().String(); got != wantID {
		t.Errorf("identifier = %s, want %s", got, wantID)
	}
	if got := sha256.Sum256(h.Bytes()); hex.EncodeToString(got[:]) != wantHash {
		t.Errorf("SHA-256(history) = %x, want %s\n%x", got, wantHash, h.Bytes())
	}
}

// Hashes and signatures as the package comment states them, computed without
// the package's own functions.
func TestHistoryIsWhatTheDocumentationSays(t *testing.T) {
	h := testIdentity(t, 3).History()
	var previous []byte
	for i, s := range decode(t, h) {
		message := append([]byte("culvert identity change v1\x00"), s.Change...)
		if !ed25519.Verify(testKey(byte(i+1)).Public().(ed25519.PublicKey), message, s.Own) {
			t.Errorf("change %d: own signature does not verify", i+1)
		}
		if i > 0 && !ed25519.Verify(testKey(byte(i)).Public().(ed25519.PublicKey), message, s.Previous) {
			t.Errorf("change %d: previous signature does not verify", i+1)
		}
		if i > 0 && !bytes.Contains(s.Change, previous) {
			t.Errorf("change %d does not hold the previous hash", i+1)
		}
		hash := sha256.Sum256(encode(t, s))
		previous = hash[:]
		if i == 0 && h.Identifier() != hash {
			t.Errorf("identifier = %s, want %s", h.Identifier(), Identifier(hash))
		}
	}
	if got := h.LastHash(); !bytes.Equal(got[:], previous) {
		t.Errorf("LastHash = %x, want %x", got, previous)
	}
}

func TestHistoryRoundTripAndRotation(t *testing.T) {
	first := testIdentity(t, 1)
	id := first
	for n := 1; n <= MaxChanges; n++ {
		if n > 1 {
			var err error
			if id, err = id.rotateTo(testKey(byte(n)), epoch.Add(time.Duration(n-1)*time.Hour), Validity); err != nil {
				t.Fatal(err)
			}
		}
		got, err := ParseHistory(id.History().Bytes())
		if err != nil {
			t.Fatalf("%d changes: %v", n, err)
		}
		if got.Identifier() != first.Identifier() || got.Len() != n || !got.Key().Equal(testKey(byte(n)).Public()) {
			t.Errorf("%d changes: identifier %s, %d changes, key %x; want %s, %d, key %d",
				n, got.Identifier(), got.Len(), got.Key(), first.Identifier(), n, n)
		}
		if want := epoch.Add(time.Duration(n-1)*time.Hour + Validity); !got.Expires().Equal(want) {
			t.Errorf("%d changes: expires %s, want %s", n, got.Expires(), want)
		}
		if len(got.Bytes()) > MaxHistoryLen {
			t.Errorf("%d changes: %d bytes, more than fit", n, len(got.Bytes()))
		}
	}
	_, err := id.Rotate(epoch.Add(100 * time.Hour))
	wantError(t, err, id.Identifier().String(), "full with 32 changes", "make a new identity")
}

func TestHistoryIsImmutable(t *testing.T) {
	raw := testIdentity(t, 2).History().Bytes()
	in := bytes.Clone(raw)
	h, err := ParseHistory(in)
	if err != nil {
		t.Fatal(err)
	}
	key := h.Key()
	clear(in)
	clear(h.Bytes())
	clear(h.Key())
	if !bytes.Equal(h.Bytes(), raw) || !h.Key().Equal(key) {
		t.Error("writing to what went in or came out changed the history")
	}
}

func TestParseHistoryRefusesEveryChangedByte(t *testing.T) {
	raw := testIdentity(t, 3).History().Bytes()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1 << (i % 8)
		if _, err := ParseHistory(bad); err == nil {
			t.Errorf("byte %d, bit %d flipped: accepted", i, i%8)
		}
	}
	for i := range raw {
		if _, err := ParseHistory(raw[:i]); err == nil {
			t.Errorf("cut to %d bytes: accepted", i)
		}
	}
	if _, err := ParseHistory(append(bytes.Clone(raw), 0)); err == nil {
		t.Error("one byte more: accepted")
	}
}

// edit is a history taken apart, for tests to damage.
type edit struct {
	t    *testing.T
	list []signedChange
}

// resign replaces the i-th change by f's and signs it anew, as the holders of
// the keys own and previous (0: none) could.
func (e *edit) resign(i int, f func(c *change), own, previous byte) {
	e.t.Helper()
	c, err := parseChange(e.list[i])
	if err != nil {
		e.t.Fatal(err)
	}
	f(&c)
	var p ed25519.PrivateKey
	if previous != 0 {
		p = testKey(previous)
	}
	if e.list[i], err = signChange(c, testKey(own), p); err != nil {
		e.t.Fatal(err)
	}
}

func TestParseHistoryRefusesBadChains(t *testing.T) {
	hour := uint64(3600)
	key := func(n byte) []byte { return testKey(n).Public().(ed25519.PublicKey) }
	tests := []struct {
		name string
		edit func(e *edit)
		want string
	}{
		{"no changes", func(e *edit) { e.list = []signedChange{} }, "0 changes, want 1 to 32"},
		{"first two swapped", func(e *edit) { e.list[0], e.list[1] = e.list[1], e.list[0] }, "change 1 of 3: the first change names a previous one"},
		{"last two swapped", func(e *edit) { e.list[1], e.list[2] = e.list[2], e.list[1] }, "change 2 of 3: it does not name the change before"},
		{"first missing", func(e *edit) { e.list = e.list[1:] }, "change 1 of 2: the first change names a previous one"},
		{"middle missing", func(e *edit) { e.list = slices.Delete(e.list, 1, 2) }, "change 2 of 2: it does not name the change before"},
		{"last doubled", func(e *edit) { e.list = append(e.list, e.list[2]) }, "change 4 of 4: it does not name the change before"},
		{"another identity's change", func(e *edit) { e.list[1] = decode(e.t, testIdentityFrom(e.t, 9, 2))[1] }, "change 2 of 3: it does not name the change before"},
		{"previous signature dropped", func(e *edit) { e.list[2].Previous = nil }, "change 3 of 3: previous key's signature has 0 bytes"},
		{"previous signature short", func(e *edit) { e.list[2].Previous = e.list[2].Previous[:63] }, "previous key's signature has 63 bytes"},
		{"previous signature on the first", func(e *edit) { e.list[0].Previous = e.list[0].Own }, "the first change names a previous one"},
		{"own signature long", func(e *edit) { e.list[2].Own = append(e.list[2].Own, 0) }, "own signature has 65 bytes"},
		{"own signature by another", func(e *edit) { e.resign(2, func(*change) {}, 9, 2) }, "change 3 of 3: signature by its own key is wrong"},
		{"previous signature by another", func(e *edit) { e.resign(2, func(*change) {}, 3, 9) }, "change 3 of 3: signature by the previous key is wrong"},
		{"previous signature by the first key", func(e *edit) { e.resign(2, func(*change) {}, 3, 1) }, "signature by the previous key is wrong"},
		{"signatures swapped", func(e *edit) { e.list[2].Own, e.list[2].Previous = e.list[2].Previous, e.list[2].Own }, "signature by its own key is wrong"},
		{"signed without the label", func(e *edit) { e.list[2].Own = ed25519.Sign(testKey(3), e.list[2].Change) }, "signature by its own key is wrong"},
		{"signed as an attestation", func(e *edit) { e.list[2].Own = sign(testKey(3), attestationLabel, e.list[2].Change) }, "signature by its own key is wrong"},
		{"first without previous hash, second", func(e *edit) { e.resign(1, func(c *change) { c.Previous = nil }, 2, 1) }, "change 2 of 3: it does not name the change before"},
		{"hash of another length", func(e *edit) { e.resign(1, func(c *change) { c.Previous = c.Previous[:31] }, 2, 1) }, "it does not name the change before"},
		{"created before the previous one", func(e *edit) { e.resign(2, func(c *change) { c.Created -= 2 * hour }, 3, 2) }, "created while the previous change does not hold"},
		{"created when the previous one had ended", func(e *edit) {
			e.resign(2, func(c *change) { c.Created += uint64(Validity.Seconds()) - hour; c.Expires = c.Created + 1 }, 3, 2)
		}, "created while the previous change does not hold"},
		{"ends when it starts", func(e *edit) { e.resign(2, func(c *change) { c.Expires = c.Created }, 3, 2) }, "ends before it starts"},
		{"after the year 9999", func(e *edit) { e.resign(2, func(c *change) { c.Expires = maxUnix + 1 }, 3, 2) }, "after the year 9999"},
		{"time that overflows", func(e *edit) { e.resign(2, func(c *change) { c.Expires = math.MaxUint64 }, 3, 2) }, "after the year 9999"},
		{"key comes again", func(e *edit) { e.resign(2, func(c *change) { c.Key = key(1) }, 1, 2) }, "change 3 of 3: its key occurs in an earlier change"},
		{"key stays", func(e *edit) { e.resign(2, func(c *change) { c.Key = key(2) }, 2, 2) }, "its key occurs in an earlier change"},
		{"key short", func(e *edit) { e.resign(2, func(c *change) { c.Key = c.Key[:31] }, 3, 2) }, "public key has 31 bytes"},
		{"key long", func(e *edit) { e.resign(2, func(c *change) { c.Key = append(c.Key, 0) }, 3, 2) }, "public key has 33 bytes"},
		{"key of small order", func(e *edit) { e.resign(2, func(c *change) { c.Key = smallOrder[1][:] }, 3, 2) }, "small order"},
		{"change with an unknown key", func(e *edit) { e.list[2].Change = encode(e.t, map[int]any{7: 1}) }, "change 3 of 3: decoding CBOR"},
		{"change not canonical", func(e *edit) { e.list[2].Change = append([]byte{0xb8, 0x04}, e.list[2].Change[1:]...) }, "not in deterministic encoding"},
		{"junk behind a change", func(e *edit) { e.list[2].Change = append(e.list[2].Change, 0xf6) }, "change 3 of 3: decoding CBOR"},
		{"change empty", func(e *edit) { e.list[2].Change = []byte{} }, "change 3 of 3: decoding CBOR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &edit{t, decode(t, testIdentity(t, 3).History())}
			tt.edit(e)
			_, err := ParseHistory(encode(t, e.list))
			wantError(t, err, "reading history: ", tt.want)
		})
	}
}

// A change that two holders signed properly is accepted: what the table above
// refuses, it refuses for the stated reason.
func TestParseHistoryAcceptsAResignedChange(t *testing.T) {
	e := &edit{t, decode(t, testIdentity(t, 3).History())}
	e.resign(2, func(c *change) { c.Created++ }, 3, 2)
	if _, err := ParseHistory(encode(t, e.list)); err != nil {
		t.Error(err)
	}
	e.resign(2, func(c *change) { c.Created = uint64(epoch.Add(time.Hour).Unix()) }, 3, 2)
	if _, err := ParseHistory(encode(t, e.list)); err != nil {
		t.Errorf("created in the same second as the previous change: %v", err)
	}
}

// testIdentityFrom is testIdentity's history with keys from first on.
func testIdentityFrom(t testing.TB, first byte, n int) *History {
	t.Helper()
	id, err := newWith(testKey(first), epoch, Validity)
	for i := 1; i < n && err == nil; i++ {
		id, err = id.rotateTo(testKey(first+byte(i)), epoch.Add(time.Duration(i)*time.Hour), Validity)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id.History()
}

func TestParseHistoryBounds(t *testing.T) {
	_, err := ParseHistory(make([]byte, MaxHistoryLen+1))
	wantError(t, err, "8193 bytes, more than 8192")
	_, err = ParseHistory(nil)
	wantError(t, err, "reading history: decoding CBOR")
	_, err = ParseHistory([]byte{0xf6})
	wantError(t, err, "0 changes, want 1 to 32")
	_, err = ParseHistory(encode(t, make([]signedChange, MaxChanges+1)))
	wantError(t, err, "33 changes, want 1 to 32")
	_, err = ParseHistory(encode(t, map[int]int{1: 1}))
	wantError(t, err, "reading history: decoding CBOR")
}

// Without the table of small-order points anybody could sign as such a "key":
// crypto/ed25519 takes one fixed signature, made without any secret, for some
// or all messages.
func TestSmallOrderKeysAreRefused(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1 // R is the neutral point, S is 0
	for _, y := range smallOrder {
		for _, sign := range []byte{0, 0x80} {
			key := bytes.Clone(y[:])
			key[31] |= sign
			var took int
			for i := range 256 {
				if ed25519.Verify(key, []byte{byte(i)}, forged) {
					took++
				}
			}
			if took == 0 {
				t.Errorf("crypto/ed25519 takes no forgery under %x: the table is wrong", key)
			}
			wantError(t, checkKey(key), "small order")
		}
	}
}

func TestNonCanonicalKeysAreRefused(t *testing.T) {
	for low := range 256 {
		for _, sign := range []byte{0, 0x80} {
			key := bytes.Repeat([]byte{0xff}, 32)
			key[0], key[31] = byte(low), 0x7f|sign
			err := checkKey(key)
			switch {
			case low < 0xec && err != nil:
				t.Errorf("checkKey(%x) = %v, want none", key, err)
			case low == 0xec:
				wantError(t, err, "small order")
			case low > 0xec:
				wantError(t, err, "canonical")
			}
		}
	}
	key := bytes.Repeat([]byte{0xff}, 32)
	key[31], key[15] = 0x7f, 0xfe
	if err := checkKey(key); err != nil {
		t.Errorf("checkKey(%x) = %v, want none", key, err)
	}
}

func TestCheckTime(t *testing.T) {
	h := testIdentity(t, 1).History()
	end := epoch.Add(Validity)
	const skew = 5 * time.Minute
	tests := []struct {
		name string
		now  time.Time
		skew time.Duration
		want error
	}{
		{"first instant", epoch, 0, nil},
		{"just before", epoch.Add(-1), 0, ErrNotYetValid},
		{"just before, within the skew", epoch.Add(-skew), skew, nil},
		{"just before the skew", epoch.Add(-skew - 1), skew, ErrNotYetValid},
		{"last instant", end.Add(-1), 0, nil},
		{"end", end, 0, ErrExpired},
		{"end, within the skew", end.Add(skew - 1), skew, nil},
		{"end of the skew", end.Add(skew), skew, ErrExpired},
		{"zero time", time.Time{}, skew, ErrNotYetValid},
	}
	for _, tt := range tests {
		err := h.CheckTime(tt.now, tt.skew)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: CheckTime = %v, want %v", tt.name, err, tt.want)
		}
		if tt.want != nil {
			wantError(t, err, h.Identifier().String(), "check the clocks")
		}
	}
}

func TestExtendsAndNewer(t *testing.T) {
	one, three := testIdentity(t, 1).History(), testIdentity(t, 3).History()
	other := testIdentityFrom(t, 9, 3)
	again, err := ParseHistory(three.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	two := testIdentity(t, 2)
	fork, err := two.rotateTo(testKey(77), epoch.Add(2*time.Hour), Validity)
	if err != nil {
		t.Fatal(err)
	}
	longFork, err := fork.rotateTo(testKey(78), epoch.Add(3*time.Hour), Validity)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		a, b       *History
		ab, ba     bool
		newer      *History // nil: refused
		diverged   bool
		wantInText string
	}{
		{"longer and shorter", three, one, true, false, three, false, ""},
		{"shorter and longer", one, three, false, true, three, false, ""},
		{"equal", three, again, true, true, three, false, ""},
		{"fork", three, fork.History(), false, false, nil, true, "make a new identity"},
		{"longer fork", three, longFork.History(), false, false, nil, true, "stolen or used twice"},
		{"fork and its root", fork.History(), two.History(), true, false, fork.History(), false, ""},
		{"different identities", three, other, false, false, nil, false, "different identities"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.a.Extends(tt.b); got != tt.ab {
				t.Errorf("a.Extends(b) = %t, want %t", got, tt.ab)
			}
			if got := tt.b.Extends(tt.a); got != tt.ba {
				t.Errorf("b.Extends(a) = %t, want %t", got, tt.ba)
			}
			got, err := Newer(tt.a, tt.b)
			if got != tt.newer || errors.Is(err, ErrDiverged) != tt.diverged {
				t.Errorf("Newer = %p, %v; want %p, diverged %t", got, err, tt.newer, tt.diverged)
			}
			if tt.newer == nil {
				wantError(t, err, tt.a.Identifier().String(), tt.wantInText)
			}
		})
	}
}

// Any sequence of rotations yields a history whose beginnings are its own
// earlier states.
func TestRotationsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := epoch
		id, err := New(now)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 6).Draw(t, "rotations") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(Validity)-int64(time.Second)).Draw(t, "pause")))
			if now.Year() > 2200 {
				return
			}
			next, err := id.Rotate(now)
			if err != nil {
				t.Fatalf("Rotate(%s): %v", now, err)
			}
			if next.Identifier() != id.Identifier() || !next.History().Extends(id.History()) || id.History().Extends(next.History()) {
				t.Fatalf("rotation at %s does not extend the history", now)
			}
			if got, err := ParseHistory(next.History().Bytes()); err != nil || got.LastHash() != next.History().LastHash() {
				t.Fatalf("ParseHistory = %v", err)
			}
			id = next
		}
	})
}
