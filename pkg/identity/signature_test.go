package identity

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"
)

func TestSign(t *testing.T) {
	const label, message = "test message v1", "hello"
	for n := 1; n <= 3; n++ {
		id := testIdentity(t, n)
		signature, err := id.Sign(label, []byte(message))
		if err != nil {
			t.Fatal(err)
		}
		if !ed25519.Verify(id.History().Key(), []byte(label+"\x00"+message), signature) {
			t.Errorf("%d changes: the signature is not over label, zero byte and message", n)
		}
		// Of a longer history, too, the change that signed is the one that verifies.
		h := testIdentity(t, 3).History()
		for i := range 3 {
			c, ok := h.Change(h.hashes[i])
			if !ok {
				t.Fatalf("change %d is not found", i+1)
			}
			if got := c.Verify(label, []byte(message), signature); got != (i == n-1) {
				t.Errorf("signed by change %d, change %d verifies: %v", n, i+1, got)
			}
		}
	}
}

func TestChangeVerifyRefusesEveryChange(t *testing.T) {
	id := testIdentity(t, 1)
	c, _ := id.History().Change(id.History().LastHash())
	message := []byte("a message")
	signature, err := id.Sign("label", message)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(signature) * 8 {
		bad := bytes.Clone(signature)
		bad[i/8] ^= 1 << (i % 8)
		if c.Verify("label", message, bad) {
			t.Errorf("bit %d of the signature flipped: verifies", i)
		}
	}
	for i := range len(message) * 8 {
		bad := bytes.Clone(message)
		bad[i/8] ^= 1 << (i % 8)
		if c.Verify("label", bad, signature) {
			t.Errorf("bit %d of the message flipped: verifies", i)
		}
	}
	for _, tt := range []struct{ label, message string }{
		{"labe", "l\x00a message"}, {"label2", "a message"}, {"", "a message"}, {"label\x00", "a message"}, {"label\x00a", " message"},
	} {
		if c.Verify(tt.label, []byte(tt.message), signature) {
			t.Errorf("label %q, message %q: verifies", tt.label, tt.message)
		}
	}
	for _, n := range []int{0, 63, 65} {
		if c.Verify("label", message, append(bytes.Clone(signature), 0)[:n]) {
			t.Errorf("%d bytes: verifies", n)
		}
	}
	if (Change{}).Verify("label", message, signature) {
		t.Error("the zero Change verifies")
	}
}

// Nobody gets this package's own signatures, or one without a label, out of Sign.
func TestSignRefusesLabels(t *testing.T) {
	id := testIdentity(t, 1)
	c, _ := id.History().Change(id.History().LastHash())
	for _, label := range []string{
		"", "culvert identity change v1", "culvert identity attestation v1", "culvert identity ", "a\x00b", "a\n", "ä", strings.Repeat("a", maxLabel+1),
	} {
		if _, err := id.Sign(label, []byte("x")); err == nil {
			t.Errorf("label %q: signed", label)
		}
		if c.Verify(label, []byte("x"), sign(testKey(1), label+"\x00", []byte("x"))) {
			t.Errorf("label %q: verifies", label)
		}
	}
}

func TestHistoryChange(t *testing.T) {
	h := testIdentity(t, 3).History()
	for i, hash := range h.hashes {
		c, ok := h.Change(hash)
		created := epoch.Add(time.Duration(i) * time.Hour)
		replaced := created.Add(time.Hour)
		if i == 2 {
			replaced = time.Time{}
		}
		if !ok || !c.Created.Equal(created) || !c.Expires.Equal(created.Add(Validity)) || !c.Replaced.Equal(replaced) ||
			!c.Key().Equal(testKey(byte(i+1)).Public()) {
			t.Errorf("change %d: %+v, %v", i+1, c, ok)
		}
	}
	if _, ok := h.Change([32]byte{}); ok {
		t.Error("a change with hash zero")
	}
	if _, ok := h.Change(testIdentityFrom(t, 9, 1).LastHash()); ok {
		t.Error("a stranger's change is found")
	}
}
