package top

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/internal/watch"
)

var start = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// inletAt is an inlet's answer some seconds after the start, when each of its streams
// has carried so many bytes to the service.
func inletAt(seconds int, instance string, bytes ...int64) answer {
	now := start.Add(time.Duration(seconds) * time.Second)
	s := &watch.Status{Role: watch.Inlet, Identifier: "3kqhabcdefghijklmnopqrstuvwxyz", Instance: watch.Text(instance), Now: now, Started: start.Add(-time.Hour)}
	for i, n := range bytes {
		s.Streams = append(s.Streams, watch.Stream{
			ID: watch.Text(fmt.Sprint(i)), Service: watch.Text(fmt.Sprintf("service-%d", i)), Peer: "peer", Client: watch.Text(fmt.Sprintf("10.0.0.%d:1", i)),
			Since: start.Add(-time.Duration(i+1) * time.Minute), ToService: n,
		})
		s.Totals.ToService += n
	}
	s.Totals.StreamsActive = int64(len(bytes))
	s.Channels = []watch.Channel{{Outlet: "outlet-a", State: "open", Streams: 2, Path: &watch.Path{Up: true, Since: start}, Routes: []watch.Route{
		{Route: "a-route", State: "in_use"}, {Route: "b-route", State: "failed", Error: "connection refused"},
	}}}
	return answer{status: s, ready: &watch.Readiness{Ready: true}, at: now}
}

// feed gives messages to a Model, and returns what it is then.
func feed(m Model, msgs ...tea.Msg) Model {
	for _, msg := range msgs {
		next, _ := m.Update(msg)
		m = next.(Model)
	}
	return m
}

// press returns the messages of keys that are pressed, a character each.
func press(keys string) (msgs []tea.Msg) {
	for _, r := range keys {
		msgs = append(msgs, tea.KeyPressMsg{Code: r, Text: string(r)})
	}
	return msgs
}

func special(code rune) tea.Msg { return tea.KeyPressMsg{Code: code} }

// lines returns the screen as people read it.
func lines(m Model) []string { return strings.Split(ansi.Strip(m.screen()), "\n") }

func wantScreen(t *testing.T, m Model, want ...string) {
	t.Helper()
	text := strings.Join(lines(m), "\n")
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("the screen does not show %q:\n%s", w, text)
		}
	}
}

// services returns which services' streams are on the screen, in order.
func services(m Model) (names string) {
	for _, l := range lines(m) {
		if name, ok := strings.CutPrefix(l, "service-"); ok {
			names += name[:1]
		}
	}
	return names
}

// Streams stand by what they carry now; a view that is younger than one answer knows
// no rates.
func TestRates(t *testing.T) {
	m := feed(New(Config{}), inletAt(0, "one", 100<<20, 0, 0))
	wantScreen(t, m, "inlet 3kqhabcdef…", "up 1h00m", "0 B/s there", "3 streams", "[streams]", "by rate")
	if got := services(m); got != "012" {
		t.Errorf("streams %s, want 012: the most bytes first", got)
	}
	m = feed(m, inletAt(2, "one", 100<<20, 10<<10, 20<<10))
	wantScreen(t, m, "15 KiB/s there", "10 KiB")
	if got := services(m); got != "210" {
		t.Errorf("streams %s, want 210: the fastest first", got)
	}
	// Another process, whose counts begin anew.
	m = feed(m, inletAt(4, "two", 5, 5, 5))
	wantScreen(t, m, "0 B/s there")
	// Counts that run backwards, and a clock, are nobody's rates.
	m = feed(m, inletAt(6, "two", 1, 1, 1), inletAt(1, "two", 9, 9, 9))
	wantScreen(t, m, "0 B/s there")
}

// The keys sort, turn, filter, pause, scroll and quit.
func TestKeys(t *testing.T) {
	m := feed(New(Config{}), tea.WindowSizeMsg{Width: 80, Height: 24}, inletAt(0, "one", 3, 1, 2))
	if m = feed(m, press("s")...); services(m) != "021" {
		t.Errorf("by bytes: %s, want 021", services(m))
	}
	if m = feed(m, press("s")...); services(m) != "210" {
		t.Errorf("by age: %s, want 210: the oldest first", services(m))
	}
	if m = feed(m, press("r")...); services(m) != "012" {
		t.Errorf("reversed: %s, want 012", services(m))
	}
	m = feed(m, press("/ICE-2")...)
	wantScreen(t, m, "filter: ICE-2")
	if services(m) != "2" {
		t.Errorf("filtered: %s, want 2", services(m))
	}
	m = feed(m, special(tea.KeyBackspace), special(tea.KeyEnter))
	wantScreen(t, m, "filter: ICE-", "/ changes it")
	if m = feed(m, special(tea.KeyEscape)); services(m) != "012" {
		t.Errorf("without the filter: %s, want 012", services(m))
	}
	m = feed(feed(m, press("p")...), inletAt(2, "one", 0))
	wantScreen(t, m, " paused ", "3 streams")
	m = feed(feed(m, press("p")...), inletAt(4, "one", 0))
	wantScreen(t, m, "1 stream")
	wantScreen(t, feed(m, press("?")...), "one down", "reverse")
	for _, k := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		_, cmd := m.Update(k)
		if cmd == nil {
			t.Fatalf("%s does nothing", k)
		}
		if _, quits := cmd().(tea.QuitMsg); !quits {
			t.Errorf("%s does not quit", k)
		}
	}
}

// Each role has its views, and tab goes through them.
func TestViews(t *testing.T) {
	m := feed(New(Config{}), inletAt(0, "one", 1))
	tab := special(tea.KeyTab)
	wantScreen(t, feed(m, tab), "[channels]", "outlet-a", "open")
	wantScreen(t, feed(m, tab, tab), "[routes]", "b-route", "connection refused", "failed")
	wantScreen(t, feed(m, tab, tab, tab), "[services]", "none")
	wantScreen(t, feed(m, tab, tab, tab, tab), "[streams]", "service-0")

	relay := inletAt(0, "three")
	relay.status.Role = watch.Relay
	relay.status.Joins = []watch.Join{{Request: "connect", Caller: "caller-id", Target: "target-id", Since: start, ToTarget: 2048}}
	relay.status.JoinsLeft = 4
	m = feed(feed(m, tab, tab), relay) // another process, of another role, answers there now
	wantScreen(t, m, "[joins]", "caller-id", "2.0 KiB", "4 older ones left off")
	wantScreen(t, feed(m, tab), "[registrations]")

	outlet := inletAt(0, "four")
	outlet.status.Role = watch.Outlet
	outlet.status.Registrations = []watch.Registration{{Address: "10.0.0.1:4000", LastError: "register_denied"}}
	wantScreen(t, feed(New(Config{}), outlet, tab, tab), "10.0.0.1:4000", "not registered", "register_denied")
}

// While nobody answers, what was there stays, with since when; then it goes on.
func TestUnreachable(t *testing.T) {
	down := func(s int) answer {
		return answer{err: errors.New("connection\nrefused\x1b[2J"), at: start.Add(time.Duration(s) * time.Second)}
	}
	m := feed(New(Config{Address: "127.0.0.1:9101"}), down(0))
	wantScreen(t, m, "asking 127.0.0.1:9101", "not reachable since ", "connection; refused?[2J")
	m = feed(m, inletAt(1, "one", 5), down(2), down(3))
	at := start.Add(2 * time.Second).Local().Format(time.TimeOnly)
	wantScreen(t, m, "service-0", "not reachable since "+at)
	m = feed(m, inletAt(4, "two", 7))
	if text := strings.Join(lines(m), "\n"); strings.Contains(text, "not reachable") {
		t.Errorf("it is reachable again:\n%s", text)
	}
	notReady := inletAt(5, "two", 7)
	notReady.ready = &watch.Readiness{Checks: []watch.Check{{Name: "service a", Reason: "no channel"}}}
	wantScreen(t, feed(m, notReady), "not ready", "service a: no channel")
}

// One question is on its way at a time: the next one comes after the answer, and a
// moment.
func TestAsksAgain(t *testing.T) {
	asked := 0
	m := New(Config{Interval: time.Millisecond, Ask: func(context.Context) (*watch.Status, *watch.Readiness, error) {
		asked++
		a := inletAt(asked, "one", int64(asked))
		return a.status, a.ready, nil
	}})
	cmd := m.Init()
	for range 3 {
		next, wait := m.Update(cmd())
		if wait == nil {
			t.Fatal("an answer is followed by nothing")
		}
		m = next.(Model)
		next, cmd = m.Update(wait())
		m = next.(Model)
	}
	if asked != 3 {
		t.Errorf("asked %d times, want 3", asked)
	}
}

// Whatever keys are pressed on a screen of whatever size, at whatever answers, the
// screen fits, and rows do not end before the screen does.
func TestAnyKeysOnAnyScreen(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := New(Config{})
		width, height := 80, 24
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				width, height = rapid.IntRange(1, 200).Draw(rt, "width"), rapid.IntRange(1, 60).Draw(rt, "height")
				m = feed(m, tea.WindowSizeMsg{Width: width, Height: height})
			case 1:
				a := inletAt(rapid.IntRange(0, 100).Draw(rt, "second"), "one", rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 0, 100).Draw(rt, "bytes")...)
				a.status.Role = watch.Text(rapid.SampledFrom([]string{watch.Inlet, watch.Outlet, watch.Relay, "other"}).Draw(rt, "role"))
				m = feed(m, a)
			case 2:
				m = feed(m, answer{err: errors.New("down"), at: start})
			case 3:
				m = feed(m, rapid.SampledFrom([]tea.Msg{
					press("s")[0], press("r")[0], press("/")[0], press("p")[0], press("?")[0], press("j")[0], press("k")[0], press("G")[0], press("g")[0], press("漢")[0],
					special(tea.KeyTab), special(tea.KeyPgDown), special(tea.KeyPgUp), special(tea.KeyEnter), special(tea.KeyEscape), special(tea.KeyBackspace),
				}).Draw(rt, "key"))
			}
			all := lines(m)
			if len(all) > height {
				rt.Fatalf("%d lines on a screen of %d", len(all), height)
			}
			for _, l := range all {
				if n := ansi.StringWidth(l); n > width {
					rt.Fatalf("a line of %d columns on a screen of %d: %q", n, width, l)
				}
			}
			if n := len(m.rows()); m.first > 0 && m.first+m.room() > n {
				rt.Fatalf("rows from %d on, %d fit, and there are %d", m.first, m.room(), n)
			}
		}
	})
}
