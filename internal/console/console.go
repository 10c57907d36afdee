// Package console owns the web console, the page on which a browser shows what the
// admin server says of its process: HTML, a style sheet and ECMAScript modules, as they
// stand in static/. It knows nothing of the process, decides nothing about who may ask,
// and changes nothing: the page only reads /status, /status/history and /readyz.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"path"
	"time"
)

//go:embed static
var static embed.FS

const (
	folder = "static"
	page   = "index.html"
	// prefix is where the page finds what it is made of.
	prefix = "/console/"
)

// policy is the Content-Security-Policy (W3C, Content Security Policy Level 3) of the
// page: it runs the files of this package and nothing else, asks this server alone, and
// has no way from a string to markup (Trusted Types, without any policy that makes one).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// mediaTypes are those of the files. The machine's own list of them may be any.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Handlers returns the handlers of the page, at /, and of its files, below /console/,
// by patterns of [http.ServeMux]. They answer GET and HEAD, read no request's body, and
// set the headers Content-Security-Policy and Cache-Control in the place of stricter
// ones that may be there.
func Handlers() (map[string]http.Handler, error) {
	entries, err := static.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("reading the console's files: %w", err)
	}
	all := make(map[string]http.Handler, len(entries))
	for _, e := range entries {
		f, err := newFile(e.Name())
		if err != nil {
			return nil, err
		}
		if e.Name() == page {
			all["GET /{$}"] = f
		} else {
			all["GET "+prefix+e.Name()] = f
		}
	}
	return all, nil
}

// A file is one that does not change while the process runs.
type file struct {
	content   []byte
	mediaType string
	tag       string // entity tag (RFC 9110, section 8.8.3)
}

func newFile(name string) (*file, error) {
	content, err := static.ReadFile(path.Join(folder, name))
	if err != nil {
		return nil, fmt.Errorf("reading the console's file %s: %w", name, err)
	}
	mediaType, known := mediaTypes[path.Ext(name)]
	if !known {
		return nil, fmt.Errorf("the console's file %s has no media type", name)
	}
	sum := sha256.Sum256(content)
	return &file{content, mediaType, `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}, nil
}

// ServeHTTP answers with the file, or that the browser has it already. It has to ask
// each time, so that a page never runs with the files of another version.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("Content-Security-Policy", policy)
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
