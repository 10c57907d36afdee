package tunnel

import (
	"errors"
	"io"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

// A session is settled when the peer has ended its streams, too, however they ended: a
// Close behind that takes the end from none of them.
func TestSettled(t *testing.T) {
	for name, end := range map[string]func(st *Stream){
		"closed": func(st *Stream) { _ = st.Close() },
		"reset":  func(st *Stream) { _ = st.Reset(code.Aborted) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := channelPair(t)
			p := startPair(t, a, b, Config{}, Config{})
			if eventually(t, "there is nothing to settle", p.client.Settled); p.client.Streams() != 0 {
				t.Fatal("there are streams")
			}
			c, s := p.open(t)
			if p.client.Settled() {
				t.Error("settled while a stream is open")
			}
			end(c)
			eventually(t, "this side knows the stream no more", func() bool { return p.client.Streams() == 0 })
			if name == "closed" && p.client.Settled() { // a reset ends the stream there by itself
				t.Error("settled before the peer's program has read the end")
			}
			_, err := s.Read(make([]byte, 1))
			var reset *ResetError
			if name == "closed" && !errors.Is(err, io.EOF) || name == "reset" && (!errors.As(err, &reset) || reset.Code != code.Aborted) {
				t.Errorf("the peer reads %v", err)
			}
			_ = s.Close()
			eventually(t, "it is settled", p.client.Settled)
			p.client.Close(code.OK, "")
			if err := s.overErr(); name == "reset" && !errors.As(err, &reset) {
				t.Errorf("the peer's stream has ended with %v", err)
			}
		})
	}
	if NewClient(plain(nil), Config{}).Settled() {
		t.Error("settled before Run")
	}
}
