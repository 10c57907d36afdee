package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

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
		body, code, err := s.read(w, r)
		if err == nil {
			if !enter(r, s.deciding) {
				return // nobody waits any more
			}
			defer func() { <-s.deciding }()
		}
		var in *request
		var object map[string]any
		if err == nil {
			in, object, err = decodeReview(body)
			code = http.StatusBadRequest
		}
		if err != nil {
			s.reviews.count(resultInvalid, begun)
			s.note(func() { s.log.Warn("no review", zap.Error(err), zap.String("from", r.RemoteAddr)) })
			http.Error(w, err.Error(), code)
			return
		}
		a := decide(object)
		s.reviews.count(a.result, begun)
		s.tell(in, a)
		s.write(w, in, a)
	}
}

// enter takes a place, and reports false if the request ends before there is one.
func enter(r *http.Request, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-r.Context().Done():
		return false
	}
}

// read reads what a request carries, apart from the deciding, so that who sends it
// byte by byte keeps no other from that; code is for the error.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (body []byte, code int, err error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, errors.New("want an AdmissionReview as application/json")
	}
	if !enter(r, s.reading) {
		return nil, http.StatusServiceUnavailable, errors.New("too many reviews at once")
	}
	defer func() { <-s.reading }()
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, http.StatusInternalServerError, err
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the review has more than %d bytes", maxReview)
	}
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("reading the review: %w", err)
	}
	return body, 0, nil
}

// decodeReview decodes a review and its object.
func decodeReview(body []byte) (req *request, object map[string]any, err error) {
	var in review
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, nil, fmt.Errorf("decoding the review: %w", err)
	}
	if in.APIVersion != reviewVersion || in.Kind != "AdmissionReview" || in.Request == nil || in.Request.UID == "" {
		return nil, nil, fmt.Errorf("want an AdmissionReview of %s with a request: write admissionReviewVersions: [v1] in the webhook's configuration", reviewVersion)
	}
	decoder := json.NewDecoder(bytes.NewReader(in.Request.Object))
	decoder.UseNumber() // or large numbers would change
	if err := decoder.Decode(&object); err != nil || object == nil {
		return nil, nil, errors.New("the request has no object: let the webhook's rules name operations that have one, CREATE and UPDATE")
	}
	return in.Request, object, nil
}

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

// Bounds of warnings, by which API servers cut them.
const (
	maxWarnings = 8
	maxWarning  = 256 // characters
)

// write sends what is decided.
func (s *Server) write(w http.ResponseWriter, in *request, a answer) {
	out := &response{UID: in.UID, Allowed: a.refused == nil, Warnings: a.warnings[:min(len(a.warnings), maxWarnings)]}
	for i, text := range out.Warnings {
		out.Warnings[i] = text[:min(len(text), maxWarning)]
	}
	if a.refused != nil {
		out.Status = &status{
			Message: strings.ReplaceAll(a.refused.Error(), "\n", "; "),
			Reason:  "BadRequest", Code: http.StatusBadRequest,
		}
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
			zap.String("namespace", in.Namespace), zap.String("name", in.Name),
			zap.String("operation", in.Operation), zap.Bool("dry_run", in.DryRun),
		}
		if a.refused != nil {
			s.log.Info("refused", append(fields, zap.Error(a.refused))...)
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
