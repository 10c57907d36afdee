package node

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"github.com/culvert-net/culvert/pkg/code"
)

func FuzzParseRoutes(f *testing.F) {
	f.Add(appendRoutes(nil, Route{"a", "tcp://127.0.0.1:4000", "~x"}, Route{"b"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		onward, back, err := parseRoutes(b)
		if err != nil {
			return
		}
		if again := appendRoutes(nil, onward, back); !bytes.Equal(again, b) {
			t.Errorf("%x is printed as %x", b, again)
		}
	})
}

func FuzzNotice(f *testing.F) {
	f.Add(failure(code.NoWorker, "a", "why").encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e := decodeNotice(b); e.Code == code.OK || len(e.Reason) > code.MaxReason {
			t.Errorf("%x is read as %+v", b, e)
		}
	})
}

func FuzzRoute(f *testing.F) {
	f.Add("tcp://127.0.0.1:4000,hop,unix:///run/x,~conn-abc")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRoute(s)
		if err != nil {
			return
		}
		again, err := ParseRoute(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}

// FuzzLink: whatever comes on a conn is survived.
func FuzzLink(f *testing.F) {
	routes := appendRoutes(nil, Route{"echo"}, Route{"x"})
	b := append(frame{frameOpen, len(routes), 1}.append(hello{}.append(nil)), routes...)
	b = append(head{hops: 3, length: 2}.append(frame{frameData, messageHead + 2, 1}.append(b)), "ab"...)
	f.Add(frame{frameClose, 0, 1}.append(b))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := New(Config{})
		_ = n.Start("echo", echo, Options{Allow: Anyone})
		near, far := net.Pipe()
		over := make(chan struct{})
		go func() {
			defer close(over)
			n.serveConn(context.Background(), near)
		}()
		go func() {
			_, _ = far.Write(b)
			_ = far.Close()
		}()
		_, _ = io.Copy(io.Discard, far)
		<-over
		_ = n.Close()
	})
}
