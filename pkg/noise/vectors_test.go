package noise

import (
	"bytes"
	"crypto/ecdh"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestVectors runs the public cacophony vectors that the module
// github.com/flynn/noise carries, for every pattern here: 60 patterns with and
// without psk modifiers, two suites, with and without prologue and payloads.
func TestVectors(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/flynn/noise").Output()
	if err != nil {
		t.Fatalf("finding the module github.com/flynn/noise: %v", err)
	}
	ran := map[string]int{}
	for _, v := range readBlocks(t, filepath.Join(strings.TrimSpace(string(out)), "vectors.txt")) {
		if !strings.Contains(v["handshake"], "_25519_") || !strings.HasSuffix(v["handshake"], "_SHA256") {
			continue
		}
		runVector(t, v)
		ran[v["handshake"]]++
	}
	total := 0
	for _, p := range withPSKs(t, classical) {
		for _, s := range suites {
			name := p.Protocol(s)
			if ran[name] != 4 {
				t.Errorf("%s: ran %d vectors, want 4", name, ran[name])
			}
			total += ran[name]
		}
	}
	if want := 60 * 2 * 4; total != want {
		t.Errorf("ran %d vectors, want %d", total, want)
	}
}

// byName finds the pattern and suite of a protocol name.
func byName(t testing.TB, name string) (*Pattern, Suite) {
	t.Helper()
	for _, p := range withPSKs(t, classical) {
		for _, s := range suites {
			if p.Protocol(s) == name {
				return p, s
			}
		}
	}
	t.Fatalf("no pattern and suite for %q", name)
	return nil, 0
}

func runVector(t *testing.T, v block) {
	t.Helper()
	p, suite := byName(t, v["handshake"])
	ci := Config{Pattern: p, Suite: suite, Initiator: true, Prologue: v.bytes(t, "prologue")}
	cr := Config{Pattern: p, Suite: suite, Prologue: v.bytes(t, "prologue")}
	ci.hooks.ephemeral = func() (*ecdh.PrivateKey, error) { return privateKey(t, v.bytes(t, "gen_init_ephemeral")), nil }
	cr.hooks.ephemeral = func() (*ecdh.PrivateKey, error) { return privateKey(t, v.bytes(t, "gen_resp_ephemeral")), nil }
	var initStatic, respStatic *ecdh.PrivateKey
	if v["init_static"] != "" {
		initStatic = privateKey(t, v.bytes(t, "init_static"))
	}
	if v["resp_static"] != "" {
		respStatic = privateKey(t, v.bytes(t, "resp_static"))
	}
	setStatics(&ci, &cr, initStatic, respStatic)
	if p.has(tokenPSK) {
		ci.PSK, cr.PSK = (*[32]byte)(v.bytes(t, "preshared_key")), (*[32]byte)(v.bytes(t, "preshared_key"))
	}
	initiator, responder := mustNew(t, ci), mustNew(t, cr)

	n := len(p.messages)
	for i := range n {
		w, r := initiator, responder
		if i%2 == 1 {
			w, r = responder, initiator
		}
		payload, want := v.bytes(t, fmt.Sprintf("msg_%d_payload", i)), v.bytes(t, fmt.Sprintf("msg_%d_ciphertext", i))
		got, err := w.WriteMessage(nil, payload)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: writing message %d: got %x, %v, want %x", v["handshake"], i, got, err, want)
		}
		if got, err = r.ReadMessage(nil, want); err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("%s: reading message %d: got %x, %v, want %x", v["handshake"], i, got, err, payload)
		}
	}
	if !bytes.Equal(initiator.Hash(), responder.Hash()) || len(initiator.Hash()) != 32 {
		t.Fatalf("%s: hashes %x and %x", v["handshake"], initiator.Hash(), responder.Hash())
	}
	runTransport(t, v, initiator, responder)
}

// runTransport checks the messages after the handshake. The file's alternate
// between the two CipherStates, in one-way patterns too, where Split would
// rightly refuse the second: so the ciphers are taken from below Split.
func runTransport(t *testing.T, v block, initiator, responder *Handshake) {
	t.Helper()
	i1, i2, err := initiator.sym.split()
	if err != nil {
		t.Fatal(err)
	}
	r1, r2, err := responder.sym.split()
	if err != nil {
		t.Fatal(err)
	}
	first, count := len(initiator.pattern.messages), 0
	for i := first; v[fmt.Sprintf("msg_%d_ciphertext", i)] != ""; i++ {
		w, r := i1, r1
		if (i-first)%2 == 1 {
			w, r = r2, i2
		}
		payload, want := v.bytes(t, fmt.Sprintf("msg_%d_payload", i)), v.bytes(t, fmt.Sprintf("msg_%d_ciphertext", i))
		got, err := w.Seal(nil, nil, payload)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: sealing message %d: got %x, %v, want %x", v["handshake"], i, got, err, want)
		}
		if got, err = r.Open(nil, nil, want); err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("%s: opening message %d: got %x, %v, want %x", v["handshake"], i, got, err, payload)
		}
		count++
	}
	if count != 2 {
		t.Fatalf("%s: %d transport messages in the vector, want 2", v["handshake"], count)
	}
}
