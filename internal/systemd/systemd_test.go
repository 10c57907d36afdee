package systemd

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestNotify(t *testing.T) {
	var told []string
	m := New(func(state string) error { told = append(told, state); return nil }, time.Minute)
	for _, notes := range [][]Note{
		{Ready, Status("not ready: two\nlines \t and more")}, Reloading(1500 * time.Microsecond), {Extend(30 * time.Second)}, nil, {Watchdog}, {Stopping},
	} {
		if err := m.Notify(notes...); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"READY=1\nSTATUS=not ready: two lines and more", "RELOADING=1\nMONOTONIC_USEC=1500", "EXTEND_TIMEOUT_USEC=30000000", "WATCHDOG=1", "STOPPING=1",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if !m.Listens() || m.Watchdog() != time.Minute {
		t.Errorf("listens: %v, watchdog %v", m.Listens(), m.Watchdog())
	}
	failure := errors.New("nobody reads")
	if err := New(func(string) error { return failure }, 0).Notify(Ready); !errors.Is(err, failure) {
		t.Errorf("got %v, want %v", err, failure)
	}
}

// Without a manager there is nothing to do, and nothing goes wrong.
func TestNobody(t *testing.T) {
	for _, m := range []*Manager{nil, New(nil, time.Minute)} {
		if m.Listens() || m.Watchdog() != 0 || len(m.Sockets()) > 0 || m.Notify(Ready) != nil {
			t.Errorf("%v is somebody", m)
		}
	}
}

func TestNow(t *testing.T) {
	before := Now()
	if after := Now(); before <= 0 || after < before {
		t.Errorf("%v and then %v", before, after)
	}
}
