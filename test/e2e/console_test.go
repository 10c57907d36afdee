//go:build e2e && linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A consoleWorld has two ways from an inlet to an outlet: by relay1, and by relay2 and
// relay3.
type consoleWorld struct {
	*world
	b     *browser
	calls map[string]string // from service to where the inlet offers it
}

func newConsoleWorld(t *testing.T) *consoleWorld {
	t.Helper()
	w := newWorld(t)
	callers := []string{"inlet"}
	w.relay("relay1", relayConfig{Register: []string{"outlet", "authority"}, Connect: callers})
	w.relay("relay3", relayConfig{Register: []string{"outlet"}, Connect: callers})
	w.relay("relay2", relayConfig{Connect: callers, Extend: []string{"relay3"}})
	target := serveTCP(t, echo)
	o := outletConfig{Relays: []string{w.hop("relay1"), w.hop("relay3")}}
	in := inletConfig{Extra: "name: checkout\n"}
	c := &consoleWorld{world: w, b: startBrowser(t), calls: map[string]string{}}
	for _, name := range []string{"orders-db", "sessions"} {
		o.Services = append(o.Services, service{name, target, callers})
		in.Services = append(in.Services, local{name, "outlet", []string{w.hop("relay1"), w.hop("relay2") + "," + w.hop("relay3")}})
	}
	w.outlet("outlet", o)
	w.inlet("inlet", in)
	w.authority("authority", "relay1")
	for _, s := range in.Services {
		c.calls[s.Service] = w.at("inlet", s.Service)
	}
	return c
}

// open opens the console of a node and waits until it shows something.
func (c *consoleWorld) open(t *testing.T, name string, w window) *page {
	t.Helper()
	p := c.b.open(t, "http://"+c.node(name).admin+"/", w)
	p.wantText(patience, "#live", "Live")
	return p
}

// TestConsole looks at the consoles of running programs with a browser.
func TestConsole(t *testing.T) {
	t.Parallel()
	c := newConsoleWorld(t)
	stop := c.load()
	defer stop()
	for _, test := range []struct {
		name string
		run  func(*testing.T, *consoleWorld)
	}{
		{"stream", testConsoleStream},
		{"outlet", testConsoleOutlet},
		{"relay", testConsoleRelay},
		{"authority", testConsoleAuthority},
		{"keyboard", testConsoleKeyboard},
		{"schemes", testConsoleSchemes},
		{"phone", testConsolePhone},
		{"policy", testConsolePolicy},
		{"hostile", testConsoleHostile},
		{"killed relay", testConsoleKilledRelay},
		{"lost connection", testConsoleLost},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, c) }) && t.Failed() {
			t.Logf("log of inlet:\n%s", c.node("inlet").log.tail(20))
		}
	}
}

// load keeps a stream busy, so that there is something to see, until stop is called.
// Whether a stream of it ends is another test's business.
func (c *consoleWorld) load() (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		nc, err := net.Dial("tcp", c.calls["sessions"])
		if err != nil {
			return
		}
		defer nc.Close()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if tryExchange(nc, strings.Repeat("load", 2000+1500*(n/40%3)), time.Minute) != nil {
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

// row is an expression for the cells' texts of the table's first row that has all of
// words in it, joined by "|"; "" if there is none.
func row(table string, words ...string) string {
	conditions := "true"
	for _, word := range words {
		conditions += fmt.Sprintf(" && tr.textContent.includes(%q)", word)
	}
	return fmt.Sprintf("([...document.querySelectorAll('#%s tbody tr')].filter((tr) => %s).map((tr) => [...tr.cells].map((c) => c.textContent).join('|'))[0] ?? '')", table, conditions)
}

// A stream is in the table while it is open, its bytes grow as they pass, and the chart
// and the sums have them, too.
func testConsoleStream(t *testing.T, c *consoleWorld) {
	p := c.open(t, "inlet", desktop)
	p.wantText(patience, "#role", "Inlet")
	p.wantText(patience, "#ready", "Ready")
	p.wantText(patience, "#who", c.id("inlet"))
	nc := dial(t, c.calls["orders-db"])
	client := nc.LocalAddr().String()
	for n := 1; n <= 3; n++ {
		exchange(t, nc, strings.Repeat("x", 1<<20))
		want := fmt.Sprintf("%d.00 MiB|%d.00 MiB", n, n)
		p.wantTrue(patience, row("streams", "orders-db", client)+fmt.Sprintf(".includes(%q)", want))
	}
	p.wantTrue(patience, row("channels", "open")+".includes('s|')")            // the age of its keys
	p.wantTrue(patience, row("services", "orders-db")+".includes('3.00 MiB')") // of all streams
	p.wantTrue(patience, "document.querySelectorAll('#charts path.line0')[0].getAttribute('d').split('L').length > 2")
	for _, node := range []string{"relay1", "relay2", "relay3"} {
		p.wantText(patience, "#pictures svg", shownAddr(c.addr(node)))
	}
	p.wantTrue(patience, "document.querySelectorAll('#pictures .node.relay.used').length === 1")
	p.wantTrue(patience, "document.querySelectorAll('#pictures .node.relay.spare').length === 2")
	p.shot("inlet-light")
	nc.Close()
	p.wantTrue(patience, row("streams", client)+" === ''")
	p.wantNoProblems()
}

// shownAddr is the part of an address that is shown at any width.
func shownAddr(addr string) string { _, port := splitAddr(addr); return port }

func testConsoleOutlet(t *testing.T, c *consoleWorld) {
	p := c.open(t, "outlet", desktop)
	p.wantText(patience, "#role", "Outlet")
	p.wantTrue(patience, row("channels", "checkout", "up")+" !== ''")
	p.wantTrue(patience, row("streams", "checkout", "sessions")+" !== ''")
	p.wantTrue(patience, row("registrations", c.addr("relay3"), "registered")+" !== ''")
	p.wantText(patience, "#pictures svg", "checkout", "sessions", shownAddr(c.addr("relay1")))
	p.shot("outlet-light")
	p.wantNoProblems()
}

func testConsoleRelay(t *testing.T, c *consoleWorld) {
	p := c.open(t, "relay1", desktop)
	p.wantText(patience, "#role", "Relay")
	p.wantTrue(patience, row("registrations", c.id("outlet")[:8], "registered")+" !== ''")
	p.wantTrue(patience, row("joins", c.id("inlet")[:8], "connect")+".includes('KiB/s')") // the load
	p.wantText(patience, "#pictures svg", c.id("inlet")[:8], c.id("outlet")[:8])
	p.shot("relay-light")
	p.wantNoProblems()
}

func testConsoleAuthority(t *testing.T, c *consoleWorld) {
	p := c.open(t, "authority", desktop)
	p.wantText(patience, "#role", "Authority")
	p.wantText(patience, "#pictures svg", "No member", shownAddr(c.addr("relay1")))
	p.wantTrue(patience, row("registrations", c.addr("relay1"), "registered")+" !== ''")
	p.wantNoProblems()
}

// focused is an expression for what has the focus, as text.
const focused = "(document.activeElement.id || document.activeElement.textContent)"

// testConsoleKeyboard does with the keyboard alone what can be done.
func testConsoleKeyboard(t *testing.T, c *consoleWorld) {
	p := c.open(t, "inlet", desktop)
	for range 3 {
		nc := dial(t, c.calls["orders-db"])
		exchange(t, nc, "here")
	}
	const rows = "document.querySelectorAll('#streams tbody tr').length"
	p.wantTrue(patience, rows+" === 4")

	p.press("/")
	p.wantTrue(patience, focused+" === 'streams-filter'")
	p.press("p", "t") // which are keys elsewhere
	p.wantText(patience, "#streams .nothing", "Nothing here matches")
	p.press(kb.Escape)
	p.wantTrue(patience, rows+" === 4")
	p.press("O", "r", "d", "e", "r", "s")
	p.wantTrue(patience, rows+" === 3")
	p.wantText(patience, "#streams .note", "3 of 4 match")
	p.wantText(patience, "#say", "3 of 4 match")
	p.press(kb.Escape)
	p.wantTrue(patience, rows+" === 4")

	p.tabTo("Service")
	for _, want := range []string{"ascending", "descending"} {
		p.press(kb.Enter)
		p.wantTrue(patience, fmt.Sprintf("document.activeElement.closest('th').ariaSort === %q", want))
		first := map[string]string{"ascending": "orders-db", "descending": "sessions"}[want]
		p.wantTrue(patience, fmt.Sprintf("document.querySelector('#streams tbody tr').textContent.startsWith(%q)", first))
	}
	p.wantTrue(patience, "getComputedStyle(document.activeElement).outlineStyle === 'solid'")

	p.tabTo("sessions") // the first row: one stop for all of them
	p.press(kb.ArrowDown, kb.ArrowDown)
	p.wantTrue(patience, "document.activeElement.closest('tr').rowIndex === 3")
	p.press(kb.Enter)
	p.wantTrue(patience, "document.querySelector('#details').open")
	p.wantText(patience, "#details-list", c.id("outlet"), c.calls["orders-db"][:4])
	p.press(kb.Escape)
	p.wantTrue(patience, "!document.querySelector('#details').open && document.activeElement.closest('tr').rowIndex === 3")
	// The row keeps the focus while others come before it.
	newest := dial(t, c.calls["sessions"])
	exchange(t, newest, "here")
	p.wantTrue(patience, rows+" === 5")
	p.wantTrue(patience, "document.activeElement.closest('tr').rowIndex === 4")

	p.press("?")
	p.wantTrue(patience, "document.querySelector('#keys').open")
	p.press(kb.Escape, "1")
	p.wantTrue(patience, focused+" === 'routes-title'")
	p.press(kb.Tab)
	p.wantTrue(patience, "document.activeElement.closest('.node') !== null")
	p.wantTrue(patience, "document.querySelector('#pictures .detail').textContent === document.activeElement.getAttribute('aria-label')")
	p.press("p")
	p.wantText(patience, "#live", "Paused")
	newest.Close()
	p.press("p")
	p.wantTrue(patience, rows+" === 4")
	p.wantNoProblems()
}

// tabTo presses Tab until the focus is on what has that text.
func (p *page) tabTo(text string) {
	p.t.Helper()
	for range 60 {
		p.press(kb.Tab)
		if eval[string](p, focused) == text {
			return
		}
	}
	p.t.Fatalf("Tab does not come to %q; the focus is on %q", text, eval[string](p, focused))
}

// testConsoleSchemes wants the page to look as the system does, unless it is told
// otherwise, which it remembers.
func testConsoleSchemes(t *testing.T, c *consoleWorld) {
	const dark = "getComputedStyle(document.documentElement).backgroundColor === 'rgb(18, 22, 25)'"
	p := c.open(t, "inlet", night)
	p.wantTrue(patience, dark)
	p.shot("inlet-dark")
	p.press("t")
	p.wantTrue(patience, "!("+dark+")")
	p.do(chromedp.Reload())
	p.wantText(patience, "#live", "Live")
	p.wantTrue(patience, "!("+dark+")")
	p.press("t")
	p.wantTrue(patience, dark+" && localStorage.getItem('culvert-theme') === null")
	p.wantNoProblems()
	for _, name := range []string{"outlet", "relay1"} {
		p := c.open(t, name, night)
		p.wantTrue(patience, dark)
		p.shot(strings.TrimSuffix(name, "1") + "-dark")
	}
}

// wider is an expression for what is wider than its place, in the window or in a table
// or dialog that would have to be scrolled sideways; "" if nothing is.
const wider = `[...document.querySelectorAll('body *')].filter((e) => !e.closest('svg, .hidden, .skip, [hidden]')).filter((e) => {
	const place = e.closest('.scroll, dialog')?.getBoundingClientRect() ?? { left: 0, right: innerWidth };
	const { left, right, width } = e.getBoundingClientRect();
	return width > 0 && (left < place.left - 1 || right > place.right + 1);
}).slice(0, 5).map((e) => e.tagName + '#' + e.id + '.' + e.className + ' ' + e.textContent.slice(0, 40)).join('\n')`

// wantFits wants nothing to be scrolled sideways.
func (p *page) wantFits() {
	p.t.Helper()
	var found string
	if !eventually(patience, func() bool {
		found = eval[string](p, wider)
		return found == "" && eval[bool](p, "document.documentElement.scrollWidth <= innerWidth")
	}) {
		p.shot("failed-" + strings.ReplaceAll(p.t.Name(), "/", "-"))
		p.t.Errorf("in a window of %d pixels some elements are wider:\n%s", eval[int](p, "innerWidth"), found)
	}
}

func testConsolePhone(t *testing.T, c *consoleWorld) {
	for _, name := range []string{"inlet", "outlet", "relay1", "relay2"} {
		w := phone
		if name == "outlet" {
			w.scheme = "dark"
		}
		p := c.open(t, name, w)
		p.wantTrue(patience, "document.querySelector('#pictures svg') !== null && document.querySelector('#charts svg') !== null")
		p.wantTrue(patience, "innerWidth === 360")
		p.wantFits()
		p.shot(name + "-phone")
		p.press("?")
		p.wantTrue(patience, "document.querySelector('#keys').open")
		p.wantFits()
		p.wantNoProblems()
	}
}

// testConsolePolicy wants the browser to refuse what the page never does, and the tests
// to hear of it.
func testConsolePolicy(t *testing.T, c *consoleWorld) {
	p := c.open(t, "inlet", desktop)
	p.wantNoProblems()
	for _, tt := range []struct{ what, does, complaint string }{
		{"an inline script", "{ const e = document.createElement('script'); e.textContent = 'window.hurt = 1'; document.body.append(e) }", "TrustedScript"},
		{"an inline style", "document.body.setAttribute('style', 'color: red')", "style-src"},
		{"an image of others", "{ const e = new Image(); e.src = 'http://127.0.0.1:1/'; document.body.append(e) }", "img-src"},
		{"markup from a string", "document.body.insertAdjacentHTML('beforeend', '<b>hurt</b>')", "TrustedHTML"},
		{"a frame", "{ const e = document.createElement('iframe'); e.src = '/healthz'; document.body.append(e) }", "default-src"},
		{"a request elsewhere", "fetch('http://127.0.0.1:1/').catch(() => {})", "connect-src"},
	} {
		hurt := eval[bool](p, fmt.Sprintf("(() => { try { %s } catch { } return window.hurt === 1 })()", tt.does))
		var problems []string
		if !eventually(patience, func() bool {
			problems = append(problems, p.takeProblems()...)
			return strings.Contains(strings.Join(problems, "\n"), tt.complaint)
		}) || hurt {
			t.Errorf("%s: done: %v, complaints: %q; want one about %s", tt.what, hurt, problems, tt.complaint)
		}
	}
}

// testConsoleKilledRelay kills the relay in use: the picture says so, and which other
// way is taken; the stream and its row live on.
func testConsoleKilledRelay(t *testing.T, c *consoleWorld) {
	p := c.open(t, "inlet", desktop)
	nc := dial(t, c.calls["orders-db"])
	exchange(t, nc, "before")
	client := nc.LocalAddr().String()
	p.wantTrue(patience, row("streams", client)+" !== ''")
	p.wantTrue(patience, "document.querySelectorAll('#pictures .node.relay.used').length === 1")
	relay := c.node("relay1")
	relay.kill()
	killed := time.Now()
	// Within seconds of the kill: of what a page that asks each second can show.
	p.wantTrue(patience, "[...document.querySelectorAll('#pictures .node.relay.failed')].some((n) => n.textContent.includes("+fmt.Sprintf("%q", shownAddr(c.addr("relay1")))+"))")
	p.wantTrue(patience, "document.querySelectorAll('#pictures .node.relay.used').length === 2")
	t.Logf("shown %v after the kill", time.Since(killed).Round(10*time.Millisecond))
	p.wantText(patience, "#pictures .faults", "failed", shownAddr(c.addr("relay1")))
	exchange(t, nc, "after")
	p.wantTrue(patience, row("streams", client)+" !== ''")
	p.wantTrue(patience, row("channels", c.addr("relay3"), "open")+" !== ''")
	p.shot("inlet-failed")
	p.wantNoProblems()
	relay.restart().wantReady()
}

// testConsoleLost ends the inlet: the page says at once that it is gone, keeps what it
// knew, and goes on by itself with the next process.
func testConsoleLost(t *testing.T, c *consoleWorld) {
	p := c.open(t, "inlet", desktop)
	before := eval[string](p, "document.querySelector('#facts').textContent")
	p.wantNoProblems()
	inlet := c.node("inlet")
	inlet.kill()
	p.wantText(patience, "#lost", "No connection to the admin server", "What you see is from")
	p.wantText(patience, "#live", "No connection")
	p.wantTrue(patience, "document.querySelector('#ready').hidden")
	p.wantTrue(patience, "document.querySelectorAll('#pictures .node').length > 3") // what was known
	p.shot("inlet-lost")
	inlet.restart().wantReady()
	p.wantText(patience, "#live", "Live")
	p.wantTrue(patience, "document.querySelector('#lost').textContent === ''")
	p.wantText(patience, "#say", "Connected again")
	p.wantTrue(patience, fmt.Sprintf("document.querySelector('#facts').textContent !== %q", before)) // another instance
	nc := dial(t, c.calls["orders-db"])
	if _, err := io.WriteString(nc, "new"); err != nil {
		t.Fatal(err)
	}
	p.wantTrue(patience, row("streams", nc.LocalAddr().String())+" !== ''")
}
