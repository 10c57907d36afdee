package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// A rawPeer is one side of a path, with the keys to say whatever a test wants.
type rawPeer struct {
	t testing.TB
	*Conn
}

// rawInitiator makes a path to the lab's table, as local.
func (l *lab) rawInitiator(local *Local, r channelRequest) *rawPeer {
	l.t.Helper()
	nc, err := l.path(context.Background(), 0)
	if err != nil {
		l.t.Fatal(err)
	}
	request, err := r.encode()
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := Initiate(context.Background(), nc, local, l.local.Identifier(), PurposeChannel, request, Options{Linger: time.Second})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = nc.Close(); _ = p.Close() })
	return &rawPeer{l.t, p}
}

// rawOpen opens a channel whose initiator is the test.
func (l *lab) rawOpen() (*rawPeer, *Channel, ID) {
	l.t.Helper()
	id, err := newID()
	if err != nil {
		l.t.Fatal(err)
	}
	p := l.rawInitiator(l.caller.Local, channelRequest{ID: id[:], Mode: modeNew, Window: maxWindow})
	y := <-l.opened
	l.run(y)
	if a := p.attached(); a != (attached{window: maxWindow}) {
		l.t.Fatalf("ATTACHED to a new channel = %+v", a)
	}
	return p, y, id
}

// say sends records.
func (p *rawPeer) say(plain ...[]byte) {
	p.t.Helper()
	if _, err := p.nc.Write(forge(p.t, p.Conn, plain...)); err != nil {
		p.t.Fatal(err)
	}
}

// hear returns the next record, but for PINGs and PONGs.
func (p *rawPeer) hear() (t recordType, body []byte, err error) {
	_ = p.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	p.readMu.Lock()
	defer p.readMu.Unlock()
	for t == 0 || t == typePing || t == typePong {
		if err := p.awaitLocked(); err != nil {
			return 0, nil, err
		}
		n := p.recordLenLocked()
		sealed := p.buf[p.r+headerLen : p.r+headerLen+n]
		p.r += headerLen + n
		plain, err := p.openLocked(sealed)
		if err != nil {
			return 0, nil, err
		}
		t, body = recordType(plain[0]), append([]byte(nil), plain[typeLen:]...)
	}
	return t, body, nil
}

// want returns the body of the next record, which is to be of type t, ACKs
// before it left out.
func (p *rawPeer) want(t recordType) []byte {
	p.t.Helper()
	for {
		got, body, err := p.hear()
		if err == nil && got == typeAck && t != typeAck {
			continue
		}
		if err != nil || got != t {
			p.t.Fatalf("next record is of type %d, %v; want type %d", got, err, t)
		}
		return body
	}
}

func (p *rawPeer) attached() attached {
	p.t.Helper()
	a, err := parseAttached(p.want(typeAttached))
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// wantRefused wants that the peer refuses the path with cd.
func (p *rawPeer) wantRefused(cd code.Code) {
	p.t.Helper()
	got, _, err := parseCodeReason(p.want(typeRefused))
	if err != nil || got != cd {
		p.t.Errorf("refused with %v, %v; want %v", got, err, cd)
	}
}

// wantComplaint wants a CLOSE of code protocol and then the end, whatever comes
// before it.
func (p *rawPeer) wantComplaint() {
	p.t.Helper()
	for {
		got, body, err := p.hear()
		switch {
		case err != nil:
			p.t.Errorf("the path ends with %v, without a complaint", err)
			return
		case got != typeClose:
			continue
		}
		if _, cd, _, err := parseClose(body); err != nil || cd != code.Protocol {
			p.t.Errorf("CLOSE with %v, %v; want protocol", cd, err)
		}
		return
	}
}

// wantEnd wants that the path ends without another word.
func (p *rawPeer) wantEnd() {
	p.t.Helper()
	got, body, err := p.hear()
	if err == nil {
		p.t.Errorf("a record of type %d: %x; want the path's end", got, body)
	}
}

func ackOf(offset uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(typeAck)}, offset)
}

func attachedOf(a attached) []byte { return a.append([]byte{byte(typeAttached)}) }

// wantLost wants that the channel is over with cd, for its Reads too, and soon.
func wantLost(t testing.TB, c *Channel, cd code.Code) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the channel goes on")
	}
	_, err := c.Read(make([]byte, 1))
	var lost *LostError
	if !errors.As(err, &lost) || lost.Code != cd {
		t.Errorf("Read = %v, want a LostError of %v", err, cd)
	}
	if errors.Is(err, io.EOF) {
		t.Errorf("Read = %v, which passes for a clean end", err)
	}
}
