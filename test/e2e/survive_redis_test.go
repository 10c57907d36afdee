//go:build e2e && linux

package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestSurviveRedis has a subscriber across ten deaths of the relay: it gets each
// message once, in order.
func TestSurviveRedis(t *testing.T) {
	t.Parallel()
	const kills, channel = 10, "survive"
	direct := redisServer.at(t)
	relay, addr := oneRelay(t, direct, "")
	host, port := splitAddr(addr)
	subscriber, err := startProc("subscriber", exec.Command(tool(t, "redis-cli"), "-h", host, "-p", port, "--csv", "subscribe", channel))
	if err != nil {
		t.Fatal(err)
	}
	defer subscriber.kill()
	subscriber.wantLog(t, patience, fmt.Sprintf(`"subscribe",%q,1`, channel))

	publisher := dial(t, direct)
	answers := bufio.NewReader(publisher)
	published := 0
	publish := every(t, 5*time.Millisecond, func() {
		fmt.Fprintf(publisher, "PUBLISH %s %d\r\n", channel, published)
		published++
		if got, err := answers.ReadString('\n'); got != ":1\r\n" {
			t.Errorf("publishing: got %q, %v, want one subscriber", got, err)
		}
	})
	for range kills {
		relay.kill()
		relay.restart()
		time.Sleep(howLong(200*time.Millisecond, time.Second)) // messages flow
	}
	publish.end()
	subscriber.wantLog(t, patience, fmt.Sprintf(`"message",%q,"%d"`, channel, published-1))
	next := 0
	for line := range strings.Lines(subscriber.log.String()) {
		if !strings.HasPrefix(line, `"message"`) {
			continue
		}
		if want := fmt.Sprintf(`"message",%q,"%d"`, channel, next); strings.TrimSpace(line) != want {
			t.Fatalf("got %q, want %q", strings.TrimSpace(line), want)
		}
		next++
	}
	t.Logf("relay killed %d times, %d messages published, %d received", kills, published, next)
	note(t, summary{loads: 1, deaths: kills, streams: 1})
}
