package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/inject"
)

// reviewVersion is the only version of AdmissionReview that is understood.
const reviewVersion = "admission.k8s.io/v1"

// A review is an AdmissionReview, as far as it matters here: with a request when it
// comes, and with a response when it goes.
type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID       string          `json:"uid"`
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Operation string          `json:"operation"`
	DryRun    bool            `json:"dryRun"` // nothing is done differently: there are no side effects
	Object    json.RawMessage `json:"object"`
}

type response struct {
	UID       string   `json:"uid"`
	Allowed   bool     `json:"allowed"`
	PatchType string   `json:"patchType,omitempty"`
	Patch     []byte   `json:"patch,omitempty"` // base64 in JSON
	Warnings  []string `json:"warnings,omitempty"`
	Status    *status  `json:"status,omitempty"`
}

// A status says why a request is refused.
type status struct {
	Message string `json:"message"`
	Reason  string `json:"reason"`
	Code    int    `json:"code"`
}

// An answer is what is decided about one request.
type answer struct {
	result   string // for metrics
	patch    []inject.Operation
	sidecars []string
	warnings []string
	refused  error
}

// The results of reviews, as metrics have them.
const (
	resultInjected  = "injected"
	resultUnchanged = "unchanged"
	resultRefused   = "refused"
	resultInvalid   = "invalid" // no review at all
	// resultOverloaded is that of a review for which there was no place in its time.
	resultOverloaded = "overloaded"
	// resultGone is that of a review whose caller has hung up before its time was over.
	resultGone = "gone"
)

// handler serves reviews: of pods, which are changed, at /inject; and of what has
// templates of pods, which is only looked at, at /check.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /inject", s.serve(s.injectPod))
	mux.HandleFunc("POST /check", s.serve(s.checkTemplate))
	return mux
}

// serve answers a review by what decide says of its object.
func (s *Server) serve(decide func(object map[string]any) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), patience(r.URL.Query()))
		defer cancel()
		if err := s.gate.admit(); err != nil {
			s.sendAway(w, r, begun, http.StatusServiceUnavailable, err)
			return
		}
		defer leave(s.gate.waiting)
		body, release, code, err := s.read(ctx, w, r)
		defer release()
		if err != nil {
			s.sendAway(w, r, begun, code, err)
			return
		}
		s.answer(ctx, w, r, body, decide, begun)
	}
}

// answer decides about a review that was read, and answers it.
func (s *Server) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, body []byte, decide func(object map[string]any) answer, begun time.Time) {
	if err := enter(ctx, s.gate.deciding); err != nil {
		s.sendAway(w, r, begun, http.StatusServiceUnavailable, err)
		return
	}
	defer leave(s.gate.deciding)
	in, err := decodeReview(body)
	if err != nil {
		s.sendAway(w, r, begun, http.StatusBadRequest, err)
		return
	}
	var a answer
	object, err := decodeObject(in.Object)
	switch {
	case errors.Is(err, errLarge):
		a = answer{result: resultRefused, refused: err}
	case err != nil:
		s.sendAway(w, r, begun, http.StatusBadRequest, err)
		return
	default:
		a = decide(object)
	}
	s.reviews.count(a.result, begun)
	s.tell(in, a)
	s.write(w, in, a)
}

// sendAway answers what is no review, or one for which there is no place; nobody hears it
// where the caller has hung up.
func (s *Server) sendAway(w http.ResponseWriter, r *http.Request, begun time.Time, code int, err error) {
	result, line, level := resultInvalid, "no review", zapcore.WarnLevel
	switch {
	case errors.Is(err, errBusy):
		result, line = resultOverloaded, "a review was sent away"
	case errors.Is(err, errGone):
		result, line, level = resultGone, "a review was given up", zapcore.InfoLevel
	}
	s.reviews.count(result, begun)
	text := oneLine(err)
	s.note(func() { s.log.Log(level, line, zap.String("error", text), zap.String("from", r.RemoteAddr)) })
	http.Error(w, text, code)
}

// read reads what a request carries; code is for the error. Whoever sends more than most
// pods have needs a place for it, which release gives back: so those who send a large one
// byte by byte keep nobody else from an answer, and each has its time.
func (s *Server) read(ctx context.Context, w http.ResponseWriter, r *http.Request) (body []byte, release func(), code int, err error) {
	release = func() {}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return nil, release, http.StatusUnsupportedMediaType, errors.New("want an AdmissionReview as application/json")
	}
	if r.ContentLength > maxReview {
		return nil, release, http.StatusRequestEntityTooLarge, errTooLong
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(s.bodyTimeout)); err != nil {
		return nil, release, http.StatusInternalServerError, err
	}
	limited := http.MaxBytesReader(w, r.Body, maxReview)
	body, err = io.ReadAll(io.LimitReader(limited, smallReview))
	if err == nil && len(body) == smallReview {
		// In HTTP/2 a deadline that has passed cannot be set anew: none may in the wait.
		if err := control.SetReadDeadline(time.Now().Add(maxPatience + s.bodyTimeout)); err != nil {
			return nil, release, http.StatusInternalServerError, err
		}
		if err := enter(ctx, s.gate.reading); err != nil {
			return nil, release, http.StatusServiceUnavailable, err
		}
		release = func() { leave(s.gate.reading) }
		if err := control.SetReadDeadline(time.Now().Add(s.bodyTimeout)); err != nil {
			return nil, release, http.StatusInternalServerError, err
		}
		body, err = readRest(limited, body, r.ContentLength)
	}
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return nil, release, http.StatusRequestEntityTooLarge, errTooLong
	}
	if err != nil {
		return nil, release, http.StatusBadRequest, fmt.Errorf("reading the review: %w", err)
	}
	return body, release, 0, nil
}

// readRest reads what stands behind the beginning of a body. length is that of all, -1
// while it is not known; it saves the copies that a buffer makes when it grows.
func readRest(r io.Reader, begun []byte, length int64) ([]byte, error) {
	if length < int64(len(begun)) {
		rest, err := io.ReadAll(r)
		return append(begun, rest...), err
	}
	body := make([]byte, length)
	_, err := io.ReadFull(r, body[copy(body, begun):])
	return body, err
}

// errTooLong is about a review that is not read to its end.
var errTooLong = fmt.Errorf("the review has more than %d bytes", maxReview)

// injectPod decides about a pod.
func (s *Server) injectPod(object map[string]any) answer {
	if object["kind"] != "Pod" || object["apiVersion"] != "v1" {
		return answer{result: resultUnchanged}
	}
	result, err := s.cfg.Injector.Pod(object)
	switch {
	case err != nil:
		return answer{result: resultRefused, refused: err}
	case len(result.Sidecars) == 0 && inject.Asked(object) != nil:
		return answer{result: resultRefused, refused: errNothingAsked}
	case len(result.Patch) == 0:
		return answer{result: resultUnchanged}
	}
	return answer{result: resultInjected, patch: result.Patch, sidecars: result.Sidecars, warnings: result.Warnings}
}

// errNothingAsked is about a pod that would begin without the sidecar that somebody
// meant it to have.
var errNothingAsked = fmt.Errorf(`the label %s asks for a sidecar, and no annotation says for which: write %s: "5432=SERVICE", or %s, or remove the label`, inject.Label, inject.Inlet, inject.Outlet)

// checkTemplate refuses a template whose pods would be refused, which whoever made
// them would otherwise have to find in events.
func (s *Server) checkTemplate(object map[string]any) answer {
	template := inject.Asked(object)
	if template == nil {
		return answer{result: resultUnchanged}
	}
	result, err := s.cfg.Injector.Object(object)
	switch {
	case err != nil:
		return answer{result: resultRefused, refused: err}
	case len(result.Sidecars) == 0:
		return answer{result: resultRefused, refused: errNothingAsked}
	}
	return answer{result: resultUnchanged, warnings: result.Warnings}
}

// maxWarnings is how many warnings are given: an API server shows 4,096 characters of
// all webhooks.
const maxWarnings = 8

// write sends what is decided.
func (s *Server) write(w http.ResponseWriter, in *request, a answer) {
	out := &response{UID: in.UID, Allowed: a.refused == nil, Warnings: a.warnings[:min(len(a.warnings), maxWarnings)]}
	for i, text := range out.Warnings {
		out.Warnings[i] = cut(text, maxWarning)
	}
	if a.refused != nil {
		out.Status = &status{Message: oneLine(a.refused), Reason: "BadRequest", Code: http.StatusBadRequest}
	}
	if len(a.patch) > 0 {
		patch, err := json.Marshal(a.patch)
		if err != nil {
			http.Error(w, "encoding the patch", http.StatusInternalServerError)
			return
		}
		out.PatchType, out.Patch = "JSONPatch", patch
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review{APIVersion: reviewVersion, Kind: "AdmissionReview", Response: out}) // the API server is gone: nobody to tell
}

// tell logs what was decided.
func (s *Server) tell(in *request, a answer) {
	if a.result == resultUnchanged {
		return
	}
	s.note(func() {
		fields := []zap.Field{
			zap.String("namespace", cut(in.Namespace, maxName)), zap.String("name", cut(in.Name, maxName)),
			zap.String("operation", cut(in.Operation, maxName)), zap.Bool("dry_run", in.DryRun),
		}
		if a.refused != nil {
			s.log.Info("refused", append(fields, zap.String("error", oneLine(a.refused)))...)
			return
		}
		s.log.Info("injected", append(fields, zap.Strings("sidecars", a.sidecars))...)
	})
}

// note writes a line about a review, unless there are too many.
func (s *Server) note(write func()) {
	if s.lines.Allow() {
		write()
	}
}
