package tunnel

import (
	"io"
	"net"

	"github.com/culvert-net/culvert/internal/sock"
)

// A source reads straight behind the place of a frame's header.
type source struct {
	r     io.Reader
	ready sock.ReadyReader // nil when r is no conn
	buf   *frameBuf
	room  int
	get   func() []byte
	put   func([]byte)
}

func newSource(r io.Reader) *source {
	s := &source{r: r}
	switch r := r.(type) {
	case sock.ReadyReader:
		s.ready = r
	case net.Conn:
		s.ready = sock.NewReader(r)
	}
	s.get = func() []byte {
		s.buf = frameBufs.Get().(*frameBuf)
		return s.buf[frameHeader : frameHeader+s.room]
	}
	s.put = func([]byte) {
		frameBufs.Put(s.buf)
		s.buf = nil
	}
	return s
}

// next reads up to room bytes. The buffer is the caller's if n > 0.
func (s *source) next(room int) (*frameBuf, int, error) {
	s.room = room
	if s.ready != nil {
		_, n, err := s.ready.ReadReady(s.get, s.put)
		return s.buf, n, err
	}
	n, err := s.r.Read(s.get())
	if n == 0 {
		s.put(nil)
	}
	return s.buf, n, err
}
