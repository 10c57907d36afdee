//go:build unix

package app

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-net/culvert/internal/audit"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
)

// While the log of one of the three fails, nothing new gets through where the
// settings say deny, and everything where they say continue. What runs goes on.
func TestAuditFailure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		where, failure string
		code           string // in the inlet's log
	}{
		{"inlet", "continue", ""},
		{"outlet", "continue", ""},
		{"relay", "continue", ""},
		{"inlet", "deny", "audit_failed"},
		{"outlet", "deny", "audit_failed"},
		{"relay", "deny", "audit_failed"},
	} {
		t.Run(tt.where+" "+tt.failure, func(t *testing.T) {
			t.Parallel()
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			set := func(c *config.Common) { c.Audit, c.AuditFailure = fifo, tt.failure }
			var s setup
			switch tt.where {
			case "inlet":
				s.inlet = func(c *config.Inlet) { set(&c.Common) }
			case "outlet":
				s.outlet = func(c *config.Outlet) { set(&c.Common) }
			default:
				s.relay = func(c *config.Relay) { set(&c.Common) }
			}
			sys := startSystem(t, s)
			b := map[string]*base{"inlet": sys.inlet.base, "outlet": sys.outlet.base, "relay": sys.relay.base}[tt.where]
			nc := sys.dial(t)
			wantEcho(t, nc, "hello")
			stuff(t, fifo, b)
			if ok, _ := b.obs.Ready.Check(); ok != (tt.failure == "continue") {
				t.Errorf("ready %v with audit_failure %s", ok, tt.failure)
			}
			if got := metric(t, b.obs, "culvert_audit_failing"); got != 1 {
				t.Errorf("culvert_audit_failing is %v, want 1", got)
			}
			wantEcho(t, nc, "what runs goes on")
			switch {
			case tt.code == "":
				wantEcho(t, sys.dial(t), "hello again")
			case tt.where == "relay":
				sys.stopInlet()
				cfg := sys.inlet.cfg
				cfg.ConnectTimeout, cfg.Audit = 200*time.Millisecond, ""
				again, log, _ := startInlet(t, cfg)
				wantLine(t, log, "cannot reach the outlet, trying on", tt.code) // which is the client's, too
				wantRefused(t, again.Addrs()[0])
				wantLine(t, log, "stream refused", tt.code)
			default:
				wantRefused(t, sys.inlet.Addrs()[0])
				wantLine(t, sys.inletLog, "stream refused", tt.code)
			}
			r, err := os.OpenFile(fifo, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.Copy(io.Discard, r)
			}()
			eventually(t, "the log is written again", func() bool { return metric(t, b.obs, "culvert_audit_failing") == 0 })
			if tt.where != "relay" {
				wantEcho(t, sys.dial(t), "and again")
			}
			_ = nc.Close()
			sys.stopInlet()
			sys.stopOutlet()
			sys.stopRelay()
			_ = r.Close()
			<-done
		})
	}
}

// While an authority's log fails, it issues nothing where the settings say deny.
func TestAuditFailureOfAnAuthority(t *testing.T) {
	t.Parallel()
	for failure, want := range map[string]code.Code{"continue": code.OK, "deny": code.AuditFailed} {
		t.Run(failure, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fifo := filepath.Join(dir, "fifo")
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			key, id := newIdentity(t)
			a, _ := startAuthorityOf(t, config.Authority{
				Common: config.Common{Identity: key, DrainTimeout: time.Millisecond, Audit: fifo, AuditFailure: failure},
				Store:  filepath.Join(dir, "authority.db"), Listen: []config.Address{local(0)}, Routes: routesTo(id),
			})
			enrol := ticketOf(t, a, 1)
			c := newStranger(t, a, nil).open(t)
			c.ask(credential.Renew{}) // so that the stream is open
			stuff(t, fifo, a.base)
			got := code.OK
			if r, ok := c.ask(enrol).(credential.Refused); ok {
				got = r.Code
			}
			if got != want {
				t.Errorf("enrolling ends with %s, want %s", got, want)
			}
		})
	}
}

func wantLine(t *testing.T, log *logBuffer, message, code string) {
	t.Helper()
	eventually(t, "a line of "+code, func() bool {
		return len(log.lines(t, map[string]string{"msg": message, "code": code})) > 0
	})
}

// stuff fills a FIFO, and waits until the log that goes there has noticed.
func stuff(t *testing.T, fifo string, b *base) {
	t.Helper()
	eventually(t, "the log is idle", func() bool { return metric(t, b.obs, "culvert_audit_lines_total") > 0 })
	fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, size := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = unix.Write(fd, make([]byte, size))
		}
	}
	b.auditRefusal(audit.Channel, channel.Peer{Identifier: b.Identifier()}, "", "ok", "a line too many")
	eventually(t, "the log is stuck", func() bool { return b.audit.Err() != nil && metric(t, b.obs, "culvert_audit_failing") == 1 })
}
