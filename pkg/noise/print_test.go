package noise

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// TestPrinting looks for the keys in whatever fmt makes of the types, alone and
// in another package's struct.
func TestPrinting(t *testing.T) {
	for _, suite := range suites {
		p, err := XX.WithPSK(3)
		if err != nil {
			t.Fatal(err)
		}
		ci, cr := fixed.configs(t, p, suite)
		i, r := mustNew(t, ci), mustNew(t, cr)
		texts := printed(ci, &ci, i, struct{ H *Handshake }{i}, struct{ h *Handshake }{i})
		msg, err := i.WriteMessage(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = r.ReadMessage(nil, msg); err != nil {
			t.Fatal(err)
		}
		if msg, err = r.WriteMessage(nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err = i.ReadMessage(nil, msg); err != nil {
			t.Fatal(err)
		}
		chain := i.sym.ck
		texts = append(texts, printed(i, struct{ H *Handshake }{i}, struct{ h *Handshake }{i})...)
		mustDrive(t, i, r)
		key, _ := transportKeys(i)
		c, _ := mustSplit(t, i)
		texts = append(texts, printed(i, c, struct{ C *Cipher }{c}, struct{ c *Cipher }{c})...)
		for name, secret := range map[string][]byte{
			"static": fixed.initStatic, "ephemeral": fixed.initEphemeral, "psk": ci.PSK[:], "chain": chain[:], "cipher": key[:],
		} {
			for _, form := range forms(secret) {
				for _, text := range texts {
					if strings.Contains(text, form) {
						t.Errorf("%s: %s key in %.200q", suite, name, text)
					}
				}
			}
		}
	}
}

func printed(values ...any) []string {
	var texts []string
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%z"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
	}
	return texts
}

// forms are the ways in which fmt might show a key: bytes, and words as AES
// keeps them.
func forms(secret []byte) []string {
	part := secret[:8]
	list := func(v any) string { return strings.Trim(fmt.Sprint(v), "[]") }
	words := func(o binary.ByteOrder) []uint32 { return []uint32{o.Uint32(part), o.Uint32(part[4:])} }
	return []string{
		string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), list(part),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"),
		list(words(binary.BigEndian)), list(words(binary.LittleEndian)),
	}
}

func TestFormat(t *testing.T) {
	ci, _ := fixed.configs(t, XXhfs, AESGCM)
	i, r := newPair(t, XXhfs, AESGCM)
	mustDrive(t, i, r)
	c, _ := mustSplit(t, i)
	for got, want := range map[string]string{
		fmt.Sprint(ci):                "noise.Config(Noise_XXhfs_25519+MLKEM768_AESGCM_SHA256, initiator true)",
		fmt.Sprint(Config{}):          "noise.Config(no pattern)",
		fmt.Sprint(i):                 "noise.Handshake(XXhfs, initiator true, 3 of 3 messages)",
		fmt.Sprint((*Handshake)(nil)): "noise.Handshake(none)",
		fmt.Sprint(c):                 "noise.Cipher(AESGCM)",
		fmt.Sprint((*Cipher)(nil)):    "noise.Cipher(no key)",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
