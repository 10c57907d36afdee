package noise

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

var update = flag.Bool("update", false, "write testdata/hfs.txt anew")

const hfsFile = "testdata/hfs.txt"

// hfsCases are what testdata/hfs.txt holds for each suite: the least there can
// be, and what looks like a handshake on the wire.
var hfsCases = []struct {
	randomness randomness
	prologue   string
	payloads   [3]string
}{
	{randomness: fixed},
	{
		randomness: randomness{
			initStatic: seq(0x11, 32), initEphemeral: seq(0x35, 32), initKEM: seq(0x90, 64),
			respStatic: seq(0x58, 32), respEphemeral: seq(0x7c, 32), respEncapsulate: seq(0xe0, 32),
		},
		prologue: "CVRT\x01\x01\x02\x00",
		payloads: [3]string{"", "the responder's proof", strings.Repeat("the initiator's proof. ", 20)},
	},
}

// TestHFSTranscripts runs XXhfs with fixed randomness, and compares every byte
// with the stored transcripts and with straightLine, which shares no code with
// the package.
func TestHFSTranscripts(t *testing.T) {
	if *update {
		writeTranscripts(t)
	}
	stored := readBlocks(t, hfsFile)
	want := 0
	for _, suite := range suites {
		for n, c := range hfsCases {
			if want++; want > len(stored) {
				t.Fatalf("%s: holds %d transcripts, want more", hfsFile, len(stored))
			}
			got := runHFS(t, suite, c.randomness, c.prologue, c.payloads)
			compareBlocks(t, fmt.Sprintf("%s/%d: stored", suite, n), got, stored[want-1])
			line := straightLine(t, suite, c.randomness, c.prologue, c.payloads)
			compareBlocks(t, fmt.Sprintf("%s/%d: straight line", suite, n), got, line)
		}
	}
	if want != len(stored) {
		t.Errorf("%s: holds %d transcripts, want %d", hfsFile, len(stored), want)
	}
}

func compareBlocks(t *testing.T, what string, got, want block) {
	t.Helper()
	for name := range want {
		if g, w := got[name], want[name]; g != w {
			same := 0
			for same < min(len(g), len(w)) && g[same] == w[same] {
				same++
			}
			t.Errorf("%s: %s: from hex digit %d: got %.80s, want %.80s", what, name, same, g[same:], w[same:])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d values, want %d", what, len(got), len(want))
	}
}

// inputs are the lines of a transcript that go in.
func inputs(suite Suite, r randomness, prologue string, payloads [3]string) block {
	b := block{
		"handshake":        XXhfs.Protocol(suite),
		"prologue":         hex.EncodeToString([]byte(prologue)),
		"init_static":      hex.EncodeToString(r.initStatic),
		"init_ephemeral":   hex.EncodeToString(r.initEphemeral),
		"init_kem_seed":    hex.EncodeToString(r.initKEM),
		"resp_static":      hex.EncodeToString(r.respStatic),
		"resp_ephemeral":   hex.EncodeToString(r.respEphemeral),
		"resp_encapsulate": hex.EncodeToString(r.respEncapsulate),
	}
	for i, p := range payloads {
		b[fmt.Sprintf("msg_%d_payload", i)] = hex.EncodeToString([]byte(p))
	}
	return b
}

// runHFS runs the package's handshake and four transport messages.
func runHFS(t *testing.T, suite Suite, r randomness, prologue string, payloads [3]string) block {
	t.Helper()
	b := inputs(suite, r, prologue, payloads)
	ci, cr := r.configs(t, XXhfs, suite)
	ci.Prologue, cr.Prologue = []byte(prologue), []byte(prologue)
	initiator, responder := mustNew(t, ci), mustNew(t, cr)
	for i, p := range payloads {
		w, r := initiator, responder
		if i == 1 {
			w, r = responder, initiator
		}
		msg, err := w.WriteMessage(nil, []byte(p))
		if err != nil {
			t.Fatalf("writing message %d: %v", i, err)
		}
		if got, err := r.ReadMessage(nil, msg); err != nil || string(got) != p {
			t.Fatalf("reading message %d: got %q, %v, want %q", i, got, err, p)
		}
		b[fmt.Sprintf("msg_%d_ciphertext", i)] = hex.EncodeToString(msg)
	}
	if !bytes.Equal(initiator.Hash(), responder.Hash()) {
		t.Fatalf("hashes %x and %x", initiator.Hash(), responder.Hash())
	}
	b["handshake_hash"] = hex.EncodeToString(initiator.Hash())
	k1, k2 := transportKeys(responder)
	b["init_key"], b["resp_key"] = hex.EncodeToString(k1[:]), hex.EncodeToString(k2[:])

	is, ir := mustSplit(t, initiator)
	rs, rr := mustSplit(t, responder)
	for n := range 2 { // the second under nonce 1
		b[fmt.Sprintf("init_transport_%d", n)] = hex.EncodeToString(passOn(t, is, rr, fmt.Sprintf("to the responder %d", n)))
		b[fmt.Sprintf("resp_transport_%d", n)] = hex.EncodeToString(passOn(t, rs, ir, fmt.Sprintf("to the initiator %d", n)))
	}
	return b
}

// transportKeys returns what Split will derive; ciphers do not show theirs.
func transportKeys(h *Handshake) (initiator, responder [keyLen]byte) {
	ck := h.sym.ck
	deriveKeys(&ck, nil, &initiator, &responder)
	return initiator, responder
}

func passOn(t *testing.T, send, recv *Cipher, plaintext string) []byte {
	t.Helper()
	ct, err := send.Seal(nil, nil, []byte(plaintext))
	if err != nil {
		t.Fatalf("sealing %q: %v", plaintext, err)
	}
	if got, err := recv.Open(nil, nil, ct); err != nil || string(got) != plaintext {
		t.Fatalf("opening: got %q, %v, want %q", got, err, plaintext)
	}
	return ct
}

// straightLine writes the whole handshake down as the two specifications do,
// for somebody who knows both sides' secrets: no state machine, no patterns,
// the standard library's HKDF, the primitives called directly.
func straightLine(t *testing.T, suite Suite, r randomness, prologue string, payloads [3]string) block {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hash := func(parts ...[]byte) []byte {
		sum := sha256.Sum256(bytes.Join(parts, nil))
		return sum[:]
	}
	mix := func(ck, ikm []byte) (newCK, k []byte) {
		prk, err := hkdf.Extract(sha256.New, ikm, ck)
		must(err)
		okm, err := hkdf.Expand(sha256.New, prk, "", 64)
		must(err)
		return okm[:32], okm[32:]
	}
	dh := func(private, public []byte) []byte {
		theirs, err := ecdh.X25519().NewPublicKey(public)
		must(err)
		secret, err := privateKey(t, private).ECDH(theirs)
		must(err)
		return secret
	}
	seal := func(k []byte, n byte, ad, plaintext []byte) []byte {
		if suite == AESGCM {
			aesBlock, err := aes.NewCipher(k)
			must(err)
			gcm, err := cipher.NewGCM(aesBlock)
			must(err)
			return gcm.Seal(nil, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n}, plaintext, ad)
		}
		aead, err := chacha20poly1305.New(k)
		must(err)
		return aead.Seal(nil, []byte{0, 0, 0, 0, n, 0, 0, 0, 0, 0, 0, 0}, plaintext, ad)
	}
	public := func(private []byte) []byte { return privateKey(t, private).PublicKey().Bytes() }

	// Initialize: the name is longer than 32 bytes, so it is hashed.
	name := map[Suite]string{
		AESGCM:     "Noise_XXhfs_25519+MLKEM768_AESGCM_SHA256",
		ChaChaPoly: "Noise_XXhfs_25519+MLKEM768_ChaChaPoly_SHA256",
	}[suite]
	h := hash([]byte(name))
	ck := h
	h = hash(h, []byte(prologue))

	// -> e
	ei := public(r.initEphemeral)
	h = hash(h, ei)
	// e1
	dk, err := mlkem.NewDecapsulationKey768(r.initKEM)
	must(err)
	e1 := dk.EncapsulationKey().Bytes()
	h = hash(h, e1)
	// payload
	h = hash(h, []byte(payloads[0]))
	msg0 := bytes.Join([][]byte{ei, e1, []byte(payloads[0])}, nil)

	// <- e
	er := public(r.respEphemeral)
	h = hash(h, er)
	// ee
	ck, k := mix(ck, dh(r.initEphemeral, er))
	// ekem1
	secret, ciphertext, err := mlkemtest.Encapsulate768(dk.EncapsulationKey(), r.respEncapsulate)
	must(err)
	ekem1 := seal(k, 0, h, ciphertext)
	h = hash(h, ekem1)
	ck, k = mix(ck, secret)
	// s
	sr := seal(k, 0, h, public(r.respStatic))
	h = hash(h, sr)
	// es
	ck, k = mix(ck, dh(r.initEphemeral, public(r.respStatic)))
	// payload
	p1 := seal(k, 0, h, []byte(payloads[1]))
	h = hash(h, p1)
	msg1 := bytes.Join([][]byte{er, ekem1, sr, p1}, nil)

	// -> s, under the key that sealed the last payload
	si := seal(k, 1, h, public(r.initStatic))
	h = hash(h, si)
	// se
	ck, k = mix(ck, dh(r.initStatic, er))
	// payload
	p2 := seal(k, 0, h, []byte(payloads[2]))
	h = hash(h, p2)
	msg2 := bytes.Join([][]byte{si, p2}, nil)

	// Split
	k1, k2 := mix(ck, nil)

	b := inputs(suite, r, prologue, payloads)
	b["handshake"] = name
	for i, msg := range [][]byte{msg0, msg1, msg2} {
		b[fmt.Sprintf("msg_%d_ciphertext", i)] = hex.EncodeToString(msg)
	}
	b["handshake_hash"] = hex.EncodeToString(h)
	b["init_key"], b["resp_key"] = hex.EncodeToString(k1), hex.EncodeToString(k2)
	for n := range 2 {
		b[fmt.Sprintf("init_transport_%d", n)] = hex.EncodeToString(seal(k1, byte(n), nil, fmt.Appendf(nil, "to the responder %d", n)))
		b[fmt.Sprintf("resp_transport_%d", n)] = hex.EncodeToString(seal(k2, byte(n), nil, fmt.Appendf(nil, "to the initiator %d", n)))
	}
	return b
}

// writeTranscripts stores what straightLine says, not what the package says.
func writeTranscripts(t *testing.T) {
	t.Helper()
	var out strings.Builder
	out.WriteString("# XXhfs with fixed randomness, both suites; values in hex.\n" +
		"# init_kem_seed is d || z of FIPS 203's key generation, resp_encapsulate its m.\n" +
		"# init_key and resp_key are what Split returns; the transport plaintexts are\n" +
		"# \"to the responder N\" and \"to the initiator N\", with no associated data.\n")
	order := []string{
		"handshake", "prologue", "init_static", "init_ephemeral", "init_kem_seed", "resp_static", "resp_ephemeral",
		"resp_encapsulate", "msg_0_payload", "msg_0_ciphertext", "msg_1_payload", "msg_1_ciphertext", "msg_2_payload", "msg_2_ciphertext",
		"handshake_hash", "init_key", "resp_key", "init_transport_0", "resp_transport_0", "init_transport_1", "resp_transport_1",
	}
	for _, suite := range suites {
		for _, c := range hfsCases {
			b := straightLine(t, suite, c.randomness, c.prologue, c.payloads)
			if len(b) != len(order) {
				t.Fatalf("%d values, %d of them in order", len(b), len(order))
			}
			out.WriteString("\n")
			for _, name := range order {
				fmt.Fprintf(&out, "%s=%s\n", name, b[name])
			}
		}
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hfsFile, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHFSSizes pins the lengths that docs/protocol.md names.
func TestHFSSizes(t *testing.T) {
	for _, suite := range suites {
		i, r := randomPair(t, XXhfs, suite)
		want := []int{32 + 1184, 32 + 1088 + 16 + 48 + 16, 48 + 16}
		var got []int
		for n := range want {
			w, rd := i, r
			if n == 1 {
				w, rd = r, i
			}
			msg, err := w.WriteMessage(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = rd.ReadMessage(nil, msg); err != nil {
				t.Fatal(err)
			}
			got = append(got, len(msg))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: sizes %v, want %v", suite, got, want)
		}
	}
}

// TestFreshRandomness checks that without hooks two handshakes share neither
// ephemeral keys nor ciphertexts nor the hash.
func TestFreshRandomness(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		i, r := randomPair(t, XXhfs, AESGCM)
		at, err := drive(i, r, func(n int, msg []byte) []byte {
			// e, and the beginning of e1 and of ekem1; in message 3 of s.
			for _, f := range [][]byte{msg, msg[:32], msg[32:64]} {
				if seen[string(f)] {
					t.Errorf("message %d: %x seen twice", n+1, f)
				}
				seen[string(f)] = true
			}
			return msg
		})
		if err != nil {
			t.Fatalf("message %d: %v", at+1, err)
		}
		if seen[string(i.Hash())] {
			t.Error("hash seen twice")
		}
		seen[string(i.Hash())] = true
	}
}
