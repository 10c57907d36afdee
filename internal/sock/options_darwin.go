package sock

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func setUserTimeout(uintptr, int) error { return nil }

func setNotSentLowat(fd uintptr, bytes int) error {
	switch err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes); err {
	case nil, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
		return nil // a socket, but not TCP
	default:
		return fmt.Errorf("setting TCP_NOTSENT_LOWAT: %w", err)
	}
}

func sendQueue(uintptr) (int, error) { return 0, errUnsupported }
