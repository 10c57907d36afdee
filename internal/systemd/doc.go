// Package systemd owns what a service manager and this process say to each
// other by systemd's protocols: how the process is (sd_notify(3)), that it lives
// (sd_watchdog_enabled(3)), and the sockets that the manager has opened for it
// (sd_listen_fds(3)). Any manager that speaks them is meant. What is told, and
// which socket is whose, its callers say.
package systemd

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Manager is the service manager that has started this process. The methods of
// a nil Manager do nothing: there is none.
type Manager struct {
	send     func(state string) error // nil: it listens to nothing
	watchdog time.Duration
	sockets  []*Socket
}

// New returns a manager that is told by send, each time in lines of KEY=VALUE, and
// wants to hear within each watchdog that this process lives; zero: it does not.
// [Adopt] returns the one that there is.
func New(send func(state string) error, watchdog time.Duration, sockets ...*Socket) *Manager {
	return &Manager{send, watchdog, sockets}
}

// Watchdog returns the time after which the manager kills a process from which it
// has not heard [Watchdog]; zero: never.
func (m *Manager) Watchdog() time.Duration {
	if m == nil || m.send == nil {
		return 0
	}
	return m.watchdog
}

// Sockets returns those that the manager has opened for this process.
func (m *Manager) Sockets() []*Socket {
	if m == nil {
		return nil
	}
	return m.sockets
}

// Listens reports whether the manager wants to be told anything.
func (m *Manager) Listens() bool { return m != nil && m.send != nil }

// Notify tells the manager several things at once, so that it sees no state
// between them.
func (m *Manager) Notify(what ...Note) error {
	if !m.Listens() || len(what) == 0 {
		return nil
	}
	lines := make([]string, len(what))
	for i, n := range what {
		lines[i] = string(n)
	}
	return m.send(strings.Join(lines, "\n"))
}

// A Note is one thing that a manager is told: a line of sd_notify(3).
type Note string

// The notes that say no more than themselves.
const (
	Ready    Note = "READY=1"    // it has started, or has read its settings again
	Stopping Note = "STOPPING=1" // it ends
	Watchdog Note = "WATCHDOG=1" // it lives
)

// Reloading says that settings are read again since now, and that Ready follows.
func Reloading(now time.Duration) []Note {
	return []Note{"RELOADING=1", Note("MONOTONIC_USEC=" + strconv.FormatInt(now.Microseconds(), 10))}
}

// Status says in a line for people how the process is.
func Status(text string) Note {
	return Note("STATUS=" + strings.Join(strings.Fields(text), " "))
}

// Extend says that what the process does now, starting or stopping, takes up to d
// from now on, whatever the unit says, unless another Extend follows.
func Extend(d time.Duration) Note {
	return Note("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
}

// A Socket is one that the manager has opened and that connections wait at,
// whether or not this process runs.
type Socket struct {
	file *os.File
	addr net.Addr
}

// Name returns what the manager calls the socket: FileDescriptorName= of its unit,
// or else the unit.
func (s *Socket) Name() string { return s.file.Name() }

// Addr returns where the socket listens.
func (s *Socket) Addr() net.Addr { return s.addr }

// Listen returns a listener at the socket. To close it leaves the socket as it is,
// to the manager and to other calls.
func (s *Socket) Listen() (net.Listener, error) { return net.FileListener(s.file) }
