package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// steadyTime bounds how long a backup may stand still, on either side; as a
	// whole it may take as long as it takes.
	steadyTime = time.Minute
	// steadyLen is how much has to move in that time, in bytes.
	steadyLen = 32 << 10
)

// A steadyWriter writes an answer for as long as its reader takes some of it from
// time to time.
type steadyWriter struct {
	w  io.Writer
	rc *http.ResponseController
}

func newSteadyWriter(w http.ResponseWriter) *steadyWriter {
	rc := http.NewResponseController(w)
	// Of a conn that has deadlines: while the answer is written, reading notices
	// only that the client has gone.
	_ = rc.SetReadDeadline(time.Time{})
	return &steadyWriter{w, rc}
}

// Write writes in pieces, each of which has its time.
func (s *steadyWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		_ = s.rc.SetWriteDeadline(time.Now().Add(steadyTime)) // of a conn that has one
		var k int
		k, err = s.w.Write(b[:min(len(b), steadyLen)])
		n += k
		b = b[k:]
	}
	return n, err
}

// A steadyReader ends its context when nothing has come for too long.
type steadyReader struct {
	r   io.Reader
	end context.CancelCauseFunc
}

// Read reads what comes in time.
func (s *steadyReader) Read(b []byte) (int, error) {
	t := time.AfterFunc(steadyTime, func() { s.end(fmt.Errorf("nothing has come for %s", steadyTime)) })
	defer t.Stop()
	return s.r.Read(b)
}
