//go:build !unix

package sock

import "syscall"

func awaitReadable(syscall.RawConn) error { return nil }
