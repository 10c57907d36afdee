package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-net/culvert/internal/sock/socktest"
	"github.com/culvert-net/culvert/internal/turns"
)

// A handshake that is slow gives way to a caller, and not to the place's being free for
// one.
func TestNobodyGivesWayToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := socktest.Listen()
		relay := startRelayOn(t, ln, newLocal(t), func(c *Config) {
			c.Limits.Handshakes = 1
			c.Channel.Timeout = time.Minute
		})
		slow := ln.Call(t)
		time.Sleep(10 * turns.Patience)
		synctest.Wait()
		if got := relay.log.count("handshake failed"); got != 0 || relay.Status().Handshakes != 1 {
			t.Errorf("%d handshakes have ended, %d are under way, and nobody has waited", got, relay.Status().Handshakes)
		}
		began := time.Now()
		next := ln.Call(t)
		if _, err := next.Write([]byte("C")); err != nil { // which only a handshake reads
			t.Errorf("the next caller: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it had its turn after %v, and the other had long had its own", took)
		}
		_ = slow.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := slow.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("who gave way reads %v, want its end", err)
		}
		relay.stop()
	})
}
