package culvert_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-net/culvert"
)

// While there is no path, and what waits to be sent again has filled the buffers, a Write
// still ends at its deadline, and when its conn is closed.
func TestWritesEndWithoutPath(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(c *culvert.Conn)
		want error
	}{
		"by a deadline": {func(c *culvert.Conn) { _ = c.SetWriteDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		"by Close":      {func(c *culvert.Conn) { _ = c.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, reg := newRelay(t), prometheus.NewRegistry()
			p := newPair(t, pairing{
				relays:   []*testRelay{r},
				listener: func(c *culvert.ListenerConfig) { c.Grace = time.Hour },
				dialer:   func(c *culvert.DialerConfig) { c.Grace, c.Buffers, c.Metrics = time.Hour, 1<<20, reg },
			})
			var open []*culvert.Conn
			for range 32 {
				a, b := p.conns()
				_ = a.SetDeadline(time.Time{})
				open = append(open, a)
				defer a.Close()
				defer b.Close()
			}
			r.kill()
			failed := make(chan error, len(open))
			for _, c := range open {
				go func() {
					_, err := c.Write(make([]byte, 1<<20))
					failed <- err
				}()
			}
			// Then the channel takes no more, and the Writes wait, or are about to.
			eventually(t, "what waits for a path fills its buffer", func() bool {
				return value(t, reg, "culvert_channel_buffer_bytes") >= 256<<10
			})
			for _, c := range open {
				end.do(c)
			}
			late := time.After(patience / 2)
			for i := range open {
				select {
				case err := <-failed:
					if !errors.Is(err, end.want) {
						t.Errorf("a Write has ended with %v, want %v", err, end.want)
					}
				case <-late:
					t.Fatalf("%d Writes still wait", len(open)-i)
				}
			}
		})
	}
}
