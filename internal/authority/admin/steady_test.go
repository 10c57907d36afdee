package admin

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/sock/socktest"
)

// A slowService's backup has so many pieces, each after a while.
type slowService struct {
	*authority.Authority
	pieces int
	pause  time.Duration
	first  int // pieces that come at once
	ended  chan struct{}
}

func (s *slowService) Backup(_ context.Context, w io.Writer) error {
	defer close(s.ended)
	for i := range s.pieces {
		if i >= s.first {
			time.Sleep(s.pause)
		}
		if _, err := w.Write(make([]byte, 3*steadyLen)); err != nil {
			return err
		}
	}
	return nil
}

// A slowWriter takes each write after a while.
type slowWriter struct {
	pause time.Duration
	n     int
}

func (w *slowWriter) Write(b []byte) (int, error) {
	time.Sleep(w.pause)
	w.n += len(b)
	return len(b), nil
}

// A backup takes as long as it takes, in a server whose answers have 30 s, and ends
// when nothing moves any more, on either side.
func TestBackupsAreBoundedByProgress(t *testing.T) {
	for name, tt := range map[string]struct {
		read, write time.Duration // per piece
		first       int
		err         string
	}{
		"slow store":           {50 * time.Second, 0, 0, ""},
		"slow client":          {0, 2 * time.Second, 0, ""},
		"stuck store":          {2 * steadyTime, 0, 3, "nothing has come for 1m0s"},
		"stuck from the start": {2 * steadyTime, 0, 0, "timeout awaiting response headers"},
		"stuck client":         {0, time.Hour, 0, "reading the backup"},
		"slow together":        {20 * time.Second, time.Second, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				access, err := newAccess()
				if err != nil {
					t.Fatal(err)
				}
				const pieces = 20
				ln := socktest.Listen()
				service := &slowService{pieces: pieces, pause: tt.read, first: tt.first, ended: make(chan struct{})}
				srv := &http.Server{
					Handler:     withTLS(Handler(service, access)),
					ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
				}
				var serving sync.WaitGroup
				serving.Go(func() { _ = srv.Serve(ln) })
				c := NewClient("nowhere", access)
				c.http.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return ln.Dial(ctx) }
				w := &slowWriter{pause: tt.write}
				err = c.Backup(t.Context(), w)
				switch {
				case tt.err == "" && (err != nil || w.n != pieces*3*steadyLen):
					t.Errorf("%d bytes, %v, want all", w.n, err)
				case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
					t.Errorf("%d bytes, %v, want %q", w.n, err, tt.err)
				}
				<-service.ended
				_ = srv.Close()
				serving.Wait()
			})
		})
	}
}

// withTLS makes requests look as if they had come over TLS.
func withTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{}
		next.ServeHTTP(w, r)
	})
}
