package identity

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"
)

func block(kind string, body []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: body}))
}

func TestPEMRoundTrip(t *testing.T) {
	for _, n := range []int{1, 2, MaxChanges} {
		id := testIdentity(t, n)
		s, h, err := parsePEM(id.MarshalPEM())
		if err != nil || s == nil || !s.Equal(id.key()) || h.LastHash() != id.History().LastHash() {
			t.Errorf("%d changes: private file does not read back: %v", n, err)
		}
		s, h, err = parsePEM(id.History().MarshalPEM())
		if err != nil || s != nil || h.LastHash() != id.History().LastHash() {
			t.Errorf("%d changes: public file does not read back: %v", n, err)
		}
		if got := len(id.MarshalPEM()); got > maxFileLen/4 {
			t.Errorf("%d changes: file of %d bytes, too near to the bound", n, got)
		}
	}
}

func TestParsePEMRefusesEveryChangedByte(t *testing.T) {
	id := testIdentity(t, 2)
	for _, data := range [][]byte{id.MarshalPEM(), id.History().MarshalPEM()} {
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << (i % 8)
			if _, _, err := parsePEM(bad); err == nil {
				t.Errorf("byte %d (%q) as %q: accepted", i, data[i], bad[i])
			}
			if _, _, err := parsePEM(data[:i]); err == nil {
				t.Errorf("cut to %d bytes: accepted", i)
			}
			for _, extra := range []string{"\n", " ", "\t", "A", "="} {
				bad := string(data[:i]) + extra + string(data[i:])
				if _, _, err := parsePEM([]byte(bad)); err == nil {
					t.Errorf("%q before byte %d: accepted", extra, i)
				}
			}
		}
	}
}

func TestParsePEMRefuses(t *testing.T) {
	id := testIdentity(t, 2)
	private, public := block(privateBlock, id.key().Seed()), string(id.History().MarshalPEM())
	file := private + public
	header := strings.Replace(private, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1)
	swap := func(from, to string) string { return strings.Replace(file, from, to, 1) }
	tests := []struct{ name, in, want string }{
		{"empty", "", "file is empty"},
		{"not PEM", "hello\n", "does not start with a PEM block"},
		{"text in front", "# my key\n" + file, "remove the text in front of it"},
		{"newline in front", "\n" + file, "does not start with a PEM block"},
		{"byte order mark", "\ufeff" + file, "does not start with a PEM block"},
		{"text between", private + "x\n" + public, "text in front"},
		{"blank line between", private + "\n" + public, "text in front"},
		{"text behind", file + "x\n", "text behind"},
		{"newline behind", file + "\n", "text behind"},
		{"NUL behind", file + "\x00", "text behind"},
		{"last newline missing", strings.TrimSuffix(file, "\n"), "a missing newline at the end"},
		{"Windows line ends", strings.ReplaceAll(file, "\n", "\r\n"), "convert it to LF line ends"},
		{"headers", header + public, "has PEM headers: remove them"},
		{"cut in the first block", file[:50], "cut off"},
		{"cut in the second block", file[:len(file)-40], "cut off"},
		{"private block alone", private, `block "CULVERT IDENTITY" is missing`},
		{"private block twice", private + private + public, "repeated or out of order"},
		{"identity block twice", file + public, "repeated or out of order"},
		{"public file twice", public + public, "repeated or out of order"},
		{"two files", file + file, "repeated or out of order"},
		{"wrong order", public + private, "repeated or out of order"},
		{"another kind", block("OPENSSH PRIVATE KEY", []byte("x")), "neither \"CULVERT PRIVATE KEY\" nor \"CULVERT IDENTITY\""},
		{"another kind behind", file + block("CERTIFICATE", []byte("x")), "neither"},
		{"kind in lower case", swap("BEGIN CULVERT PRIVATE KEY", "BEGIN culvert private key"), "text in front of it"},
		{"long lines", strings.Replace(public, "\n", "", 3), "cut off"},
		{"blank in the base64", swap("AgIC", "Ag IC"), "not in the form it was written in"},
		{"seed short", block(privateBlock, id.key().Seed()[:31]) + public, "holds 31 bytes, want 32"},
		{"seed long", block(privateBlock, id.key()) + public, "holds 64 bytes, want 32"},
		{"seed empty", block(privateBlock, nil) + public, "holds 0 bytes, want 32"},
		{"another's key", block(privateBlock, testKey(9).Seed()) + public, "do not belong together"},
		{"key before the last rotation", block(privateBlock, testKey(1).Seed()) + public, "do not belong together"},
		{"history damaged", private + block(publicBlock, []byte("x")), `block "CULVERT IDENTITY" is damaged: reading history: `},
		{"history empty", private + block(publicBlock, nil), "is damaged"},
		{"history too long", block(publicBlock, make([]byte, MaxHistoryLen+1)), "8193 bytes, more than 8192"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.in == file {
				t.Fatal("the input is not damaged")
			}
			s, h, err := parsePEM([]byte(tt.in))
			wantError(t, err, tt.want)
			if s != nil || h != nil {
				t.Error("an error came with a result")
			}
			if err != nil && strings.Contains(err.Error(), "AgIC") {
				t.Errorf("error %q holds key bytes", err)
			}
		})
	}
}
