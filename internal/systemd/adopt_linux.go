package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// maxSockets bounds how many a manager may hand over.
const maxSockets = 1024

// Adopt returns the manager that has started this process, by what the environment
// says of it; nil: there is none. What it says of sockets and of the watchdog is
// taken out of the environment, and the sockets are closed to programs that this
// process starts. It is called once, at the start. An error says what to change in
// the manager's unit.
func Adopt() (*Manager, error) {
	m := &Manager{}
	var err error
	if m.watchdog, err = daemon.SdWatchdogEnabled(true); err != nil {
		return nil, fmt.Errorf("the environment of the service manager: %w: remove WATCHDOG_USEC, or let the manager set it (WatchdogSec=)", err)
	}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		m.send = func(state string) error {
			_, err := daemon.SdNotify(false, state)
			return err
		}
	}
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > maxSockets {
		return nil, fmt.Errorf("the service manager hands over %d sockets: at most %d are taken", n, maxSockets)
	}
	for _, f := range activation.Files(true) {
		s, err := NewSocket(f)
		if err != nil {
			return nil, err
		}
		m.sockets = append(m.sockets, s)
	}
	if m.send == nil && len(m.sockets) == 0 {
		return nil, nil
	}
	return m, nil
}

// NewSocket returns the socket that f is, which a manager calls by f's name. It owns f
// from then on. A file that is no socket at which TCP connections wait is an error, which
// says what to change in the manager's unit.
func NewSocket(f *os.File) (*Socket, error) {
	wrong := func(what string) error {
		return fmt.Errorf("the service manager hands over %q, which %s: want sockets of ListenStream=HOST:PORT with Accept=no", f.Name(), what)
	}
	fd := int(f.Fd())
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, wrong("is no socket")
	}
	if kind != unix.SOCK_STREAM {
		return nil, wrong("carries no streams")
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
		return nil, wrong("does not listen")
	}
	ln, err := net.FileListener(f) // a duplicate
	if err != nil {
		return nil, fmt.Errorf("taking the socket %q of the service manager: %w", f.Name(), err)
	}
	s := &Socket{f, ln.Addr()}
	if err := ln.Close(); err != nil {
		return nil, fmt.Errorf("taking the socket %q of the service manager: %w", f.Name(), err)
	}
	if _, tcp := s.addr.(*net.TCPAddr); !tcp {
		return nil, wrong(fmt.Sprintf("is of the family %s", s.addr.Network()))
	}
	return s, nil
}

// Now returns the time that [Reloading] wants: of CLOCK_MONOTONIC.
func Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // which every kernel has
	return time.Duration(ts.Nano())
}
