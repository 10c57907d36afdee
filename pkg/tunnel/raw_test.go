package tunnel

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/hashicorp/yamux"
)

// A rawServer is a server made of the mux alone, against a real client
// session, so that a test decides about every frame.
type rawServer struct {
	client  *Session
	carrier *plainCarrier // the client's
	mux     *yamux.Session
	control *yamux.Stream
	stream  *yamux.Stream
}

func rawServerSide(t testing.TB) *rawServer {
	t.Helper()
	a, b := tcpPair(t)
	r := &rawServer{carrier: plain(a)}
	r.client = NewClient(r.carrier, Config{})
	run(t, r.client)
	r.mux = startMux(t, b, false)
	var err error
	if r.control, err = r.mux.AcceptStream(); err != nil {
		t.Fatal(err)
	}
	return r
}

func startMux(t testing.TB, nc net.Conn, client bool) *yamux.Session {
	t.Helper()
	start := yamux.Server
	if client {
		start = yamux.Client
	}
	cfg := muxConfig(maxUpdate) // without the adapter, which splits larger updates
	mux, err := start(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mux.Close() })
	return mux
}

// run runs the session until the test is over.
func run(t testing.TB, s *Session) {
	t.Helper()
	go func() { _ = s.Run(context.Background()) }()
	t.Cleanup(func() {
		s.Close(0, "")
		await(t, s.Done(), "the end of the session")
	})
}

// open opens a stream on the client and reads its OPEN.
func (r *rawServer) open(t testing.TB) *Stream {
	t.Helper()
	st, err := r.client.Open(soon(t), Open{Service: "db"})
	if err != nil {
		t.Fatal(err)
	}
	if r.stream, err = r.mux.AcceptStream(); err != nil {
		t.Fatal(err)
	}
	readFrame(t, r.stream, frameOpen)
	return st
}

func (r *rawServer) write(t testing.TB, b []byte) {
	t.Helper()
	if _, err := r.stream.Write(b); err != nil {
		t.Fatal(err)
	}
}

func readFrame(t testing.TB, y io.Reader, want frameType) []byte {
	t.Helper()
	var head [frameHeader]byte
	if _, err := io.ReadFull(y, head[:]); err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	got, n := parseHeader(head)
	if got != want {
		t.Fatalf("got frame of type %d, want %d", got, want)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(y, body); err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	return body
}
