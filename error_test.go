package culvert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// However the path under a stream has ended, the stream's end is never what a program
// takes for its own doing, for a deadline, or for the end of the data.
func TestEndsAreNoOthers(t *testing.T) {
	misleading := []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, os.ErrDeadlineExceeded, context.Canceled, context.DeadlineExceeded}
	for _, path := range misleading {
		lost := &channel.LostError{Code: code.Timeout, Err: fmt.Errorf("no path for 1m0s: %w", &net.OpError{Op: "read", Net: "tcp", Err: path})}
		err := opError("read", nil, nil, ofStream(&tunnel.LossError{Cause: lost}))
		for _, wrong := range misleading {
			if errors.Is(err, wrong) {
				t.Errorf("a loss by %v is %v", path, wrong)
			}
		}
		var ne net.Error
		if !errors.As(err, &ne) || ne.Timeout() {
			t.Errorf("a loss by %v: as a net.Error %v, which has timed out", path, ne)
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != code.ChannelLost {
			t.Errorf("a loss by %v is %v, want channel_lost", path, err)
		}
		var behind *channel.LostError
		if !errors.As(err, &behind) || behind != lost || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a loss by %v: what is behind it is %v, and it is a reset: %v", path, behind, errors.Is(err, syscall.ECONNRESET))
		}
	}
}

// A deadline and the conn's own end stay what they are, and everything else has a code.
func TestEveryEndHasACode(t *testing.T) {
	for _, err := range []error{net.ErrClosed, os.ErrDeadlineExceeded} {
		if got := ofStream(err); got != err {
			t.Errorf("%v has become %v", err, got)
		}
	}
	var e *Error
	if got := ofStream(errors.New("whatever it was")); !errors.As(got, &e) || e.Code != code.Aborted || e.Reason == "" {
		t.Errorf("an error without a code is %v", got)
	}
}
