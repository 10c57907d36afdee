package sock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func setUserTimeout(uintptr, int) error { return nil }

func setNotSentLowat(fd uintptr, bytes int) error {
	err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
	if err == nil || errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a socket, but not TCP
	}
	return fmt.Errorf("setting TCP_NOTSENT_LOWAT: %w", err)
}

func sendQueue(uintptr) (int, error) { return 0, errors.ErrUnsupported }
