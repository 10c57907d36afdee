package noise

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// wantFailure checks where and with what a handshake failed.
func wantFailure(t *testing.T, what string, at int, err error, wantAt int, want error) {
	t.Helper()
	if at != wantAt || !errors.Is(err, want) {
		t.Errorf("%s: failed at message %d with %v, want message %d and %v", what, at+1, err, wantAt+1, want)
	}
}

// wantDead checks that h failed with err, keeps saying so, and holds no key.
func wantDead(t *testing.T, h *Handshake, err error) {
	t.Helper()
	if h.Complete() {
		t.Error("failed handshake says it is complete")
	}
	if h.Hash() != nil || h.RemoteStatic() != nil {
		t.Errorf("failed handshake shows hash %x, remote static %x", h.Hash(), h.RemoteStatic())
	}
	if _, got := h.WriteMessage(nil, nil); got == nil || !errors.Is(err, got) {
		t.Errorf("WriteMessage after failure: got %v, want %v", got, err)
	}
	if _, got := h.ReadMessage(nil, nil); got == nil || !errors.Is(err, got) {
		t.Errorf("ReadMessage after failure: got %v, want %v", got, err)
	}
	if s, r, got := h.Split(); s != nil || r != nil || got == nil || !errors.Is(err, got) {
		t.Errorf("Split after failure: got %v, %v, %v, want %v", s, r, got, err)
	}
	if h.sym != nil || h.static != nil || h.ephemeral != nil || h.kem != nil || h.psk != nil ||
		h.remoteEphemeral != nil || h.remoteKEM != nil {
		t.Error("failed handshake holds keys")
	}
}

// wantNoAgreement checks what must hold whenever any message was changed: the
// sides are not both complete, or, if they are, which takes a pattern that
// authenticates nothing, they do not share hash or keys.
func wantNoAgreement(t *testing.T, what string, initiator, responder *Handshake) {
	t.Helper()
	if !initiator.Complete() || !responder.Complete() {
		return
	}
	if bytes.Equal(initiator.Hash(), responder.Hash()) {
		t.Fatalf("%s: both sides completed with the same hash", what)
	}
	is, _ := mustSplit(t, initiator)
	_, rr := mustSplit(t, responder)
	ct, err := is.Seal(nil, nil, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := rr.Open(nil, nil, ct); err == nil {
		t.Fatalf("%s: %q arrived", what, got)
	}
}

// refusedAt is where a changed message i of XXhfs is refused at the latest, and
// by which side. A changed message 1 may be noticed at once (an encapsulation
// key that is none) or when message 2 is opened by the initiator, who thereby
// never sends message 3.
var refusedAt = [3]int{1, 1, 2}

// wantRefused changes message n of the given transcript of XXhfs and checks
// that the handshake ends where it must, with dead state on the refusing side.
func wantRefused(t *testing.T, suite Suite, msgs [][]byte, n int, what string, change func(msg []byte) []byte) {
	t.Helper()
	initiator, responder := newPair(t, XXhfs, suite)
	what = fmt.Sprintf("%s: message %d %s", suite, n+1, what)
	reader := responder
	if n == 1 {
		reader = initiator
	}
	replay(t, reader, msgs[:n])
	_, err := reader.ReadMessage(nil, change(bytes.Clone(msgs[n])))
	at, refuser := n, reader
	if n == 0 && err == nil { // the responder cannot know yet: go on
		replay(t, initiator, msgs[:1])
		at, err = drive(initiator, responder, nil)
		refuser = initiator
	}
	if err == nil || at > refusedAt[n] {
		t.Fatalf("%s: got as far as message %d, %v", what, at+1, err)
	}
	wantNoAgreement(t, what, initiator, responder)
	wantDead(t, refuser, err)
}

// replay has h, whose randomness is fixed, read its part of msgs and write the
// rest.
func replay(t *testing.T, h *Handshake, msgs [][]byte) {
	t.Helper()
	for i, msg := range msgs {
		if writes(h.initiator, i) {
			if got, err := h.WriteMessage(nil, payloadOf(i)); err != nil || !bytes.Equal(got, msg) {
				t.Fatalf("message %d: wrote %x, %v, want %x", i+1, got, err, msg)
			}
		} else if got, err := h.ReadMessage(nil, msg); err != nil || !bytes.Equal(got, payloadOf(i)) {
			t.Fatalf("message %d: read %q, %v, want %q", i+1, got, err, payloadOf(i))
		}
	}
}

// eachMessage runs f for each message of a handshake with each suite.
func eachMessage(t *testing.T, f func(t *testing.T, suite Suite, msgs [][]byte, n int)) {
	t.Helper()
	for _, suite := range suites {
		msgs := transcript(t, XXhfs, suite)
		for n := range msgs {
			t.Run(fmt.Sprintf("%s/%d", suite, n+1), func(t *testing.T) {
				t.Parallel()
				f(t, suite, msgs, n)
			})
		}
	}
}

// TestFlipEveryByte flips one bit of every byte, each time another: in the last
// byte of an ephemeral key it is the highest, which X25519 ignores, so that
// only the hash notices.
func TestFlipEveryByte(t *testing.T) {
	eachMessage(t, func(t *testing.T, suite Suite, msgs [][]byte, n int) {
		for i := range msgs[n] {
			wantRefused(t, suite, msgs, n, fmt.Sprintf("byte %d flipped", i), func(msg []byte) []byte {
				msg[i] ^= 1 << (i % 8)
				return msg
			})
		}
	})
}

func TestCutAtEveryLength(t *testing.T) {
	eachMessage(t, func(t *testing.T, suite Suite, msgs [][]byte, n int) {
		for i := range msgs[n] {
			wantRefused(t, suite, msgs, n, fmt.Sprintf("cut to %d", i), func(msg []byte) []byte { return msg[:i] })
		}
	})
}

func TestExtended(t *testing.T) {
	eachMessage(t, func(t *testing.T, suite Suite, msgs [][]byte, n int) {
		room := MaxMessage - len(msgs[n])
		for _, extra := range []int{1, 2, 15, 16, 17, 32, 1000, room, room + 1, MaxMessage} {
			wantRefused(t, suite, msgs, n, fmt.Sprintf("with %d bytes more", extra), func(msg []byte) []byte {
				return append(msg, make([]byte, extra)...)
			})
		}
	})
}

// TestShortAndLong checks which error a wrong length gives.
func TestShortAndLong(t *testing.T) {
	msgs := transcript(t, XXhfs, AESGCM)
	for n, msg := range msgs {
		for _, c := range []struct {
			name string
			msg  []byte
			want error
		}{
			{"empty", nil, ErrTooShort},
			{"a byte short of its fields", msg[:len(msg)-len(payloadOf(n))-1], ErrTooShort},
			{"too long", make([]byte, MaxMessage+1), ErrTooLong},
		} {
			i, r := newPair(t, XXhfs, AESGCM)
			at, err := drive(i, r, func(i int, msg []byte) []byte {
				if i == n {
					return c.msg
				}
				return msg
			})
			wantFailure(t, c.name, at, err, n, c.want)
		}
	}
}

// TestReplayed gives each side messages of another session between the same
// two, and its own messages back.
func TestReplayed(t *testing.T) {
	for _, suite := range suites {
		var old [][]byte
		i, r := randomPair(t, XXhfs, suite)
		if _, err := drive(i, r, func(_ int, msg []byte) []byte {
			old = append(old, bytes.Clone(msg))
			return msg
		}); err != nil {
			t.Fatal(err)
		}
		for n := range old {
			i, r := randomPair(t, XXhfs, suite)
			at, err := drive(i, r, func(i int, msg []byte) []byte {
				if i == n {
					return old[n]
				}
				return msg
			})
			what := fmt.Sprintf("%s: message %d of another session", suite, n+1)
			wantFailure(t, what, at, err, refusedAt[n], ErrAuthentication)
			wantNoAgreement(t, what, i, r)
		}

		// All that one side ever said, to a new peer: the answers differ.
		_, r = randomPair(t, XXhfs, suite)
		if _, err := r.ReadMessage(nil, old[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := r.WriteMessage(nil, nil); err != nil {
			t.Fatal(err)
		}
		_, err := r.ReadMessage(nil, old[2])
		wantFailure(t, "initiator replayed", 2, err, 2, ErrAuthentication)
		wantDead(t, r, err)
	}
}

// TestReordered gives the reader at each step each other message of the same
// session, so also its own messages back.
func TestReordered(t *testing.T) {
	eachMessage(t, func(t *testing.T, suite Suite, msgs [][]byte, n int) {
		for other := range msgs {
			if other != n {
				wantRefused(t, suite, msgs, n, fmt.Sprintf("replaced by message %d", other+1), func([]byte) []byte { return msgs[other] })
			}
		}
	})
}

// TestSpliced moves each field of message 2 from one session into another
// between the same two.
func TestSpliced(t *testing.T) {
	const e, ekem1, s = 32, 32 + 1088 + 16, 32 + 1088 + 16 + 48
	var old []byte
	i, r := randomPair(t, XXhfs, AESGCM)
	if _, err := drive(i, r, func(i int, msg []byte) []byte {
		if i == 1 {
			old = bytes.Clone(msg)
		}
		return msg
	}); err != nil {
		t.Fatal(err)
	}
	for _, f := range [][2]int{{0, e}, {e, ekem1}, {ekem1, s}, {s, len(old)}} {
		i, r := randomPair(t, XXhfs, AESGCM)
		at, err := drive(i, r, func(i int, msg []byte) []byte {
			if i == 1 {
				copy(msg[f[0]:f[1]], old[f[0]:f[1]])
			}
			return msg
		})
		wantFailure(t, fmt.Sprintf("bytes %v of another session", f), at, err, 1, ErrAuthentication)
	}
}

// TestMismatch runs sides that do not agree on what is not sent.
func TestMismatch(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"prologue": func(c *Config) { c.Prologue = []byte("prologuf") },
		"suite":    func(c *Config) { c.Suite = ChaChaPoly },
		"pattern":  func(c *Config) { c.Pattern = XX },
	} {
		ci, cr := fixed.configs(t, XXhfs, AESGCM)
		change(&cr)
		at, err := drive(mustNew(t, ci), mustNew(t, cr), nil)
		if at != 1 || err == nil {
			t.Errorf("%s: failed at message %d with %v, want message 2", name, at+1, err)
		}
	}
}

// lowOrder are the X25519 points whose product with any key is zero.
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
}

// TestLowOrderEphemeral has each side send a key that would make ee a constant.
func TestLowOrderEphemeral(t *testing.T) {
	for _, point := range lowOrder {
		public := block{"p": point}.bytes(t, "p")
		for n, refuser := range []string{"responder", "initiator"} {
			i, r := newPair(t, XXhfs, AESGCM)
			at, err := drive(i, r, func(i int, msg []byte) []byte {
				if i == n {
					copy(msg, public)
				}
				return msg
			})
			// Both fail at message 2: the responder when it writes it.
			wantFailure(t, refuser+": "+point, at, err, 1, ErrKey)
			wantDead(t, []*Handshake{r, i}[n], err)
		}
	}
}

// TestLowOrderStatic has a responder whose static key would make es a constant.
// It seals the key as the protocol says, so only es itself can refuse it.
func TestLowOrderStatic(t *testing.T) {
	for _, point := range lowOrder {
		i, r := newPair(t, XXhfs, AESGCM)
		msg, err := i.WriteMessage(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = r.ReadMessage(nil, msg); err != nil {
			t.Fatal(err)
		}
		msg = nil
		if msg, err = r.writeE(msg); err != nil {
			t.Fatal(err)
		}
		if err = r.mix(tokenEE); err != nil {
			t.Fatal(err)
		}
		if msg, err = r.writeEKEM1(msg); err != nil {
			t.Fatal(err)
		}
		if msg, err = r.sym.encryptAndHash(msg, block{"p": point}.bytes(t, "p")); err != nil {
			t.Fatal(err)
		}
		_, err = i.ReadMessage(nil, append(msg, make([]byte, Overhead)...))
		wantFailure(t, "static "+point, 1, err, 1, ErrKey)
		wantDead(t, i, err)
	}
}

// TestFlipClassical flips every byte of every classical pattern's messages,
// without and, except under the race detector, with a pre-shared key.
func TestFlipClassical(t *testing.T) {
	patterns := classical
	if !raceEnabled {
		patterns = withPSKs(t, classical)
	}
	for n, p := range patterns {
		suite := suites[n%2]
		t.Run(p.Protocol(suite), func(t *testing.T) {
			t.Parallel()
			for n, msg := range transcript(t, p, suite) {
				for b := range msg {
					i, r := newPair(t, p, suite)
					_, _ = drive(i, r, func(i int, msg []byte) []byte {
						if i == n {
							msg[b] ^= 0x80
						}
						return msg
					})
					wantNoAgreement(t, fmt.Sprintf("message %d, byte %d", n+1, b), i, r)
				}
			}
		})
	}
}
