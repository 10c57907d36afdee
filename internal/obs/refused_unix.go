//go:build unix

package obs

import (
	"errors"
	"syscall"
)

// refused reports whether nobody listens where err came from.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
