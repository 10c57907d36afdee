package culvert_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// value returns that of a metric without labels.
func value(t testing.TB, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// eventually waits until is reports true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// wantCarried wants what is written at one end of a stream to come out at the other, both
// ways.
func wantCarried(t testing.TB, a, b io.ReadWriter) {
	t.Helper()
	for _, ends := range [][2]io.ReadWriter{{a, b}, {b, a}} {
		if _, err := io.WriteString(ends[0], "still here"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("still here"))
		if _, err := io.ReadFull(ends[1], got); err != nil || string(got) != "still here" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// rotating is a pair of which one side has its identity in a file.
type rotating struct {
	*pair
	file   string
	before *identity.Identity
	// Of the side with the file, and of the other.
	own, others *prometheus.Registry
	relays      []*testRelay
}

func newRotating(t *testing.T, side string, log *zap.Logger) *rotating {
	t.Helper()
	r := &rotating{own: prometheus.NewRegistry(), others: prometheus.NewRegistry(), relays: []*testRelay{newRelay(t), newRelay(t)}}
	var id identity.Identifier
	r.file, id = keyFile(t)
	var err error
	if r.before, err = identity.ReadFile(r.file); err != nil {
		t.Fatal(err)
	}
	configure := func(c *culvert.Config, of string) {
		if c.Metrics = r.others; of == side {
			c.Identity, c.IdentityFile, c.Metrics, c.Log = nil, r.file, r.own, log
		}
	}
	r.pair = newPair(t, pairing{
		relays: r.relays,
		listener: func(c *culvert.ListenerConfig) {
			if configure(&c.Config, "listener"); side == "dialer" {
				c.Allow = []identity.Identifier{id}
			}
		},
		dialer: func(c *culvert.DialerConfig) {
			if configure(&c.Config, "dialer"); side == "listener" {
				c.Outlet = id
			}
		},
	})
	return r
}

// A key is replaced under conns that are open: nothing of them ends, handshakes use the
// new one, and who has met that refuses the old one.
func TestKeyIsReplaced(t *testing.T) {
	for _, side := range []string{"dialer", "listener"} {
		t.Run("of the "+side, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t, side, nil)
			a, b := r.conns()
			defer a.Close()
			defer b.Close()
			wantCarried(t, a, b)
			if _, err := identity.RotateFile(r.file, time.Now(), identity.Validity); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the new key is used", func() bool { return value(t, r.own, "culvert_channel_identity_changes") == 2 })
			wantCarried(t, a, b)
			r.relays[0].kill() // another path is another handshake
			wantCarried(t, a, b)
			eventually(t, "the other side has met the new key", func() bool { return value(t, r.others, "culvert_channel_identities_remembered") == 1 })
			c, d := r.conns()
			wantCarried(t, c, d)
			_ = c.Close()
			_ = d.Close()
			if side != "dialer" {
				return
			}
			old := newDialer(t, culvert.DialerConfig{
				Config: culvert.Config{Identity: r.before}, Outlet: r.ln.Identifier(), Routes: r.ln.Routes()[1:], ConnectTimeout: time.Second,
			})
			eventually(t, "the old key is refused", func() bool { // it may come to a new one, so that Dial waits
				var e *culvert.Error
				_, err := old.Dial(withPatience(t), "echo")
				return errors.As(err, &e) && e.Code == code.RolledBack
			})
			wantCarried(t, a, b)
		})
	}
}

// An identity file that cannot be taken, or is somebody else's, changes nothing but what
// the log says.
func TestKeyFileThatCannotBeTaken(t *testing.T) {
	for _, side := range []string{"dialer", "listener"} {
		t.Run("of the "+side, func(t *testing.T) {
			t.Parallel()
			core, lines := observer.New(zap.ErrorLevel)
			r := newRotating(t, side, zap.New(core))
			a, b := r.conns()
			defer a.Close()
			defer b.Close()
			good, err := os.ReadFile(r.file)
			if err != nil {
				t.Fatal(err)
			}
			somebody, _ := keyFile(t)
			other, err := os.ReadFile(somebody)
			if err != nil {
				t.Fatal(err)
			}
			for i, bad := range [][]byte{[]byte("nonsense"), other, good[:len(good)/2]} {
				if err := os.WriteFile(r.file, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the log says what is wrong", func() bool { return lines.Len() > i })
				wantCarried(t, a, b)
				c, d := r.conns()
				wantCarried(t, c, d)
				_ = c.Close()
				_ = d.Close()
			}
			if err := os.WriteFile(r.file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := identity.RotateFile(r.file, time.Now(), identity.Validity); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the new key is used", func() bool { return value(t, r.own, "culvert_channel_identity_changes") == 2 })
			wantCarried(t, a, b)
		})
	}
}
