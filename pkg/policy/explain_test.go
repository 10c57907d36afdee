package policy

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A denial says which part decided, and what was seen.
func TestExplanations(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`peer.attr.role == "web"`, `peer.attr.role == "web" is false: peer.attr.role is "api"`},
		{`peer.attr.role == "api" && service == "billing"`, `service == "billing" is false: service is "orders-db"`},
		{`service == "a" || peer.attr.team == "b"`, `service == "a" is false: service is "orders-db"; peer.attr.team == "b" is false: peer.attr.team is "shop"`},
		{`peer.attr.region == "eu"`, `peer has no attribute "region"`},
		{`peer.attr["region"] == "eu"`, `peer has no attribute "region"`},
		{`peer.attr[service] == "eu"`, `peer has no attribute service`},
		{`peer.attr.region == "eu" || service == "a"`, `peer has no attribute "region"; service == "a" is false: service is "orders-db"`},
		{`has(peer.attr.region)`, `has(peer.attr.region) is false`},
		{`"region" in peer.attr`, `"region" in peer.attr is false: peer.attr is of 2 entries`},
		{`!(peer.attr.role == "api")`, `peer.attr.role == "api" is true: peer.attr.role is "api"`},
		{`!(service == "orders-db" && has(peer.attr.role))`, `service == "orders-db" is true: service is "orders-db"; has(peer.attr.role) is true`},
		{`service == "a" ? true : peer.attr.role == "web"`, `service == "a" is false: service is "orders-db"; peer.attr.role == "web" is false: peer.attr.role is "api"`},
		{`peer.attr.region == "a" ? true : false`, `peer has no attribute "region"`},
		{`["a", "b"].exists(k, peer.attr.role == k)`, `["a", "b"].exists(k, peer.attr.role == k) is false`},
		{`["a"].all(k, peer.attr[k] == "x")`, `["a"].all(k, peer.attr[k] == "x"): no such key: a`},
		{`int(peer.attr.role) > 3`, `int(peer.attr.role): type conversion error from 'string' to 'int'`},
		{`1 / 0 == 1`, `1 / 0: division by zero`},
		{`false`, `a constant in the expression is false`},
		{`now.getHours("Europe/Berlin") >= 8 && service != ""`, `now.getHours("Europe/Berlin") >= 8 is false: now.getHours("Europe/Berlin") is 7`},
		{`now < timestamp("2026-01-01T00:00:00Z")`, `now < timestamp("2026-01-01T00:00:00Z") is false: now is 2026-01-05T06:00:00Z`},
		{`now - timestamp("2026-01-05T00:00:00Z") < duration("1h")`, `now - timestamp("2026-01-05T00:00:00Z") < duration("1h") is false: now - timestamp("2026-01-05T00:00:00Z") is 6h0m0s`},
		{`action == "connect"`, `action == "connect" is false: action is "open"`},
	} {
		p := mustCompile(t, Open, tt.text)
		got := p.Decide(request())
		if got.Allowed || got.Reason != tt.want {
			t.Errorf("%s\ngot  %v %s\nwant %s", tt.text, got.Allowed, got.Reason, tt.want)
		}
		if p.Allows(request()) {
			t.Errorf("%s: Allows disagrees with Decide", tt.text)
		}
	}
}

// An error allows nothing that depends on it, in whatever it stands; what does
// not depend on it is decided by the rest, as CEL has it.
func TestErrorsDeny(t *testing.T) {
	for text, want := range map[string]bool{
		`peer.attr.none != "x"`:                                        false,
		`!(peer.attr.none == "x")`:                                     false,
		`!!(peer.attr.none != "x")`:                                    false,
		`peer.attr.none == "x" || peer.attr.none != "x"`:               false,
		`!(peer.attr.none == "x" && service == "orders-db")`:           false,
		`peer.attr.none == "x" || service == "a"`:                      false,
		`peer.attr.none == "x" ? true : true`:                          false,
		`["a", "b"].exists(k, peer.attr[k] != "x")`:                    false,
		`["none"].all(k, peer.attr[k] != "x")`:                         false,
		`!["none"].exists(k, peer.attr[k] == "x")`:                     false,
		`[peer.attr.none].size() == 1`:                                 false,
		`{"a": peer.attr.none}.size() == 1`:                            false,
		`(1 / 0 == 0) == false`:                                        false,
		`peer.attr.none == "x" || service == "orders-db"`:              true, // whatever none were
		`!(peer.attr.none == "x" && service == "a")`:                   true, // the same
		`!has(peer.attr.none) || peer.attr.none != "x"`:                true, // asked for
		`["none", "role"].exists(k, peer.attr[k] == "api")`:            true,
		`has(peer.attr.role) && peer.attr.role == "api"`:               true,
		`peer.attr.exists(k, peer.attr[k] == "shop")`:                  true,
		`service.startsWith("orders-") && service.matches("^[a-z-]+")`: true,
	} {
		d := mustCompile(t, Open, text).Decide(request())
		if d.Allowed != want {
			t.Errorf("%s: allowed is %v (%s), want %v", text, d.Allowed, d.Reason, want)
		}
		if d.Reason == "" {
			t.Errorf("%s: no reason", text)
		}
	}
}

func TestOfficeHours(t *testing.T) {
	p := mustCompile(t, Connect, `now.getHours("Europe/Berlin") >= 8 && now.getHours("Europe/Berlin") < 18 && now.getDayOfWeek("Europe/Berlin") in [1, 2, 3, 4, 5]`)
	for at, want := range map[string]bool{
		"2026-01-05T06:59:59Z": false, "2026-01-05T07:00:00Z": true, "2026-01-05T16:59:59Z": true, "2026-01-05T17:00:00Z": false, // winter: +1
		"2026-07-06T05:59:59Z": false, "2026-07-06T06:00:00Z": true, "2026-07-06T15:59:59Z": true, "2026-07-06T16:00:00Z": false, // summer: +2
		"2026-01-04T10:00:00Z": false, "2026-01-10T10:00:00Z": false, // Sunday, Saturday
		"2026-07-06T08:00:00+02:00": true,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Decide(&Request{Action: Connect, Now: now}); got.Allowed != want {
			t.Errorf("at %s: %v (%s), want %v", at, got.Allowed, got.Reason, want)
		}
	}
}

// Our own reading of times in zones is CEL's, which reads an offset by itself.
func TestZonesAsCEL(t *testing.T) {
	for _, f := range []string{"FullYear", "Month", "DayOfYear", "DayOfMonth", "Date", "DayOfWeek", "Hours", "Minutes", "Seconds", "Milliseconds"} {
		for _, zone := range []string{"+00:00", "-09:30", "+14:00"} {
			p := mustCompile(t, Open, `now.get`+f+`("`+zone+`") == (now + duration("`+strings.NewReplacer("+", "", ":", "h").Replace(zone)+`m")).get`+f+`()`)
			for _, hours := range []int{0, 5, 10, 15, 24 * 27, 24 * 359} {
				r := request()
				r.Now = monday.Add(time.Duration(hours)*time.Hour + 17*time.Minute + 59*time.Second + 123*time.Millisecond)
				if d := p.Decide(r); !d.Allowed {
					t.Errorf("%s in %s at %v: %s", f, zone, r.Now, d.Reason)
				}
			}
		}
	}
}

// Without a time in the request it is the time of the call.
func TestNowIsNow(t *testing.T) {
	r := request()
	r.Now = time.Time{}
	if d := mustCompile(t, Open, `now > timestamp("2026-01-01T00:00:00Z")`).Decide(r); !d.Allowed {
		t.Error(d.Reason)
	}
}

// A policy answers the question that it was checked for, and no other.
func TestOtherActions(t *testing.T) {
	p := mustCompile(t, Register, `true`)
	for _, action := range []Action{Open, Connect, Extend, "", "Register"} {
		d := p.Decide(&Request{Peer: Peer{ID: id(1)}, Action: action})
		if d.Allowed || !strings.Contains(d.Reason, "the policy is for register") {
			t.Errorf("%q: %+v", action, d)
		}
	}
	if !p.Allows(&Request{Action: Register}) {
		t.Error("register is denied")
	}
}

// Whatever a peer's attributes hold, a reason is one short line.
func TestReasonsAreSafe(t *testing.T) {
	for _, value := range []string{"a\nb", "\x1b[2J", "\xff\xfe", "\u202e", strings.Repeat("x", MaxAttributeValue), strings.Repeat("ä", MaxAttributeValue/2), `"; true || "`} {
		r := request()
		r.Peer.Attr = map[string]string{"role": value, value[:min(len(value), MaxAttributeName)]: "x"}
		for _, text := range []string{`peer.attr.role == "x"`, `peer.attr.exists(k, k == "x")`, `peer.attr[peer.attr.role] == "y"`, `peer.attr.role + peer.attr.role == "x" || peer.attr.role == "y" || peer.attr.role == "z"`} {
			d := mustCompile(t, Open, text).Decide(r)
			if d.Allowed || d.Reason == "" || len(d.Reason) > MaxReason || strings.ContainsAny(d.Reason, "\n\x1b\u202e") || !utf8.ValidString(d.Reason) {
				t.Errorf("%q with %.20q: %v, %d bytes %q", text, value, d.Allowed, len(d.Reason), d.Reason)
			}
		}
	}
}
