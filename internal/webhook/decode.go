package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Bounds of an object that is decided about. Decoded, a value is up to 350 bytes (an
// object with one key), so that maxValues are 22 MiB, and as much again for their copy. A
// pod with a thousand environment variables has some 5,000 values, and nothing in one is
// deeper than 20.
const (
	maxValues = 1 << 16
	maxDepth  = 64
)

// maxUID bounds the UID of a request, which is given back in the answer, in bytes. A UUID
// has 36.
const maxUID = 128

// decodeReview decodes a review, and leaves its object as it is.
func decodeReview(body []byte) (*request, error) {
	var in review
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("decoding the review: %w", err)
	}
	if in.APIVersion != reviewVersion || in.Kind != "AdmissionReview" || in.Request == nil || in.Request.UID == "" {
		return nil, fmt.Errorf("want an AdmissionReview of %s with a request: write admissionReviewVersions: [v1] in the webhook's configuration", reviewVersion)
	}
	if len(in.Request.UID) > maxUID {
		return nil, fmt.Errorf("the request's uid has %d bytes, want %d at most", len(in.Request.UID), maxUID)
	}
	return in.Request, nil
}

// errLarge is about an object that is read, and not decoded.
var errLarge = fmt.Errorf("the object has more than %d values, or is nested more than %d deep: the webhook takes no such object; write its sidecars by `culvert inject`", maxValues, maxDepth)

// decodeObject decodes a request's object. An object beyond the bounds is [errLarge].
func decodeObject(text []byte) (object map[string]any, err error) {
	if !modest(text) {
		return nil, errLarge
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // or large numbers would change
	if err := decoder.Decode(&object); err != nil || object == nil {
		return nil, errors.New("the request has no object: let the webhook's rules name operations that have one, CREATE and UPDATE")
	}
	return object, nil
}

// modest reports whether valid JSON is within the bounds, without decoding it: in JSON
// each value but the first stands behind a bracket or a comma.
func modest(text []byte) bool {
	values, depth, quoted := 1, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted:
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			values++
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ',':
			values++
		}
		if values > maxValues || depth > maxDepth {
			return false
		}
	}
	return true
}
