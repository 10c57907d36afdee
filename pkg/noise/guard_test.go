package noise

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestConfigFaults(t *testing.T) {
	p256, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	static := privateKey(t, seq(1, 32))
	good := func() Config { return Config{Pattern: XXhfs, Suite: AESGCM, Initiator: true, Static: static} }
	if _, err := New(good()); err != nil {
		t.Fatalf("New with nothing wrong: %v", err)
	}
	for _, c := range []struct {
		change func(*Config)
		want   []string
	}{
		{func(c *Config) { c.Pattern = nil }, []string{"no pattern"}},
		{func(c *Config) { c.Pattern = &Pattern{} }, []string{"no pattern"}},
		{func(c *Config) { c.Suite = 0 }, []string{"unknown suite 0"}},
		{func(c *Config) { c.Suite = 3 }, []string{"unknown suite 3"}},
		{func(c *Config) { c.Static = nil }, []string{"needs a static key"}},
		{func(c *Config) { c.Static = p256 }, []string{"static key is not an X25519 key"}},
		{func(c *Config) { c.Pattern = NN }, []string{"uses no static key"}},
		{func(c *Config) { c.Pattern = XK }, []string{"XK needs the peer's static key"}},
		{func(c *Config) { c.RemoteStatic = static.PublicKey() }, []string{"would not check the peer's static key"}},
		{func(c *Config) { c.Pattern, c.RemoteStatic = XK, p256.PublicKey() }, []string{"peer's static key is not an X25519 key"}},
		{func(c *Config) { c.PSK = new([32]byte) }, []string{"uses no pre-shared key"}},
		{func(c *Config) { c.Pattern, _ = XX.WithPSK(3) }, []string{"XXpsk3 needs a pre-shared key"}},
		{func(c *Config) { c.Suite, c.Static = 7, nil }, []string{"unknown suite 7", "needs a static key"}},
	} {
		cfg := good()
		c.change(&cfg)
		h, err := New(cfg)
		for _, want := range c.want {
			if h != nil || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("New: got %v, want an error with %q", err, want)
			}
		}
	}
}

func TestWithPSKFaults(t *testing.T) {
	psk, err := XX.WithPSK(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p *Pattern
		n int
	}{{XX, -1}, {XX, 4}, {N, 2}, {XXhfs, 0}, {psk, 0}} {
		if p, err := c.p.WithPSK(c.n); err == nil {
			t.Errorf("%s.WithPSK(%d): got %s, want an error", c.p, c.n, p)
		}
	}
	if got, want := fmt.Sprint(XX.messages), fmt.Sprint((&Pattern{messages: XX.messages}).messages); got != want || XX.has(tokenPSK) {
		t.Errorf("WithPSK changed XX: %v", XX.messages)
	}
}

// TestTurns calls everything at every wrong moment, and then goes on as if
// nothing had happened.
func TestTurns(t *testing.T) {
	for _, suite := range suites {
		i, r := newPair(t, XXhfs, suite)
		for n := range 3 {
			w, rd := i, r
			if n == 1 {
				w, rd = r, i
			}
			for _, h := range []*Handshake{w, rd} {
				if _, _, err := h.Split(); !errors.Is(err, ErrIncomplete) {
					t.Errorf("Split before message %d: got %v, want %v", n+1, err, ErrIncomplete)
				}
				if h.Complete() || h.Hash() != nil {
					t.Errorf("before message %d: complete %v, hash %x", n+1, h.Complete(), h.Hash())
				}
			}
			if _, err := rd.WriteMessage(nil, nil); !errors.Is(err, ErrTurn) {
				t.Errorf("writing message %d out of turn: got %v, want %v", n+1, err, ErrTurn)
			}
			msg, err := w.WriteMessage(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := ErrTurn
			if n == 2 {
				want = ErrComplete
			}
			if _, err := w.WriteMessage(nil, nil); !errors.Is(err, want) {
				t.Errorf("writing message %d twice: got %v, want %v", n+1, err, want)
			}
			if _, err := rd.ReadMessage(nil, msg); err != nil {
				t.Fatalf("reading message %d: %v", n+1, err)
			}
			if _, err := rd.ReadMessage(nil, msg); !errors.Is(err, want) {
				t.Errorf("reading message %d twice: got %v, want %v", n+1, err, want)
			}
		}
		testAfterwards(t, i, r)
	}
}

func testAfterwards(t *testing.T, i, r *Handshake) {
	t.Helper()
	is, ir := mustSplit(t, i)
	rs, rr := mustSplit(t, r)
	passOn(t, is, rr, "to the responder")
	passOn(t, rs, ir, "to the initiator")
	for name, h := range map[string]*Handshake{"initiator": i, "responder": r} {
		if s, r, err := h.Split(); s != nil || r != nil || !errors.Is(err, ErrSplit) {
			t.Errorf("%s: second Split: got %v, %v, %v, want %v", name, s, r, err, ErrSplit)
		}
		if _, err := h.WriteMessage(nil, nil); !errors.Is(err, ErrComplete) {
			t.Errorf("%s: WriteMessage after Split: got %v, want %v", name, err, ErrComplete)
		}
		if _, err := h.ReadMessage(nil, nil); !errors.Is(err, ErrComplete) {
			t.Errorf("%s: ReadMessage after Split: got %v, want %v", name, err, ErrComplete)
		}
		if h.sym != nil || h.static != nil || h.ephemeral != nil || h.kem != nil || h.psk != nil {
			t.Errorf("%s: holds keys after Split", name)
		}
	}
	if !i.Complete() || !r.Complete() || len(i.Hash()) != 32 || !bytes.Equal(i.Hash(), r.Hash()) {
		t.Errorf("complete %v and %v, hashes %x and %x", i.Complete(), r.Complete(), i.Hash(), r.Hash())
	}
	if got, want := i.RemoteStatic(), privateKey(t, fixed.respStatic).PublicKey().Bytes(); !bytes.Equal(got, want) {
		t.Errorf("initiator's remote static %x, want %x", got, want)
	}
	if got, want := r.RemoteStatic(), privateKey(t, fixed.initStatic).PublicKey().Bytes(); !bytes.Equal(got, want) {
		t.Errorf("responder's remote static %x, want %x", got, want)
	}
	i.Hash()[0] ^= 1
	i.RemoteStatic()[0] ^= 1
	if !bytes.Equal(i.Hash(), r.Hash()) || !bytes.Equal(i.RemoteStatic(), privateKey(t, fixed.respStatic).PublicKey().Bytes()) {
		t.Error("Hash or RemoteStatic hands out the handshake's own memory")
	}
}

func TestZeroValues(t *testing.T) {
	var h Handshake
	if _, err := h.WriteMessage(nil, nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("WriteMessage: got %v", err)
	}
	if _, err := h.ReadMessage(nil, nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("ReadMessage: got %v", err)
	}
	if _, _, err := h.Split(); !errors.Is(err, ErrIncomplete) || h.Complete() || h.Hash() != nil || h.RemoteStatic() != nil {
		t.Errorf("Split: got %v, complete %v", err, h.Complete())
	}
	var c Cipher
	if _, err := c.Seal(nil, nil, nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("Seal: got %v", err)
	}
	if _, err := c.Open(nil, nil, make([]byte, 16)); !errors.Is(err, ErrNoKey) {
		t.Errorf("Open: got %v", err)
	}
}

// TestPayloadLimit fills every message of every pattern to the last byte; one
// more is refused, and changes nothing.
func TestPayloadLimit(t *testing.T) {
	for n, p := range append(withPSKs(t, classical), XXhfs) {
		i, r := newPair(t, p, suites[n%2])
		for m := range p.messages {
			w, rd := i, r
			if m%2 == 1 {
				w, rd = r, i
			}
			most := bytes.Repeat([]byte{0xa5}, MaxMessage-w.overhead())
			if _, err := w.WriteMessage(nil, append(most, 0)); !errors.Is(err, ErrTooLong) {
				t.Errorf("%s: message %d with a byte too much: got %v, want %v", p, m+1, err, ErrTooLong)
			}
			msg, err := w.WriteMessage(nil, most)
			if err != nil || len(msg) != MaxMessage {
				t.Fatalf("%s: message %d: got %d bytes, %v, want %d", p, m+1, len(msg), err, MaxMessage)
			}
			if got, err := rd.ReadMessage(nil, msg); err != nil || !bytes.Equal(got, most) {
				t.Fatalf("%s: message %d: read %d bytes, %v, want %d", p, m+1, len(got), err, len(most))
			}
		}
	}
}

// TestDst checks that both calls append, leave what is before, and bear any
// overlap.
func TestDst(t *testing.T) {
	i, r := newPair(t, XXhfs, AESGCM)
	for n := range 3 {
		w, rd := i, r
		if n == 1 {
			w, rd = r, i
		}
		buf := append(make([]byte, 0, 4096), "??before"...)
		msg, err := w.WriteMessage(buf[2:3], buf[3:8]) // the payload is where the message goes
		if err != nil || msg[0] != 'b' {
			t.Fatalf("writing message %d: %q, %v", n+1, msg[:1], err)
		}
		got, err := rd.ReadMessage(msg[:1], msg[1:]) // the payload goes where the message is
		if err != nil || string(got) != "before" {
			t.Fatalf("reading message %d: got %q, %v, want %q", n+1, got, err, "before")
		}
	}
}

// TestOneWay checks that nothing can be sent against the direction.
func TestOneWay(t *testing.T) {
	for _, p := range []*Pattern{N, K, X} {
		i, r := newPair(t, p, AESGCM)
		mustDrive(t, i, r)
		is, ir := mustSplit(t, i)
		rs, rr := mustSplit(t, r)
		passOn(t, is, rr, "the one way")
		if _, err := rs.Seal(nil, nil, nil); !errors.Is(err, ErrOneWay) {
			t.Errorf("%s: responder's Seal: got %v, want %v", p, err, ErrOneWay)
		}
		if _, err := ir.Open(nil, nil, make([]byte, 16)); !errors.Is(err, ErrOneWay) {
			t.Errorf("%s: initiator's Open: got %v, want %v", p, err, ErrOneWay)
		}
	}
}

// TestDirections checks that a message opens at the other end only, not when
// it is reflected.
func TestDirections(t *testing.T) {
	i, r := newPair(t, XXhfs, AESGCM)
	mustDrive(t, i, r)
	is, ir := mustSplit(t, i)
	_, rr := mustSplit(t, r)
	ct, err := is.Seal(nil, nil, []byte("there"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ir.Open(nil, nil, ct); !errors.Is(err, ErrAuthentication) {
		t.Errorf("reflected: got %v, want %v", err, ErrAuthentication)
	}
	if got, err := rr.Open(nil, nil, ct); err != nil || string(got) != "there" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestRandomnessFails checks that a failing source is an error, and final.
func TestRandomnessFails(t *testing.T) {
	broken := errors.New("broken")
	ci, cr := fixed.configs(t, XXhfs, AESGCM)
	cr.hooks.ephemeral = func() (*ecdh.PrivateKey, error) { return nil, broken }
	i, r := mustNew(t, ci), mustNew(t, cr)
	at, err := drive(i, r, nil)
	wantFailure(t, "no ephemeral key", at, err, 1, broken)
	wantDead(t, r, err)
}
