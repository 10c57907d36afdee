//go:build e2e && linux

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// In MariaDB's protocol the server speaks first: the client's side must carry
// bytes before the client has written any.
func TestMariaDB(t *testing.T) {
	t.Parallel()
	acrossRoutes(t, testMariaDB)
}

func testMariaDB(t *testing.T, relays int) {
	direct := mariadbServer.at(t)
	w := chain(t, relays, map[string]string{"shop": direct})
	host, port := splitAddr(w.at("inlet", "shop"))
	query := func(sql string) string {
		cmd := exec.Command(tool(t, "mariadb"), "--no-defaults", "-h", host, "-P", port, "-u", "root", "--protocol=TCP", "-N", "-B", "--max-allowed-packet=64M")
		cmd.Stdin = strings.NewReader(sql)
		out, errOut, code := tryCommand(t, time.Minute, cmd)
		if code != 0 {
			t.Fatalf("mariadb: exit code %d: %s", code, errOut)
		}
		return strings.TrimSpace(out)
	}
	if got := query("select 6 * 7"); got != "42" {
		t.Errorf("select 6 * 7: got %q", got)
	}
	const size = 1 << 20
	query("create or replace database shop; create table shop.things (id int primary key, text longtext)")
	text := strings.Repeat("0123456789abcdef", size/16)
	query(fmt.Sprintf("insert into shop.things values (1, '%s')", text))
	if got := query("select text from shop.things where id = 1"); got != text {
		t.Errorf("1 MB there and back: got %d bytes, want %d, equal: %v", len(got), len(text), got == text)
	}

	// And with nothing else in the way: a silent client gets the greeting.
	c := dial(t, w.at("inlet", "shop"))
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 1 {
		t.Errorf("a silent client reads no greeting: %v", err)
	}
}

var requestsPerSecond = regexp.MustCompile(`(?m)^"?([A-Z_]+)"?[,:] ?"?([0-9.]+)`)

// TestRedis has redis-cli, redis-benchmark and a subscription, on which the
// server speaks when it likes.
func TestRedis(t *testing.T) {
	t.Parallel()
	acrossRoutes(t, testRedis)
}

func testRedis(t *testing.T, relays int) {
	direct := redisServer.at(t)
	w := chain(t, relays, map[string]string{"cache": direct})
	host, port := splitAddr(w.at("inlet", "cache"))
	cli := func(args ...string) string {
		return strings.TrimSpace(runCommand(t, 20*time.Second, tool(t, "redis-cli"), append([]string{"-h", host, "-p", port}, args...)...))
	}
	if got := cli("set", "k", "v"); got != "OK" {
		t.Errorf("set: got %q", got)
	}
	if got := cli("get", "k"); got != "v" {
		t.Errorf("get: got %q", got)
	}

	t.Run("benchmark", func(t *testing.T) {
		cli("del", "mylist")
		out := runCommand(t, 2*time.Minute, tool(t, "redis-benchmark"), "-h", host, "-p", port, "-n", "20000", "-c", "50", "-P", "4", "-t", "set,get,lpush", "--csv")
		rates := map[string]string{}
		for _, m := range requestsPerSecond.FindAllStringSubmatch(out, -1) {
			rates[m[1]] = m[2]
		}
		for _, command := range []string{"SET", "GET", "LPUSH"} {
			if rates[command] == "" {
				t.Errorf("no rate for %s:\n%s", command, out)
			}
		}
		if got := cli("llen", "mylist"); got != "20000" {
			t.Errorf("the list has %s entries after 20000 pushes", got)
		}
	})

	t.Run("publish and subscribe", func(t *testing.T) {
		subscriber, err := startProc("subscriber", exec.Command(tool(t, "redis-cli"), "-h", host, "-p", port, "--csv", "subscribe", "news"))
		if err != nil {
			t.Fatal(err)
		}
		defer subscriber.kill()
		subscriber.wantLog(t, patience, `"subscribe","news",1`)
		for i := range 3 {
			if got := cli("publish", "news", fmt.Sprintf("message %d", i)); got != "1" {
				t.Errorf("publish reached %s subscribers, want 1", got)
			}
			subscriber.wantLog(t, patience, fmt.Sprintf(`"message","news","message %d"`, i))
		}
	})
}
