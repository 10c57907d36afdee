package credential

import (
	"errors"
	"fmt"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// ErrNeedFull is wrapped by the error of [Verifier.ApplyDelta] when the delta
// does not lead from the list held to the one that is signed: the full list is
// to be asked for.
var ErrNeedFull = errors.New("the full revocation list is needed")

// ErrNotNewer is wrapped by the errors of [Verifier.ApplyList] and
// [Verifier.ApplyDelta] when a list as new is held already, and does not
// contradict this one: it has come on two ways.
var ErrNotNewer = errors.New("it is not newer than the one held")

// An Error says why a credential or a revocation list does not count. Its text
// shows nothing of what was presented that was not checked first.
type Error struct {
	Code      code.Code           // which of the reasons, for logs, metrics and the peer
	Authority identity.Identifier // whose it is, as far as it could be read; else zero
	Serial    Serial              // of the credential, as far as it could be read; else zero
	Err       error               // what exactly, and what to do
}

// Error names the authority and the credential, and says what is wrong.
func (e *Error) Error() string {
	switch {
	case !e.Serial.IsZero():
		return fmt.Sprintf("credential %s of authority %s: %v", e.Serial, e.Authority, e.Err)
	case !e.Authority.IsZero():
		return fmt.Sprintf("authority %s: %v", e.Authority, e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns what is exactly wrong.
func (e *Error) Unwrap() error { return e.Err }

// fault makes an Error that names nobody yet.
func fault(c code.Code, format string, args ...any) *Error {
	return &Error{Code: c, Err: fmt.Errorf(format, args...)}
}

// of fills in what e is about.
func (e *Error) of(authority identity.Identifier, serial Serial) *Error {
	e.Authority, e.Serial = authority, serial
	return e
}
