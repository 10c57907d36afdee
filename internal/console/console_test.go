package console

import (
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// newMux serves the console behind headers like those of an admin server.
func newMux(t *testing.T) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", http.NotFound)
	handlers, err := Handlers()
	if err != nil {
		t.Fatal(err)
	}
	for pattern, h := range handlers {
		mux.Handle(pattern, h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		mux.ServeHTTP(w, r)
	})
}

func ask(t *testing.T, h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	mux := newMux(t)
	for _, tt := range []struct {
		method, target string
		code           int
		mediaType      string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/console/main.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/console/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/console/icon.svg", 200, "image/svg+xml"},
		{"GET", "/console/", 404, ""},
		{"GET", "/console", 404, ""},
		{"GET", "/console/index.html", 404, ""}, // one page, one address
		{"GET", "/console/nothing.js", 404, ""},
		{"GET", "/console/%2e%2e/console.go", 404, ""},
		{"GET", "/index.html", 404, ""},
		{"POST", "/", 404, ""},
		{"PUT", "/console/main.js", 404, ""},
	} {
		got := ask(t, mux, tt.method, tt.target)
		if got.Code != tt.code {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.target, got.Code, tt.code)
		}
		if tt.code != 200 {
			continue
		}
		for name, want := range map[string]string{"Content-Type": tt.mediaType, "Cache-Control": "no-cache", "Content-Security-Policy": policy} {
			if value := got.Header().Get(name); value != want {
				t.Errorf("%s %s: %s is %q, want %q", tt.method, tt.target, name, value, want)
			}
		}
	}
}

// A browser that has a file is told so, and gets another version at once.
func TestCaching(t *testing.T) {
	mux := newMux(t)
	tags := map[string]string{}
	for _, target := range []string{"/", "/console/main.js", "/console/style.css"} {
		tag := ask(t, mux, "GET", target).Header().Get("ETag")
		if other, twice := tags[tag]; twice || tag == "" {
			t.Errorf("%s and %s have the same entity tag %q", target, other, tag)
		}
		tags[tag] = target
		for given, want := range map[string]int{tag: 304, `"another"`: 200, `"another", ` + tag: 304} {
			got := ask(t, mux, "GET", target, "If-None-Match", given)
			if got.Code != want || got.Header().Get("ETag") != tag {
				t.Errorf("%s with If-None-Match %s: %d with tag %s, want %d with %s", target, given, got.Code, got.Header().Get("ETag"), want, tag)
			}
		}
	}
}

// files returns all files by name.
func files(t *testing.T) map[string]string {
	t.Helper()
	entries, err := static.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		content, err := static.ReadFile(path.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(content)
	}
	return all
}

// Whatever a file names is there, and whatever is there is named by one.
func TestFilesBelongTogether(t *testing.T) {
	names := regexp.MustCompile(`(?:href|src)="console/([^"]+)"|from "\./([^"]+)"`)
	all := files(t)
	named := map[string]bool{page: true}
	for name, content := range all {
		for _, m := range names.FindAllStringSubmatch(content, -1) {
			to := m[1] + m[2]
			named[to] = true
			if _, there := all[to]; !there {
				t.Errorf("%s names %s, which is not there", name, to)
			}
		}
	}
	for name := range all {
		if !named[name] {
			t.Errorf("no file names %s", name)
		}
	}
}

// The browser holds this too, by the policy; here it is known before.
func TestNothingTurnsTextIntoCode(t *testing.T) {
	forbidden := []*regexp.Regexp{
		regexp.MustCompile(`(?i)(inner|outer)HTML|insertAdjacentHTML|document\.write|setHTML|DOMParser|createContextualFragment|srcdoc`),
		regexp.MustCompile(`\beval\b|new Function|setTimeout\("|javascript:`),
		regexp.MustCompile(`(?i)<script(>| [^>]*>[^<])|<style|\sstyle=|\son[a-z]+=["']`),
		regexp.MustCompile(`@import|url\(`),
	}
	elsewhere := regexp.MustCompile(`(?i)\b(https?|wss?|ftp):[^\s"]*|["'(=]//[^\s"]*`)
	for name, content := range files(t) {
		for _, f := range forbidden {
			if m := f.FindString(content); m != "" {
				t.Errorf("%s has %q", name, m)
			}
		}
		for _, m := range elsewhere.FindAllString(content, -1) {
			if m != "http://www.w3.org/2000/svg" { // a name, which nobody asks
				t.Errorf("%s leads elsewhere: %q", name, m)
			}
		}
	}
}

// The page reads three paths of its own server, by one fetch without a method.
func TestReadsOnly(t *testing.T) {
	all := files(t)
	var scripts strings.Builder
	for name, content := range all {
		if path.Ext(name) == ".js" {
			scripts.WriteString(content)
		}
	}
	text := scripts.String()
	if n := strings.Count(text, "fetch("); n != 1 {
		t.Errorf("fetch is called in %d places, want 1", n)
	}
	var paths []string
	for _, m := range regexp.MustCompile("[^.\\w]get\\([\"`]([a-z/]+)").FindAllStringSubmatch(text, -1) {
		paths = append(paths, m[1])
	}
	slices.Sort(paths)
	if want := []string{"readyz", "status", "status/history"}; !slices.Equal(paths, want) {
		t.Errorf("the page reads %q, want %q", paths, want)
	}
	for _, word := range []string{"method:", "XMLHttpRequest", "WebSocket", "EventSource", "sendBeacon", "Worker"} {
		if strings.Contains(text, word) {
			t.Errorf("the scripts have %q", word)
		}
	}
}
