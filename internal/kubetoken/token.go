package kubetoken

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/culvert-net/culvert/pkg/credential"
)

// A header is what a token says of itself before anything is verified: how it
// is signed (RFC 7515, section 4.1), and by whom.
type header struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Critical  json.RawMessage `json:"crit"`

	issuer string // the claim iss
}

// inspect takes a token apart without believing it. What it lets pass is in the
// compact serialization (RFC 7515, section 3.1) and encoded in the one way that
// there is: no character can be changed without changing what is signed, or the
// signature.
func inspect(token string) (header, error) {
	var h header
	if n := len(token); n == 0 || n > credential.MaxToken {
		return h, refuse("the token has %d bytes, want 1 to %d", n, credential.MaxToken)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return h, refuse("the token has %d parts with dots between, want 3: it is no JSON Web Token, or was cut off", len(parts))
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		b, err := strictBase64.DecodeString(parts[i])
		// The decoder passes over ends of lines.
		if err != nil || len(b) == 0 || strings.ContainsAny(parts[i], "\r\n") {
			return h, refuse("the token's %s is not base64url without padding (RFC 7515, section 2)", name)
		}
		decoded[i] = b
	}
	if err := json.Unmarshal(decoded[0], &h); err != nil {
		return h, refuse("the token's header is not a JSON object with the texts alg and kid")
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(decoded[1], &c); err != nil {
		return h, refuse("the token's payload is not a JSON object with the text iss")
	}
	h.issuer = c.Issuer
	return h, nil
}

// strictBase64 refuses bits behind the last byte, which would be free to change.
var strictBase64 = base64.RawURLEncoding.Strict()
