//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

// hostile are texts that somebody would like a page to take for more than text.
var hostile = []string{
	`<script>window.hurt=1</script>`,
	`<img src=x onerror="window.hurt=1">`,
	`"><svg onload="window.hurt=1">`,
	`</title></dialog><iframe src="javascript:parent.hurt=1">`,
	"javascript:window.hurt=1",
	"{{constructor.constructor('window.hurt=1')()}}",
	"\u202egnp.evil\u202c\x00\x1b[2J\u2028",
	"__proto__",
	strings.Repeat("W", 2000),
	strings.Repeat("ж🙂", 500),
}

// hostileStatus is what a process would say that knows such names alone.
func hostileStatus(role string) map[string]any {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	ago := time.Now().Add(-90 * time.Minute).UTC().Format(time.RFC3339Nano)
	pick := func(i int) string { return hostile[i%len(hostile)] }
	var streams, channels, services, registrations, joins []any
	for i := range 300 {
		streams = append(streams, map[string]any{
			"id": fmt.Sprint(i), "service": pick(i), "peer": pick(i + 1), "peer_name": pick(i + 2), "client": pick(i + 3), "channel": pick(i + 4),
			"since": ago, "active": now, "bytes_to_service": i * 1e12, "bytes_to_client": -i,
		})
		joins = append(joins, map[string]any{"request": pick(i), "caller": pick(i + 1), "caller_instance": fmt.Sprint(i), "target": pick(i + 2), "since": ago, "bytes_to_target": 1 << 60, "bytes_to_caller": 0})
	}
	for i := range 12 {
		path := map[string]any{"up": i%2 == 0, "since": now, "keys_since": pick(i), "ping_seconds": 1e9, "error": pick(i)}
		channels = append(channels, map[string]any{
			"outlet": pick(i), "peer": pick(i), "name": pick(i + 1), "channel": pick(i), "state": pick(i + 2), "route": pick(i + 3), "streams": 1 << 40, "since": ago, "path": path, "last_error": pick(i),
			"routes": []any{
				map[string]any{"route": "tcp://" + pick(i) + "/" + pick(i+1) + ",tcp://" + pick(i+2) + "/" + pick(i+3), "state": "failed", "error": pick(i)},
				map[string]any{"route": pick(i), "state": pick(i + 1), "error": pick(i)},
			},
		})
		services = append(services, map[string]any{"service": pick(i), "listen": pick(i + 1), "outlet": pick(i), "target": pick(i + 2), "streams": 1, "expression": pick(i + 3)})
		registrations = append(registrations, map[string]any{
			"route": pick(i), "address": pick(i + 1), "registered": i%3 == 0, "last_error": pick(i + 2), "since": pick(i),
			"identifier": pick(i), "instance": fmt.Sprint(i), "remote": pick(i + 3), "draining": true,
		})
	}
	st := map[string]any{
		"role": role, "version": pick(0), "now": now, "started": pick(1), "identifier": pick(0), "instance": pick(1), "listen": []string{pick(0), pick(8)},
		"totals":   map[string]any{"streams_active": 300, "bytes_to_service": pick(0), "bytes_to_client": 5},
		"services": services, "channels": channels, "registrations": registrations, "refusals": map[string]any{pick(0): 1, "__proto__": 2},
		"credential": map[string]any{"authority": pick(0), "attributes": map[string]any{pick(0): pick(1)}, "last_error": pick(2), "revoked": pick(8)},
	}
	if role == "relay" {
		st["joins"], st["joins_left_off"] = joins, 1<<40
	} else {
		st["streams"], st["streams_left_off"] = streams, 1<<40
	}
	return st
}

// testConsoleHostile has the console show what hostile peers may get into a status:
// all of it is text, and none makes the page wider than a phone.
func testConsoleHostile(t *testing.T, c *consoleWorld) {
	admin := &url.URL{Scheme: "http", Host: c.node("inlet").admin}
	roles := []string{"inlet", "relay", hostile[0]}
	if testing.Short() {
		roles = roles[:1]
	}
	for i, role := range roles {
		answers := map[string]any{
			"/status":         hostileStatus(role),
			"/status/history": map[string]any{"interval_seconds": hostile[0], "samples": []any{map[string]any{"at": hostile[0]}, map[string]any{"at": time.Now(), "bytes_to_client": hostile[1]}}},
			"/readyz":         map[string]any{"ready": false, "checks": []any{map[string]any{"name": hostile[0], "reason": hostile[1]}, map[string]any{"name": hostile[8], "reason": hostile[9]}}},
		}
		mux := http.NewServeMux()
		mux.Handle("/", httputil.NewSingleHostReverseProxy(admin))
		for path, answer := range answers {
			body, err := json.Marshal(answer)
			if err != nil {
				t.Fatal(err)
			}
			mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(body)
			})
		}
		srv := httptest.NewServer(mux)
		t.Cleanup(srv.Close)
		for _, w := range []window{desktop, phone} {
			p := c.b.open(t, srv.URL+"/", w)
			p.wantText(patience, "#live", "Live")
			p.wantText(patience, "#why", hostile[0], hostile[1])
			p.wantText(patience, "#tables", hostile[0], hostile[1], hostile[2])
			p.wantText(patience, "#facts", hostile[0])
			p.wantTrue(patience, "document.querySelector('#pictures svg') !== null")
			eval[bool](p, "document.querySelector('#tables tbody tr').click(), true")
			p.wantTrue(patience, "document.querySelector('#details').open")
			p.wantFits()
			p.wantTrue(patience, "window.hurt === undefined && document.querySelectorAll('body script, iframe, img, [onerror], [onload]').length === 0")
			p.wantTrue(patience, "({}).hurt === undefined && document.querySelectorAll('#tables tbody tr').length < 2500")
			p.shot(fmt.Sprintf("hostile-%d-%d", i, w.width))
			p.wantNoProblems()
		}
	}
}
