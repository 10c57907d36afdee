package channel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// What a live side sends before it has read anything that depends on the other
// can be played from a record: the side that reads it cannot tell.
func TestRecordedHandshakeCutAtEveryLength(t *testing.T) {
	t.Parallel()
	init, resp := newLocal(t), newLocal(t)
	a, b := net.Pipe()
	ra, rb := &recorder{Conn: a}, &recorder{Conn: b}
	c, ans, err := handshakeOn(ra, rb, init, resp, PurposeHop, []byte("request"), Options{Linger: time.Millisecond})
	if err != nil || ans.err != nil {
		t.Fatalf("handshake: %v, %v", err, ans.err)
	}
	first, second := ra.wire[:preambleLen+headerLen+message1Len], rb.wire
	_ = a.Close()
	_ = c.Close()
	_ = ans.in.Accept().Close()

	for i := range first {
		a, b := net.Pipe()
		go func() { _, _ = a.Write(first[:i]); _ = a.Close() }()
		if _, err := Respond(context.Background(), b, resp, PurposeHop, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("initiator cut at %d: %v, want io.ErrUnexpectedEOF", i, err)
		}
	}
	for i := range second {
		a, b := net.Pipe()
		go func() {
			_, _ = io.CopyN(io.Discard, b, int64(len(first)))
			_, _ = b.Write(second[:i])
			_ = b.Close()
		}()
		if _, err := Initiate(context.Background(), a, init, resp.Identifier(), PurposeHop, nil, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("responder cut at %d: %v, want io.ErrUnexpectedEOF", i, err)
		}
	}
}

// delayConn hands its writes on all at once, when it is released.
type delayConn struct {
	net.Conn
	hold bool
	wire []byte
}

func (c *delayConn) Write(p []byte) (int, error) {
	if !c.hold {
		return c.Conn.Write(p)
	}
	c.wire = append(c.wire, p...)
	return len(p), nil
}

func (c *delayConn) release() error {
	c.hold = false
	_, err := c.Conn.Write(c.wire)
	return err
}

// Far more than the responder's buffer comes in one piece with message 3.
func TestMuchDataFollowsMessage3(t *testing.T) {
	a, b := tcpPair(t)
	d := &delayConn{Conn: a}
	resp := newLocal(t)
	ch := make(chan answer, 1)
	go func() {
		in, err := Respond(context.Background(), b, resp, PurposeChannel, Options{})
		ch <- answer{in, err}
	}()
	x, err := Initiate(context.Background(), holdMessage3{d}, newLocal(t), resp.Identifier(), PurposeChannel, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 3<<10) // 3 times maxHandshakeMsg
	for p := want; len(p) > 0; p = p[4<<10:] {
		if _, err := x.Write(p[:4<<10]); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.release(); err != nil {
		t.Fatal(err)
	}
	ans := <-ch
	if ans.err != nil {
		t.Fatal(ans.err)
	}
	y := ans.in.Accept()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(y, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadFull = %v, bytes equal: %t", err, bytes.Equal(got, want))
	}
	closeBoth(t, x, y)
}

// holdMessage3 begins to hold writes once something has been read: message 2.
type holdMessage3 struct{ *delayConn }

func (c holdMessage3) Read(p []byte) (int, error) {
	n, err := c.delayConn.Read(p)
	c.hold = c.wire == nil && n > 0
	return n, err
}

// A responder has no keys for records before message 3: what it sends behind
// message 2 is none.
func TestDataBeforeMessage3IsRefused(t *testing.T) {
	a, b := tcpPair(t)
	early := binary.BigEndian.AppendUint16(nil, 40)
	early = append(early, make([]byte, 40)...)
	x, y := connPair(t, a, appendConn{b, early}, Options{})
	if _, err := x.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("Read = %v, want an error that is no end of data", err)
	}
	_ = x.Close()
	_ = y.Close()
}

// appendConn adds some bytes to message 2, the only long thing that is written.
type appendConn struct {
	net.Conn
	tail []byte
}

func (c appendConn) Write(p []byte) (int, error) {
	if len(p) < 1000 {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write(append(bytes.Clone(p), c.tail...))
	return len(p), err
}

// deadlines remembers the last one that was set.
type deadlines struct {
	net.Conn
	last time.Time
	err  error
}

func (c *deadlines) SetDeadline(t time.Time) error {
	if c.err != nil {
		return c.err
	}
	c.last = t
	return c.Conn.SetDeadline(t)
}

func TestHandshakeLeavesNoDeadline(t *testing.T) {
	a, b := tcpPair(t)
	da, db := &deadlines{Conn: a}, &deadlines{Conn: b}
	x, y := connPair(t, da, db, Options{Timeout: time.Minute})
	if !da.last.IsZero() || !db.last.IsZero() {
		t.Errorf("deadlines %v and %v are left, want none", da.last, db.last)
	}
	closeBoth(t, x, y)
}

// A path without deadlines would make time-outs, contexts and Close wait for
// ever.
func TestPathWithoutDeadlinesIsRefused(t *testing.T) {
	l := newLocal(t)
	a, b := net.Pipe()
	want := errors.New("no deadlines here")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _, _ = a.Close(), b.Close() })()
	var he *HandshakeError
	_, err := Respond(ctx, &deadlines{Conn: a, err: want}, l, PurposeHop, Options{})
	if !errors.As(err, &he) || !errors.Is(err, want) {
		t.Errorf("Respond = %v, want a HandshakeError about deadlines", err)
	}
	_, err = Initiate(ctx, &deadlines{Conn: b, err: want}, l, l.Identifier(), PurposeHop, nil, Options{})
	if !errors.As(err, &he) || !errors.Is(err, want) {
		t.Errorf("Initiate = %v, want a HandshakeError about deadlines", err)
	}
}

// cancelConn ends a context just before the handshake's last write.
type cancelConn struct {
	net.Conn
	cancel context.CancelCauseFunc
	cause  error
	writes int
}

func (c *cancelConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.writes++; c.writes == 2 {
		c.cancel(c.cause)
	}
	return n, err
}

func TestContextThatEndsWithTheHandshakeTellsWhy(t *testing.T) {
	a, b := tcpPair(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	want := errors.New("program is stopping")
	resp := newLocal(t)
	ch := make(chan answer, 1)
	go func() {
		in, err := Respond(context.Background(), b, resp, PurposeHop, Options{Linger: time.Millisecond})
		ch <- answer{in, err}
	}()
	_, err := Initiate(ctx, &cancelConn{Conn: a, cancel: cancel, cause: want}, newLocal(t), resp.Identifier(), PurposeHop, nil, Options{})
	if !errors.Is(err, want) {
		t.Errorf("Initiate = %v, want %v", err, want)
	}
	if ans := <-ch; ans.err == nil {
		_ = ans.in.Accept().Close()
	}
}
