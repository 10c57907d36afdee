package tunnel

import (
	"errors"
	"testing"
)

// A peer that is refused streams and closes none of them makes this side's mux know no
// more than it may.
func TestRefusedAndNotClosedAreBounded(t *testing.T) {
	x, y := tcpPair(t)
	const most = 8
	s := NewServer(plain(x), Config{MaxStreams: 2, Unanswered: most})
	done := async(func() error { return s.Run(soon(t)) })
	t.Cleanup(func() { _ = y.Close() })
	go discardAll(y)
	h := &hoarder{Conn: y, t: t, last: controlStream, server: s}
	h.send(syn(controlStream))
	for range 2 + most {
		h.last += 2
		h.send(syn(h.last))
	}
	eventually(t, "all of them are known", func() bool { return s.adapter.windows.count() == 1+2+most })
	select {
	case <-s.Lost():
		t.Fatalf("the session is over: %v", s.Err())
	default:
	}
	for range 2 {
		h.last += 2
		_, _ = h.Write(syn(h.last)) // the session may be over
	}
	err := await(t, done, "the end of the session")
	if !errors.Is(err, errProtocol) {
		t.Errorf("the session ended with %v, want a protocol error", err)
	}
}
