package noise

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"encoding/hex"
	"os"
	"strings"
	"sync"
	"testing"
)

// classical are the patterns that run without ML-KEM and without a PSK.
var classical = []*Pattern{NN, KN, NK, KK, NX, KX, XN, IN, XK, IK, XX, IX, N, K, X}

var suites = []Suite{AESGCM, ChaChaPoly}

// withPSKs returns ps and each of them with each psk modifier.
func withPSKs(t testing.TB, ps []*Pattern) []*Pattern {
	t.Helper()
	all := append([]*Pattern(nil), ps...)
	for _, p := range ps {
		for n := range len(p.messages) + 1 {
			with, err := p.WithPSK(n)
			if err != nil {
				t.Fatalf("%s.WithPSK(%d): %v", p, n, err)
			}
			all = append(all, with)
		}
	}
	return all
}

// seq returns n bytes that count up from first.
func seq(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// made holds the keys that privateKey and kemKey have made: the tests that
// change every byte use the same few ten thousand times.
var made sync.Map

func privateKey(t testing.TB, b []byte) *ecdh.PrivateKey {
	t.Helper()
	if k, ok := made.Load(string(b)); ok {
		return k.(*ecdh.PrivateKey)
	}
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		t.Fatalf("private key %x: %v", b, err)
	}
	made.Store(string(b), k)
	return k
}

func kemKey(t testing.TB, seed []byte) *mlkem.DecapsulationKey768 {
	t.Helper()
	if k, ok := made.Load(string(seed)); ok {
		return k.(*mlkem.DecapsulationKey768)
	}
	k, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		t.Fatalf("decapsulation key %x: %v", seed, err)
	}
	made.Store(string(seed), k)
	return k
}

// randomness is all that a handshake draws, and its static keys.
type randomness struct {
	initStatic, initEphemeral, initKEM         []byte // 32, 32, 64 (d || z)
	respStatic, respEphemeral, respEncapsulate []byte // 32 each
}

var fixed = randomness{
	initStatic: seq(0x01, 32), initEphemeral: seq(0x21, 32), initKEM: seq(0x41, 64),
	respStatic: seq(0x81, 32), respEphemeral: seq(0xa1, 32), respEncapsulate: seq(0xc1, 32),
}

// configs returns the configurations of both sides for p, with the given
// randomness and the keys that p wants.
func (r randomness) configs(t testing.TB, p *Pattern, s Suite) (initiator, responder Config) {
	t.Helper()
	initStatic, respStatic := privateKey(t, r.initStatic), privateKey(t, r.respStatic)
	initiator = Config{Pattern: p, Suite: s, Initiator: true, Prologue: []byte("prologue"), hooks: r.hooks(t, r.initEphemeral)}
	responder = Config{Pattern: p, Suite: s, Prologue: []byte("prologue"), hooks: r.hooks(t, r.respEphemeral)}
	setStatics(&initiator, &responder, initStatic, respStatic)
	if p.has(tokenPSK) {
		initiator.PSK, responder.PSK = (*[32]byte)(seq(0x61, 32)), (*[32]byte)(seq(0x61, 32))
	}
	return initiator, responder
}

// setStatics gives each side the keys that the pattern uses.
func setStatics(initiator, responder *Config, initStatic, respStatic *ecdh.PrivateKey) {
	p := initiator.Pattern
	if p.known(true) || p.sendsStatic(true) {
		initiator.Static = initStatic
	}
	if p.known(true) {
		responder.RemoteStatic = initStatic.PublicKey()
	}
	if p.known(false) || p.sendsStatic(false) {
		responder.Static = respStatic
	}
	if p.known(false) {
		initiator.RemoteStatic = respStatic.PublicKey()
	}
}

func (r randomness) hooks(t testing.TB, ephemeral []byte) hooks {
	t.Helper()
	e, dk := privateKey(t, ephemeral), kemKey(t, r.initKEM)
	return hooks{
		ephemeral: func() (*ecdh.PrivateKey, error) { return e, nil },
		kem:       func() (*mlkem.DecapsulationKey768, error) { return dk, nil },
		encapsulate: func(ek *mlkem.EncapsulationKey768) (secret, ciphertext []byte, err error) {
			return mlkemtest.Encapsulate768(ek, r.respEncapsulate)
		},
	}
}

// newPair returns both sides of a handshake with fixed randomness.
func newPair(t testing.TB, p *Pattern, s Suite) (initiator, responder *Handshake) {
	t.Helper()
	ci, cr := fixed.configs(t, p, s)
	return mustNew(t, ci), mustNew(t, cr)
}

// randomPair is newPair with real randomness, except for the static keys.
func randomPair(t testing.TB, p *Pattern, s Suite) (initiator, responder *Handshake) {
	t.Helper()
	ci, cr := fixed.configs(t, p, s)
	ci.hooks, cr.hooks = hooks{}, hooks{}
	return mustNew(t, ci), mustNew(t, cr)
}

func mustNew(t testing.TB, cfg Config) *Handshake {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatalf("New(%s, initiator %v): %v", cfg.Pattern, cfg.Initiator, err)
	}
	return h
}

// payloadOf is the payload that drive puts into message i.
func payloadOf(i int) []byte { return []byte{'p', 'a', 'y', byte('0' + i)} }

// drive runs the handshake from where it stands, passing each message through
// change, which may be nil. It returns the first error and the message at
// which it came.
func drive(initiator, responder *Handshake, change func(i int, msg []byte) []byte) (at int, err error) {
	for i := initiator.index; i < len(initiator.pattern.messages); i++ {
		w, r := initiator, responder
		if i%2 == 1 {
			w, r = responder, initiator
		}
		msg, err := w.WriteMessage(nil, payloadOf(i))
		if err != nil {
			return i, err
		}
		if change != nil {
			msg = change(i, msg)
		}
		if _, err = r.ReadMessage(nil, msg); err != nil {
			return i, err
		}
	}
	return len(initiator.pattern.messages), nil
}

func mustDrive(t testing.TB, initiator, responder *Handshake) {
	t.Helper()
	if at, err := drive(initiator, responder, nil); err != nil {
		t.Fatalf("%s: message %d: %v", initiator.pattern, at+1, err)
	}
}

// transcript returns the messages that drive would send with fixed randomness.
func transcript(t testing.TB, p *Pattern, s Suite) [][]byte {
	t.Helper()
	i, r := newPair(t, p, s)
	var msgs [][]byte
	at, err := drive(i, r, func(_ int, msg []byte) []byte {
		msgs = append(msgs, bytes.Clone(msg))
		return msg
	})
	if err != nil {
		t.Fatalf("%s: message %d: %v", p, at+1, err)
	}
	return msgs
}

func mustSplit(t testing.TB, h *Handshake) (send, recv *Cipher) {
	t.Helper()
	send, recv, err := h.Split()
	if err != nil {
		t.Fatalf("Split: %v", err)
	}
	return send, recv
}

// cipherPair returns the two ends of one direction of a channel.
func cipherPair(t testing.TB, s Suite) (send, recv *Cipher) {
	t.Helper()
	key := [keyLen]byte(seq(7, keyLen))
	var err error
	if send, err = newCipher(s, &key); err != nil {
		t.Fatal(err)
	}
	if recv, err = newCipher(s, &key); err != nil {
		t.Fatal(err)
	}
	return send, recv
}

// A block is one paragraph of a vector file, "name=hex" a line.
type block map[string]string

func (b block) bytes(t testing.TB, name string) []byte {
	t.Helper()
	v, err := hex.DecodeString(b[name])
	if err != nil {
		t.Fatalf("vector %s: %s: %v", b["handshake"], name, err)
	}
	return v
}

// readBlocks reads a file of paragraphs. A line that begins with # is a
// comment.
func readBlocks(t testing.TB, path string) []block {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatalf("opening vectors: %v", err)
	}
	defer f.Close()
	var blocks []block
	var cur block
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			cur = nil
			continue
		}
		if line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%s: no = in %q", path, line)
		}
		if cur == nil {
			cur = block{}
			blocks = append(blocks, cur)
		}
		cur[name] = value
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("reading vectors: %v", err)
	}
	return blocks
}
