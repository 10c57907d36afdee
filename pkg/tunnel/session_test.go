package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
)

// TestLoss ends a session in several ways; every call that waits on either
// side returns a LossError, and streams that nobody touches are forgotten.
func TestLoss(t *testing.T) {
	for name, lose := range map[string]func(p *pair, a, b Carrier){
		"CutClient":   func(p *pair, a, b Carrier) { _ = a.(*plainCarrier).Conn.Close() },
		"CutServer":   func(p *pair, a, b Carrier) { _ = b.(*plainCarrier).Conn.Close() },
		"CloseClient": func(p *pair, a, b Carrier) { p.client.Close(code.Shutdown, "bye") },
		"CloseServer": func(p *pair, a, b Carrier) { p.server.Close(code.OK, "") },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := plainPair(t)
			p := startPair(t, a, b, Config{}, Config{})
			c, s := p.open(t)
			fill(t, c)
			idle, _ := p.open(t)
			unread := p.request(t)
			request := p.accept(t)
			waits := map[string]<-chan error{
				"client Write":    blocked(t, c),
				"client Read":     async(func() error { _, err := c.Read(make([]byte, 1)); return err }),
				"client Answered": async(func() error { return unread.Answered(context.Background()) }),
				"server Read": async(func() error {
					_, err := io.Copy(io.Discard, struct{ io.Reader }{idle})
					return err
				}),
				"server Accept": async(func() error { _, err := p.server.Accept(context.Background()); return err }),
			}
			lose(p, a, b)
			for what, ch := range waits {
				t.Log(what)
				wantLoss(t, await(t, ch, what))
			}
			await(t, request.st.gone, "the end of the request")
			for _, sess := range []*Session{p.client, p.server} {
				await(t, sess.Done(), "the session's end")
				if n := sess.Streams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			}
			_, err := p.client.Open(soon(t), Open{Service: "db"})
			wantLoss(t, err)
			n, err := io.Copy(io.Discard, struct{ io.Reader }{s})
			wantLoss(t, err)
			t.Logf("read %d bytes that were there", n)
			_, err = s.Write([]byte("x"))
			wantLoss(t, err)
			wantLoss(t, s.CloseWrite())
			if _, err := request.Accept(); err == nil {
				t.Error("Accept of a request of a lost session: no error")
			}
		})
	}
}

// TestLossKeepsFin: a stream that was read to its end stays cleanly ended.
func TestLossKeepsFin(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	_ = c.CloseWrite()
	if _, err := io.ReadAll(s); err != nil {
		t.Fatal(err)
	}
	p.close(t)
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want io.EOF: the end had come before the loss", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == io.EOF {
		t.Error("a lost stream reads as cleanly ended")
	}
}

// TestReason: the peer's reason to end the channel is what streams are lost
// for.
func TestReason(t *testing.T) {
	a, b := channelPair(t)
	p := startPair(t, a, b, Config{}, Config{})
	c, _ := p.open(t)
	p.server.Close(code.Shutdown, "going home")
	_, err := c.Read(make([]byte, 1))
	wantLoss(t, err)
	var ce *channel.CloseError
	if !errors.As(err, &ce) || ce.Code != code.Shutdown || ce.Reason != "going home" {
		t.Errorf("got %v, want the peer's reason", err)
	}
	await(t, p.client.Done(), "the client's end")
	if got := CodeOf(err); got != code.ChannelLost {
		t.Errorf("CodeOf: got %v, want %v", got, code.ChannelLost)
	}
}

func TestRunContext(t *testing.T) {
	a, b := plainPair(t)
	defer b.Close()
	s := NewClient(a, Config{})
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	done := async(func() error { return s.Run(ctx) })
	cancel(stop)
	if err := await(t, done, "Run"); err != stop || s.Err() != stop {
		t.Errorf("got %v and Err %v, want ctx's cause", err, s.Err())
	}
	if got := a.(*plainCarrier).code; got != code.Shutdown {
		t.Errorf("carrier closed with %v, want %v", got, code.Shutdown)
	}
}

// TestStuckCarrier closes a session whose carrier nobody reads: all calls
// return soon, and nothing spins meanwhile.
func TestStuckCarrier(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	s := NewClient(plain(here), Config{})
	run(t, s)
	opens := make(chan error, 20)
	for range cap(opens) {
		go func() {
			_, err := s.Open(context.Background(), Open{Service: "db"})
			opens <- err
		}()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Open(ctx, Open{Service: "db"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open on a stuck carrier: got %v, want ctx's error", err)
	}
	start, before := time.Now(), cpuTime(t)
	s.Close(code.OK, "")
	for range cap(opens) {
		wantLoss(t, await(t, opens, "Open"))
	}
	await(t, s.Done(), "the session's end")
	if took := time.Since(start); took > patience {
		t.Errorf("closing took %v", took)
	}
	if used := cpuTime(t) - before; used > time.Second {
		t.Errorf("closing used %v of CPU time", used)
	}
}

// TestStuckInMidStream is TestStuckCarrier with hundreds of streams, whose
// Reads and Writes wait: the way to the peer is stopped while they run. yamux's
// Reads spin while it shuts down, so none may be left in one by then: with all
// of them this used to take seconds of both cores.
func TestStuckInMidStream(t *testing.T) {
	for name, end := range map[string]func(s *Session, v *valve){
		"Close":      func(s *Session, _ *valve) { s.Close(code.OK, "") },
		"Cut":        func(_ *Session, v *valve) { _ = v.Carrier.(*plainCarrier).Conn.Close() },
		"WriteFails": func(_ *Session, v *valve) { v.fail() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := plainPair(t)
			valve := newValve(a)
			p := startPair(t, valve, b, Config{}, Config{})
			reset, waits := p.stick(t, valve, 300)
			start, before := time.Now(), cpuTime(t)
			end(p.client, valve)
			for range cap(reset) {
				wantReset(t, await(t, reset, "a call on a reset stream"), code.ClientReset, false)
			}
			for range cap(waits) {
				wantLoss(t, await(t, waits, "a call on a stuck session"))
			}
			await(t, p.client.Done(), "the session's end")
			if took, used := time.Since(start), cpuTime(t)-before; took > patience || used > time.Second {
				t.Errorf("closing took %v and %v of CPU time", took, used)
			}
			if n := p.client.Streams(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
		})
	}
}

// TestEndWhileStreamEnds has a session end between the two halves of a stream's
// own end: none is listed once Run has returned.
func TestEndWhileStreamEnds(t *testing.T) {
	p := newPair(t, Config{})
	client, _ := p.open(t)
	e := ending{err: &ResetError{Code: code.Aborted}, deserted: true}
	if !client.conclude(e) {
		t.Fatal("the stream had ended before")
	}
	p.client.Close(code.OK, "")
	await(t, p.client.Done(), "the session's end")
	if n := p.client.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	client.leave(e)
}

// stick opens streams, stops the client's carrier and has a Read and a Write
// wait on each, and an Open. The first stream is reset.
func (p *pair) stick(t *testing.T, v *valve, n int) (reset, waits chan error) {
	t.Helper()
	streams := make([]*Stream, n)
	for i := range streams {
		streams[i], _ = p.open(t)
	}
	v.shut()
	reset, waits = make(chan error, 2), make(chan error, 2*n-1)
	for i, st := range streams {
		to := waits
		if i == 0 {
			to = reset
		}
		go func() { to <- <-blocked(t, st) }()
		go func() {
			_, err := st.Read(make([]byte, 1))
			to <- err
		}()
	}
	go func() {
		_, err := p.client.Open(context.Background(), Open{Service: "db"})
		waits <- err
	}()
	_ = streams[0].Reset(code.ClientReset) // its goodbye is stuck too
	eventually(t, "the gate is full", func() bool { return p.client.gateFree() < 64<<10 })
	return reset, waits
}

func TestDrain(t *testing.T) {
	p := newPair(t, Config{})
	c, s := p.open(t)
	p.server.Drain("restart")
	p.server.Drain("again")
	await(t, p.client.Draining(), "DRAIN")
	if _, err := p.client.Open(soon(t), Open{Service: "db"}); !errors.Is(err, ErrDraining) {
		t.Errorf("Open: got %v, want ErrDraining", err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Errorf("streams that are open go on: %v", err)
	}
}

func TestTooMany(t *testing.T) {
	a, b := plainPair(t)
	p := startPair(t, a, b, Config{MaxStreams: 3}, Config{MaxStreams: 2})
	var open []*Stream
	for range 2 {
		c, s := p.open(t)
		open = append(open, c, s)
	}
	// The acceptor's limit.
	third := p.request(t)
	if _, err := p.client.Open(soon(t), Open{Service: "db"}); !errors.Is(err, ErrTooMany) || !strings.Contains(err.Error(), ": 3 are open") {
		t.Errorf("Open beyond the own limit: got %v, want ErrTooMany and how many", err)
	}
	var re *RefusedError
	if err := third.Answered(soon(t)); !errors.As(err, &re) || re.Code != code.Limit {
		t.Errorf("beyond the acceptor's limit: got %v, want a refusal with %v", err, code.Limit)
	}
	for _, st := range open {
		_ = st.Close()
	}
	p.forgotten(t)
	p.open(t)
}

// TestManyRefused: a small acceptor refuses a busy opener's streams without
// taking their number for an attack.
func TestManyRefused(t *testing.T) {
	a, b := plainPair(t)
	p := startPair(t, a, b, Config{}, Config{MaxStreams: 1})
	p.open(t)
	const workers, rounds = backlog + 200, 4
	errs := make(chan error, workers)
	for range workers {
		go func() {
			for range rounds {
				st, err := p.client.Open(context.Background(), Open{Service: "db"})
				if err == nil {
					err = st.Answered(context.Background())
				}
				if CodeOf(err) != code.Limit {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range workers {
		if err := awaitFor(t, 4*patience, errs, "a worker"); err != nil {
			t.Fatalf("got %v, want refusals with %v", err, code.Limit)
		}
	}
	if err := p.server.Err(); err != nil {
		t.Errorf("server's session: %v", err)
	}
}

func TestAnsweredContext(t *testing.T) {
	p := newPair(t, Config{})
	st := p.request(t)
	for range 200 {
		ctx, cancel := context.WithCancelCause(context.Background())
		why := errors.New("given up")
		go cancel(why)
		if err := st.Answered(ctx); err != why {
			t.Fatalf("Answered: got %v, want ctx's cause", err)
		}
	}
	s, err := p.accept(t).Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write([]byte("x"))
	if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
		t.Errorf("Read after Answered was given up: %v", err)
	}
	st2 := p.request(t)
	_ = st2.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := st2.Answered(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := st2.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("the read deadline is lost: got %v", err)
	}
}

func TestOpenContext(t *testing.T) {
	a, b := plainPair(t)
	defer b.Close()
	s := NewClient(a, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Open(ctx, Open{Service: "db"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Open before Run: got %v, want context.Canceled", err)
	}
	for name, o := range map[string]Open{
		"empty": {}, "long": {Service: string(make([]byte, 254))}, "newline": {Service: "a\nb"},
		"address": {Service: "a", ClientAddress: string(make([]byte, 257))}, "utf8": {Service: "\xff"},
	} {
		if _, err := s.Open(context.Background(), o); err == nil {
			t.Errorf("Open with %s: no error", name)
		}
	}
	if len(s.slots) != 0 || len(s.unacked) != 0 {
		t.Error("a failed Open kept its place")
	}
}

// TestControlIsFirst: streams opened the moment the session starts do not take
// the control stream's number.
func TestControlIsFirst(t *testing.T) {
	for range 50 {
		a, b := plainPair(t)
		client, server := NewClient(a, Config{}), NewServer(b, Config{})
		const n = 4
		ids := make(chan uint32, n)
		for range n {
			go func() {
				var id uint32
				if st, err := client.Open(context.Background(), Open{Service: "db"}); err == nil {
					id = st.ID()
				}
				ids <- id
			}()
		}
		p := &pair{client, server}
		go func() { _ = client.Run(context.Background()) }()
		go func() { _ = server.Run(context.Background()) }()
		for range n {
			if id := await(t, ids, "Open"); id <= controlStream {
				t.Errorf("got stream %d, want one after the control stream", id)
			}
			p.accept(t)
		}
		p.close(t)
	}
}

// TestOnCancel: the func is called once, whether the stream ends before or after
// it was given, and not when it was taken back.
func TestOnCancel(t *testing.T) {
	p := newPair(t, Config{})
	for _, tc := range []struct {
		name        string
		early, late bool // given before the stream ends, after it
	}{{"before", true, false}, {"after", false, true}, {"taken back", false, false}} {
		t.Run(tc.name, func(t *testing.T) {
			st := p.request(t)
			r := p.accept(t)
			called := make(chan struct{}, 2)
			f := func() { called <- struct{}{} }
			r.OnCancel(f)
			if !tc.early {
				r.OnCancel(nil)
			}
			_ = st.Reset(code.ClientReset)
			// Its ABORT is there at once; a reader would come to the RST.
			go func() { _, _ = r.st.Read(make([]byte, 1)) }()
			await(t, r.st.gone, "the stream's end")
			if tc.late {
				r.OnCancel(f)
			}
			if tc.early || tc.late {
				await(t, called, "the call")
			}
			r.Refuse(code.Aborted, "")
			if n := len(called); n > 0 {
				t.Errorf("called %d times too often", n)
			}
		})
	}
	p.forgotten(t)
}
