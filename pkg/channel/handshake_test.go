package channel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/canon"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/noise"
)

// mangledConn changes what is written through it, by absolute offset.
type mangledConn struct {
	net.Conn
	at     int // offset of the byte to flip, -1 for none
	cut    int // offset after which the path ends, -1 for none
	offset int
}

func (c *mangledConn) Write(p []byte) (int, error) {
	b := bytes.Clone(p)
	if i := c.at - c.offset; c.at >= 0 && i >= 0 && i < len(b) {
		b[i] ^= 1
	}
	if c.cut >= 0 && c.offset+len(b) > c.cut {
		_, _ = c.Conn.Write(b[:c.cut-c.offset])
		_ = c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	c.offset += len(b)
	return c.Conn.Write(b)
}

// recorder remembers what is written through it.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	wire []byte
}

func (c *recorder) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.wire = append(c.wire, p...)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// handshakeLengths returns how many bytes each side sends.
func handshakeLengths(t *testing.T, init, resp *Local) (initiator, responder int) {
	t.Helper()
	a, b := net.Pipe()
	ra, rb := &recorder{Conn: a}, &recorder{Conn: b}
	c, ans, err := handshakeOn(ra, rb, init, resp, PurposeHop, []byte("request"), Options{})
	if err != nil || ans.err != nil {
		t.Fatalf("handshake: %v, %v", err, ans.err)
	}
	initiator, responder = len(ra.wire), len(rb.wire)
	_ = a.Close()
	_ = c.Close()
	_ = ans.in.Accept().Close()
	return initiator, responder
}

func TestHandshakeTellsBothWhoTheOtherIs(t *testing.T) {
	for _, suite := range suites {
		init, resp := newLocal(t), newLocal(t)
		a, b := tcpPair(t)
		c, ans, err := handshakeOn(a, b, init, resp, PurposeHop, []byte("request"), Options{Suite: suite})
		if err != nil || ans.err != nil {
			t.Fatalf("handshake: %v, %v", err, ans.err)
		}
		s := ans.in.Accept()
		if got := c.Peer(); got.Identifier != resp.Identifier() || got.Instance != resp.Instance() {
			t.Errorf("initiator sees %v, want the responder", got.Identifier)
		}
		if got := s.Peer(); got.Identifier != init.Identifier() || got.Instance != init.Instance() {
			t.Errorf("responder sees %v, want the initiator", got.Identifier)
		}
		if got := string(ans.in.Request()); got != "request" {
			t.Errorf("request = %q", got)
		}
		closeBoth(t, c, s)
	}
}

// Every byte that the initiator sends, flipped: the responder never accepts.
// Every byte that the responder sends, flipped: the initiator never does.
func TestEveryByteOfTheHandshake(t *testing.T) {
	t.Parallel()
	init, resp := newLocal(t), newLocal(t)
	fromInit, fromResp := handshakeLengths(t, init, resp)
	opt := Options{Timeout: 300 * time.Millisecond, Linger: time.Millisecond}
	for side, n := range map[string]int{"initiator": fromInit, "responder": fromResp} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			for i := range n {
				a, b := net.Pipe()
				var ca, cb net.Conn = a, b
				if side == "initiator" {
					ca = &mangledConn{Conn: a, at: i, cut: -1}
				} else {
					cb = &mangledConn{Conn: b, at: i, cut: -1}
				}
				c, ans, err := handshakeOn(ca, cb, init, resp, PurposeHop, []byte("request"), opt)
				if side == "initiator" && ans.err == nil {
					t.Errorf("byte %d flipped: the responder accepted", i)
				}
				if side == "responder" && err == nil {
					t.Errorf("byte %d flipped: the initiator accepted", i)
				}
				if c != nil {
					if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
						t.Errorf("byte %d flipped: Read = %v, want an error", i, err)
					}
					_ = c.Close()
				}
			}
		})
	}
}

func TestHandshakeCutAtEveryLength(t *testing.T) {
	t.Parallel()
	init, resp := newLocal(t), newLocal(t)
	fromInit, fromResp := handshakeLengths(t, init, resp)
	opt := Options{Timeout: 5 * time.Second, Linger: time.Millisecond}
	// Both sides live where message 3 is cut, which answers message 2, and at
	// some lengths of the others. There a side that was recorded does as well
	// (TestRecordedHandshakeCutAtEveryLength), and is a lot faster.
	for i := range max(fromInit, fromResp) {
		if i%32 != 0 && i < preambleLen+headerLen+message1Len {
			continue
		}
		if i < fromInit {
			a, b := net.Pipe()
			_, ans, err := handshakeOn(&mangledConn{Conn: a, at: -1, cut: i}, b, init, resp, PurposeHop, []byte("request"), opt)
			if err == nil || ans.err == nil {
				t.Errorf("initiator cut at %d: %v, %v; want two errors", i, err, ans.err)
			}
		}
		if i < fromResp && (i%32 == 0 || i == fromResp-1) {
			a, b := net.Pipe()
			_, ans, err := handshakeOn(a, &mangledConn{Conn: b, at: -1, cut: i}, init, resp, PurposeHop, []byte("request"), opt)
			if err == nil || ans.err == nil {
				t.Errorf("responder cut at %d: %v, %v; want two errors", i, err, ans.err)
			}
		}
	}
}

// A recorded initiator, played again in any order, gets nothing.
func TestReplayedHandshake(t *testing.T) {
	init, resp := newLocal(t), newLocal(t)
	a, b := net.Pipe()
	ra := &recorder{Conn: a}
	c, ans, err := handshakeOn(ra, b, init, resp, PurposeHop, []byte("request"), Options{Linger: time.Millisecond})
	if err != nil || ans.err != nil {
		t.Fatalf("handshake: %v, %v", err, ans.err)
	}
	_ = a.Close()
	_ = c.Close()
	_ = ans.in.Accept().Close()

	first := preambleLen + headerLen + message1Len
	m1, m3 := ra.wire[:first], ra.wire[first:]
	for name, wire := range map[string][]byte{
		"as it was": ra.wire, "message 3 first": append(bytes.Clone(m3), m1...),
		"message 1 twice": append(bytes.Clone(m1), m1...), "message 3 alone": append(bytes.Clone(m1[:preambleLen]), m3...),
	} {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, a) }()
		go func() { _, _ = a.Write(wire); _ = a.Close() }()
		if in, err := Respond(context.Background(), b, resp, PurposeHop, Options{}); err == nil {
			t.Errorf("%s: accepted %v", name, in.Peer())
		}
	}
}

// A caller whose identity does not verify is told so, whatever it asks for.
func TestIdentityDenied(t *testing.T) {
	for _, p := range []Purpose{PurposeHop, PurposeChannel} {
		t.Run(p.String(), func(t *testing.T) {
			init := newLocal(t)
			init.name = "no name" // stands for all that is checked
			a, b := tcpPair(t)
			c, ans, err := handshakeOn(a, b, init, newLocal(t), p, nil, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var he *HandshakeError
			if !errors.As(ans.err, &he) || he.Step != "identity" {
				t.Errorf("Respond = %v, want a failure at identity", ans.err)
			}
			_, err = c.Read(make([]byte, 1))
			var re *RefusedError
			if !errors.As(err, &re) || re.Code != code.IdentityDenied || !strings.Contains(re.Reason, "your identity was not accepted: ") {
				t.Errorf("Read = %v, want a refusal as %s that says why", err, code.IdentityDenied)
			}
		})
	}
}

func TestWrongResponderNeverLearnsWhoCalled(t *testing.T) {
	init, resp, other := newLocal(t), newLocal(t), newLocal(t)
	a, b := net.Pipe()
	ra := &recorder{Conn: a}
	ch := make(chan error, 1)
	go func() {
		_, err := Respond(context.Background(), b, resp, PurposeHop, Options{})
		ch <- err
	}()
	_, err := Initiate(context.Background(), ra, init, other.Identifier(), PurposeHop, nil, Options{})
	var ie *IdentityError
	if !errors.As(err, &ie) || ie.Got != resp.Identifier() || ie.Want != other.Identifier() {
		t.Errorf("Initiate = %v, want an IdentityError that names both", err)
	}
	if err := <-ch; err == nil {
		t.Error("the wrong responder accepted")
	}
	if want := preambleLen + headerLen + message1Len; len(ra.wire) != want {
		t.Errorf("the initiator sent %d bytes, want message 1's %d only", len(ra.wire), want)
	}
}

func TestRefusedBeforeMessage3IsSilent(t *testing.T) {
	tests := []struct{ name, send, want, step string }{
		{"another protocol", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", "preamble"},
		{"another version", "CVRT\x07\x01\x01\x00", "CVRT\x01", "version"},
		{"another purpose", "CVRT\x01\x01\x02\x00", "", "preamble"},
		{"unknown suite", "CVRT\x01\x09\x01\x00", "", "preamble"},
		{"reserved byte", "CVRT\x01\x01\x01\x01", "", "preamble"},
		{"message too long", "CVRT\x01\x01\x01\x00\xff\xff", "", "message 1"},
		{"message too short", "CVRT\x01\x01\x01\x00\x00\x10", "", "message 1"},
		{"garbage in message 1", "CVRT\x01\x01\x01\x00\x04\xc0" + strings.Repeat("\xff", message1Len), "", "message 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := tcpPair(t)
			ch := make(chan error, 1)
			go func() {
				_, err := Respond(context.Background(), b, newLocal(t), PurposeHop, Options{})
				ch <- err
			}()
			if _, err := a.Write([]byte(tt.send)); err != nil {
				t.Fatal(err)
			}
			err := <-ch
			var he *HandshakeError
			if !errors.As(err, &he) || he.Step != tt.step {
				t.Errorf("Respond = %v, want a failure at %q", err, tt.step)
			}
			got := make([]byte, 16)
			_ = a.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, _ := io.ReadFull(a, got)
			if string(got[:n]) != tt.want {
				t.Errorf("answered %q, want %q", got[:n], tt.want)
			}
			_ = a.Close()
		})
	}
}

func TestInitiatorSaysWhatAnswered(t *testing.T) {
	tests := []struct{ name, answer, want string }{
		{"newer version", "CVRT\x09", "peer speaks protocol version 9 at most, this side 1"},
		{"nothing", "", "peer closed without a word (is a Culvert of the right kind listening there?)"},
		{"another protocol", "SSH-2.0-OpenSSH_9.2p1\r\n", "message of 21331 bytes, at most 16384"},
		{"noise", "\x00\x10" + strings.Repeat("x", 16), "too short"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := tcpPair(t)
			go func() {
				_, _ = io.ReadFull(b, make([]byte, preambleLen+headerLen+message1Len))
				_, _ = b.Write([]byte(tt.answer))
				_ = b.Close()
			}()
			l := newLocal(t)
			_, err := Initiate(context.Background(), a, l, l.Identifier(), PurposeHop, nil, Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Initiate = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestHandshakeIsBounded(t *testing.T) {
	l := newLocal(t)
	t.Run("responder times out", func(t *testing.T) {
		a, b := tcpPair(t)
		defer a.Close()
		_, err := Respond(context.Background(), b, l, PurposeHop, Options{Timeout: 30 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "no answer within 30ms") {
			t.Errorf("Respond = %v", err)
		}
	})
	t.Run("initiator's context ends", func(t *testing.T) {
		a, b := tcpPair(t)
		defer b.Close()
		ctx, cancel := context.WithCancelCause(context.Background())
		cause := errors.New("program is stopping")
		cancel(cause)
		_, err := Initiate(ctx, a, l, l.Identifier(), PurposeHop, nil, Options{})
		if !errors.Is(err, cause) {
			t.Errorf("Initiate = %v, want %v", err, cause)
		}
	})
}

func TestRefuse(t *testing.T) {
	a, b := tcpPair(t)
	c, ans, err := handshakeOn(a, b, newLocal(t), newLocal(t), PurposeHop, nil, Options{})
	if err != nil || ans.err != nil {
		t.Fatalf("handshake: %v, %v", err, ans.err)
	}
	go func() { _ = ans.in.Refuse(code.ConnectDenied, "not on the list") }()
	_, err = c.Read(make([]byte, 1))
	var re *RefusedError
	if !errors.As(err, &re) || re.Code != code.ConnectDenied || re.Reason != "not on the list" {
		t.Errorf("Read = %v, want the refusal", err)
	}
	_ = c.Close()
}

// A payload that is wrong, by an initiator that is not this package's.
func TestResponderRefusesWrongPayloads(t *testing.T) {
	honest, other := newLocal(t), newLocal(t)
	foreign, err := other.shows(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	late, err := honest.id.Attest([32]byte{1}, time.Now().Add(10*time.Hour), time.Now().Add(11*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*payload)
		want   string
	}{
		{"another identity's history", func(p *payload) { p.History = other.id.History().Bytes() }, "attestation"},
		{"another identity's attestation", func(p *payload) { p.Attestation = foreign.attestation }, "attestation"},
		{"an attestation for another key", func(p *payload) { p.Attestation = late }, "attestation"},
		{"no history", func(p *payload) { p.History = nil }, "history"},
		{"short instance", func(p *payload) { p.Instance = []byte{1} }, "instance of 1 bytes"},
		{"too many credentials", func(p *payload) { p.Credentials = make([][]byte, 17) }, "17 credentials"},
		{"resume without an epoch", func(p *payload) {
			p.Request, _ = canon.Marshal(channelRequest{ID: make([]byte, 16), Mode: modeResume, Window: minWindow})
		}, "resume without an epoch"},
		{"new with a past", func(p *payload) {
			p.Request, _ = canon.Marshal(channelRequest{ID: make([]byte, 16), Mode: modeNew, Received: 1, Window: minWindow})
		}, "has a past"},
		{"no window", func(p *payload) {
			p.Request, _ = canon.Marshal(channelRequest{ID: make([]byte, 16), Mode: modeNew})
		}, "window of 0 bytes"},
		{"a name that is none", func(p *payload) { p.Name = "a b" }, "letters, digits"},
		{"channel without a name", func(p *payload) { p.Request, _ = canon.Marshal(channelRequest{Mode: modeNew}) }, "channel name of 0 bytes"},
		{"no request", func(p *payload) { p.Request = nil }, "channel request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := tcpPair(t)
			ch := make(chan error, 1)
			go func() {
				_, err := Respond(context.Background(), b, newLocal(t), PurposeChannel, Options{Linger: time.Second})
				ch <- err
			}()
			err := initiateWith(t, a, honest, tt.change)
			var re *RefusedError
			if !errors.As(err, &re) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("initiator reads %v, want a refusal that says %q", err, tt.want)
			}
			err = <-ch
			var he *HandshakeError
			if !errors.As(err, &he) {
				t.Fatalf("Respond: %v, want a HandshakeError", err)
			}
			// Only where nothing but the request is wrong has the caller proven who it is.
			if proven := he.Peer != nil; proven != (he.Step == "request") || proven && he.Peer.Identifier != honest.Identifier() {
				t.Errorf("Respond's error at %s names %+v", he.Step, he.Peer)
			}
		})
	}
}

// How far a peer's clock may be off is the process's own to say, 5 min if it does not.
func TestClockSkew(t *testing.T) {
	honest := newLocal(t)
	for _, tt := range []struct {
		skew, ahead time.Duration
		want        bool
	}{
		{0, 4 * time.Minute, true},
		{0, 6 * time.Minute, false},
		{time.Minute, 2 * time.Minute, false},
		{10 * time.Minute, 6 * time.Minute, true},
	} {
		a, b := tcpPair(t)
		responder := localWith(t, newIdentity(t), LocalConfig{Skew: tt.skew})
		ch := make(chan error, 1)
		go func() {
			in, err := Respond(context.Background(), b, responder, PurposeChannel, Options{})
			if err == nil {
				_ = in.Accept().Close()
			}
			ch <- err
		}()
		_ = initiateWith(t, a, honest, func(p *payload) {
			s, err := honest.shows(time.Now())
			if err == nil {
				from := time.Now().Add(tt.ahead)
				p.Attestation, err = honest.id.Attest([32]byte(s.static.PublicKey().Bytes()), from, from.Add(time.Hour))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		if err := <-ch; (err == nil) != tt.want || err != nil && !errors.Is(err, identity.ErrNotYetValid) {
			t.Errorf("skew %s, clock %s ahead: %v", tt.skew, tt.ahead, err)
		}
	}
}

// initiateWith is Initiate with a changed payload; it returns the first Read's
// error.
func initiateWith(t *testing.T, nc net.Conn, l *Local, change func(*payload)) error {
	t.Helper()
	h := &handshake{nc: nc, opt: Options{}.withDefaults()}
	s, err := l.shows(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	preamble := appendPreamble(nil, noise.AESGCM, PurposeChannel)
	ns, err := noise.New(noise.Config{Pattern: noise.XXhfs, Suite: noise.AESGCM, Initiator: true, Prologue: preamble, Static: s.static})
	if err != nil {
		t.Fatal(err)
	}
	request, err := anyRequest()
	if err != nil {
		t.Fatal(err)
	}
	p := payload{History: l.id.History().Bytes(), Attestation: s.attestation, Instance: l.instance[:], Request: request}
	change(&p)
	b, err := canon.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.writeMessage(ns, preamble, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.readMessage(ns, maxHandshakeMsg); err != nil {
		t.Fatal(err)
	}
	if err := h.writeMessage(ns, nil, b); err != nil {
		t.Fatal(err)
	}
	c, err := h.conn(ns, Peer{}, PurposeChannel)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestDataMayFollowMessage3AtOnce(t *testing.T) {
	a, b := tcpPair(t)
	l := newLocal(t)
	ch := make(chan answer, 1)
	ready := make(chan struct{})
	go func() {
		<-ready
		in, err := Respond(context.Background(), b, l, PurposeChannel, Options{})
		ch <- answer{in, err}
	}()
	go close(ready)
	c, err := Initiate(context.Background(), a, newLocal(t), l.Identifier(), PurposeChannel, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	ans := <-ch
	if ans.err != nil {
		t.Fatal(ans.err)
	}
	s := ans.in.Accept()
	got := make([]byte, 5)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "early" {
		t.Errorf("Read = %q, %v", got, err)
	}
	closeBoth(t, c, s)
}
