package channel

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// Whoever is not the channel's own initiator cannot resume it, whatever he
// knows of it, and the channel does not notice.
func TestStrangerCannotResume(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	x, y := l.open()
	id := x.ID()
	another, err := NewLocal(l.caller.Local.id)
	if err != nil {
		t.Fatal(err)
	}
	for name, local := range map[string]*Local{"another identity": newLocal(t), "another instance": another} {
		p := l.rawInitiator(local, channelRequest{ID: id[:], Mode: modeResume, Epoch: 1 << 60, Window: maxWindow})
		p.wantRefused(code.UnknownChannel)
		// A new one of the same name is not the same.
		p = l.rawInitiator(local, channelRequest{ID: id[:], Mode: modeNew, Window: maxWindow})
		if c := <-l.opened; c == y {
			t.Errorf("%s got the channel", name)
		} else {
			l.run(c)
		}
		p.attached()
	}
	if _, err := x.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(y, got); err != nil || string(got) != "still here" {
		t.Errorf("Read = %q, %v", got, err)
	}
	if s := y.State(); s.Epoch != 0 {
		t.Errorf("the channel's epoch is %d, want 0", s.Epoch)
	}
	closeChannels(t, x, y)
}

// Requests that no initiator makes are refused; only those that lie about what
// was received end the channel.
func TestLyingResume(t *testing.T) {
	tests := []struct {
		name  string
		lie   func(*channelRequest)
		want  code.Code
		fatal bool
	}{
		{"from the future", func(r *channelRequest) { r.Received = 6 }, code.Protocol, true},
		{"far future", func(r *channelRequest) { r.Received = 1 << 63 }, code.Protocol, true},
		{"old epoch", func(r *channelRequest) { r.Epoch = 6 }, code.Stale, false},
		{"equal epoch", func(r *channelRequest) { r.Epoch = 7 }, code.Stale, false},
		{"no epoch", func(r *channelRequest) { r.Epoch = 0 }, code.Protocol, false},
		{"small window", func(r *channelRequest) { r.Window = minWindow - 1 }, code.Protocol, false},
		{"new again", func(r *channelRequest) { *r = channelRequest{ID: r.ID, Mode: modeNew, Window: maxWindow} }, code.Protocol, false},
		{"no such mode", func(r *channelRequest) { r.Mode = 3 }, code.Protocol, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 1, Settings{}, Timing{}, Limits{})
			p, y, id := l.rawOpen()
			if _, err := y.Write([]byte("01234")); err != nil {
				t.Fatal(err)
			}
			p.want(typeData)
			r := channelRequest{ID: id[:], Mode: modeResume, Epoch: 7, Received: 3, Window: maxWindow}
			p = l.rawInitiator(l.caller.Local, r)
			if a, want := p.attached(), (attached{epoch: 7, start: 3, window: maxWindow}); a != want {
				t.Fatalf("ATTACHED = %+v, want %+v", a, want)
			}
			if got := p.want(typeData); string(got) != "34" {
				t.Fatalf("the new path brings %q, want what is missing", got)
			}
			r.Epoch = 8
			tt.lie(&r)
			l.rawInitiator(l.caller.Local, r).wantRefused(tt.want)
			if tt.fatal {
				p.wantEnd()
				wantLost(t, y, tt.want)
				return
			}
			p.say(record(typeData, "on"))
			got := make([]byte, 2)
			if _, err := io.ReadFull(y, got); err != nil || string(got) != "on" {
				t.Errorf("Read = %q, %v; want the channel to go on", got, err)
			}
		})
	}
}

// What an initiator with the keys may not say ends the channel and no other.
func TestLyingInitiator(t *testing.T) {
	tests := []struct {
		name string
		say  [][]byte
	}{
		{"ACK too high", [][]byte{ackOf(6)}},
		{"ACK far too high", [][]byte{ackOf(1 << 63)}},
		{"ACK goes back", [][]byte{ackOf(4), ackOf(3)}},
		{"short ACK", [][]byte{ackOf(0)[:8]}},
		{"long ACK", [][]byte{append(ackOf(0), 0)}},
		{"CLOSE too early", [][]byte{record(typeData, "abc"), appendClose(nil, 2, code.OK, "")}},
		{"CLOSE too late", [][]byte{record(typeData, "abc"), appendClose(nil, 4, code.OK, "")}},
		{"CLOSE with a code, too late", [][]byte{appendClose(nil, 1, code.Internal, "")}},
		{"short CLOSE", [][]byte{appendClose(nil, 0, code.OK, "")[:closeFixed]}},
		{"ATTACHED", [][]byte{attachedOf(attached{window: maxWindow})}},
		{"REFUSED", [][]byte{appendRefused(nil, code.Busy, "")}},
		{"empty DATA", [][]byte{record(typeData, "")}},
		{"type 99", [][]byte{record(99, "x")}},
		{"DATA beyond the window", fillWindow(1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 1, Settings{Window: minWindow}, Timing{}, Limits{})
			other, otherEnd := l.open()
			id, _ := newID()
			p := l.rawInitiator(l.caller.Local, channelRequest{ID: id[:], Mode: modeNew, Window: maxWindow})
			y := <-l.opened
			l.run(y)
			p.attached()
			if _, err := y.Write([]byte("01234")); err != nil {
				t.Fatal(err)
			}
			p.want(typeData)
			p.say(tt.say...)
			p.wantComplaint()
			wantLost(t, y, code.Protocol)
			closeChannels(t, other, otherEnd)
			if used := l.table.set.Buffers.Used(); used != 0 {
				t.Errorf("%d bytes are still held", used)
			}
		})
	}
}

// fillWindow returns records of the smallest window and more bytes.
func fillWindow(more int) (list [][]byte) {
	for range minWindow / (32 << 10) {
		list = append(list, append([]byte{byte(typeData)}, make([]byte, 32<<10)...))
	}
	return append(list, record(typeData, strings.Repeat("x", more)))
}

// Nothing comes after the peer's end.
func TestNothingAfterTheChannelsClose(t *testing.T) {
	l := newLab(t, 1, Settings{Linger: time.Second}, Timing{}, Limits{})
	p, y, _ := l.rawOpen()
	p.say(record(typeData, "abc"), appendClose(nil, 3, code.OK, ""), record(typeData, "def"))
	got, err := io.ReadAll(y)
	if err != nil || string(got) != "abc" {
		t.Errorf("ReadAll = %q, %v; want abc, nil", got, err)
	}
	if n, err := y.Read(make([]byte, 9)); n != 0 || err != io.EOF {
		t.Errorf("Read after the end = %d, %v; want io.EOF", n, err)
	}
	if n, err := y.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("Write after the peer's end = %d, %v; want an error", n, err)
	}
	if got := binaryAck(t, p); got != 4 {
		t.Errorf("ACK of %d, want 4: the CLOSE counts", got)
	}
	_ = y.Close()
}

func binaryAck(t *testing.T, p *rawPeer) (last uint64) {
	t.Helper()
	for last < 4 {
		b := p.want(typeAck)
		if len(b) != ackLen {
			t.Fatalf("ACK of %d bytes", len(b))
		}
		last = uint64(b[7])
	}
	return last
}

// The first ACK on a new path may be ahead of what that path has brought
// again: the initiator has read the old one meanwhile. All of it comes again
// all the same, in order.
func TestAckAheadOfTheNewPath(t *testing.T) {
	// A path that takes less than is to come again.
	l := newLabOn(t, memPair, 1, Settings{}, Timing{}, Limits{})
	p, y, id := l.rawOpen()
	knownFast(y)
	drainAll(t, y)
	data := bytes.Repeat([]byte("0123456789abcdef"), 256<<10)
	written := make(chan error, 1)
	go func() {
		_, err := y.Write(data)
		written <- err
	}()
	received := 0
	for received < len(data) {
		received += len(p.want(typeData))
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	p = l.rawInitiator(l.caller.Local, channelRequest{ID: id[:], Mode: modeResume, Epoch: 1, Received: 16, Window: maxWindow})
	p.attached()
	p.say(ackOf(uint64(len(data)))) // read from the old path
	waitState(t, y, "the ACK counts for what was sent again", func(s State) bool { return s.Kept < len(data) })
	var again []byte
	for len(again) < len(data)-16 {
		again = append(again, p.want(typeData)...)
	}
	if !bytes.Equal(again, data[16:]) {
		t.Error("the new path does not bring what ATTACHED has said")
	}
	waitState(t, y, "nothing is kept once all was sent again", func(s State) bool { return s.Kept == 0 })
	// From then on nothing comes again that was acknowledged.
	p = l.rawInitiator(l.caller.Local, channelRequest{ID: id[:], Mode: modeResume, Epoch: 2, Received: 16, Window: maxWindow})
	if a := p.attached(); a.start != uint64(len(data)) {
		t.Errorf("ATTACHED from byte %d, want %d", a.start, len(data))
	}
}

// What is read after the peer's CLOSE is not acknowledged once more.
func TestAckAfterTheChannelsClose(t *testing.T) {
	l := newLab(t, 1, Settings{}, Timing{}, Limits{})
	p, y, _ := l.rawOpen()
	data := fillWindow(50_000)
	size := uint64(minWindow + 50_000)
	p.say(append(data, appendClose(nil, size, code.OK, ""))...)
	waitState(t, y, "the stand-in has taken all", func(s State) bool { return s.Received == size+1 })
	if n, err := io.Copy(io.Discard, onlyReader{y}); n != int64(size) || err != nil {
		t.Errorf("read %d bytes, %v; want %d", n, err, size)
	}
	go func() { _ = y.Close() }()
	for {
		typ, body, err := p.hear()
		if err != nil || typ == typeClose {
			break
		}
		if typ == typeAck && binary.BigEndian.Uint64(body) > size+1 {
			t.Fatalf("ACK of %d, %d were sent with the CLOSE", binary.BigEndian.Uint64(body), size+1)
		}
	}
}
