//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shotsVariable names the folder for pictures of the pages that tests see, for a
// person to look at; without it none are made.
const shotsVariable = "CULVERT_E2E_SCREENSHOTS"

// A browser is a headless Chromium.
type browser struct{ ctx context.Context }

// startBrowser starts one that ends with the test.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := find("chromium", "/usr/bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := testDir(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // which not every container lets it have; it sees this project's pages only
		chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.Env("HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) { unprivileged(cmd).Dir = dir }),
	)
	allocator, free := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(free)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // without a time-out, which would be the browser's
		t.Fatalf("starting Chromium: %v", err)
	}
	return &browser{ctx}
}

// A window is how a page is looked at.
type window struct {
	width, height int64
	scheme        string // light or dark, as the system prefers
}

var (
	desktop = window{1280, 900, "light"}
	night   = window{1280, 900, "dark"}
	phone   = window{360, 740, "light"}
)

// A page is a tab with a profile of its own.
type page struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // what the browser has complained about
}

// open opens a page that is closed at the end of the test.
func (b *browser) open(t *testing.T, url string, w window) *page {
	t.Helper()
	p := &page{t: t}
	var cancel context.CancelFunc
	p.ctx, cancel = chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.hear))
	t.Cleanup(cancel)
	if err := chromedp.Do(p.ctx); err != nil { // without a time-out, which would be the tab's
		t.Fatalf("opening a tab: %v", err)
	}
	p.do(w.emulate, chromedp.Navigate(url))
	return p
}

// emulate makes a tab as large as the window.
func (w window) emulate(ctx context.Context, tab *chromedp.Target) (chromedp.Void, error) {
	size := emulation.SetDeviceMetricsOverrideParams{Width: w.width, Height: w.height, DeviceScaleFactor: 1, Mobile: w.width < 500}
	if _, err := cdp.Call(ctx, tab, emulation.SetDeviceMetricsOverride, size); err != nil {
		return chromedp.Void{}, err
	}
	scheme := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: w.scheme}}}
	_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, scheme)
	return chromedp.Void{}, err
}

// hear notes errors and warnings: of scripts, of the network, of the page's policy.
func (p *page) hear(event any) {
	problem := ""
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			problem = fmt.Sprintf("console.%s", e.Type)
			for _, arg := range e.Args {
				problem += " " + string(arg.Value) + arg.Description
			}
		}
	case *runtime.EventExceptionThrown:
		problem = "exception: " + e.ExceptionDetails.Text
		if thrown := e.ExceptionDetails.Exception; thrown != nil {
			problem += " " + thrown.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			problem = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	}
	if problem == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, problem)
}

// takeProblems returns what the browser has complained about since it was asked last.
func (p *page) takeProblems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	problems := p.problems
	p.problems = nil
	return problems
}

func (p *page) wantNoProblems() {
	p.t.Helper()
	for _, problem := range p.takeProblems() {
		p.t.Errorf("the browser complains: %s", problem)
	}
}

// do takes steps, each of which has to work.
func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ask(p, chromedp.Steps(steps...))
}

// ask takes a step and returns what comes of it.
func ask[T any](p *page, step chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, step)
	if err != nil {
		p.t.Fatalf("the browser: %v", err)
	}
	return value
}

// eval returns the value of an expression in the page.
func eval[T any](p *page, expression string) T {
	p.t.Helper()
	return ask(p, chromedp.Evaluate[T](expression))
}

// wantTrue waits until an expression is true.
func (p *page) wantTrue(within time.Duration, expression string) {
	p.t.Helper()
	if !eventually(within, func() bool { return eval[bool](p, expression) }) {
		p.shot("failed-" + strings.ReplaceAll(p.t.Name(), "/", "-"))
		p.t.Fatalf("not true within %v: %s\nthe page:\n%s", within, expression, eval[string](p, "document.body.innerText"))
	}
}

// wantText waits until what a selector finds first has all of parts in its text.
func (p *page) wantText(within time.Duration, selector string, parts ...string) {
	p.t.Helper()
	var text string
	if !eventually(within, func() bool {
		text = eval[string](p, fmt.Sprintf("document.querySelector(%q)?.textContent ?? ''", selector))
		return holdsAll(text, parts)
	}) {
		p.shot("failed-" + strings.ReplaceAll(p.t.Name(), "/", "-"))
		p.t.Fatalf("%s: after %v the text is %q, want %q in it\nthe page:\n%s", selector, within, text, parts, eval[string](p, "document.body.innerText"))
	}
}

// press presses keys, one after the other, as on a keyboard.
func (p *page) press(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		p.do(chromedp.KeyEvent(key))
	}
}

// shot makes a picture of the whole page, if somebody wants to see it.
func (p *page) shot(name string) {
	p.t.Helper()
	folder := os.Getenv(shotsVariable)
	if folder == "" {
		return
	}
	png := ask(p, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
