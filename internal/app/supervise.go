package app

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/systemd"
)

const (
	// statusEvery is how often the service manager is told what is not ready, where
	// that has changed.
	statusEvery = 2 * time.Second
	// extendBy is for how long a process that stops asks to be left alone, each time
	// that it says that it lives: it bounds its end itself.
	extendBy = 30 * time.Second
)

// supervise tells the service manager how this process is, until ctx ends: that it
// has started, for it listens; what is not ready; that it reads its files again, and
// has; and from stopping's end on that it stops. Within the manager's watchdog it
// says that it lives, each time after it has got at all that it shows of itself, so that
// whatever a lock that nobody gives back keeps from going on keeps that from being
// said, too.
func (b *base) supervise(stopping, ctx context.Context) {
	if !b.manager.Listens() {
		return
	}
	s := &supervision{base: b}
	s.tell(systemd.Ready, s.status())
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	var alive <-chan time.Time
	if every := b.manager.Watchdog() / 2; every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		alive = t.C
	}
	defer func() {
		if !s.stopping { // what has ended is no context
			s.tell(systemd.Stopping)
		}
	}()
	done := stopping.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-done:
			done, s.stopping = nil, true
			s.tell(systemd.Stopping, systemd.Status("stopping"), systemd.Extend(extendBy))
		case <-status.C:
			s.tick()
		case <-alive:
			_ = b.view.status(0)
			s.tell(systemd.Watchdog)
		case <-s.hangups():
			if !s.stopping {
				s.tell(systemd.Reloading(systemd.Now())...)
			}
			s.reading = b.reread()
		case <-s.read():
			if s.reading = s.reading[1:]; len(s.reading) == 0 && !s.stopping {
				s.tell(systemd.Ready, s.status())
			}
		}
	}
}

// A supervision is what the service manager was told. It is of one goroutine.
type supervision struct {
	*base
	told     systemd.Note // the last status
	stopping bool
	reading  []<-chan struct{} // each is closed when a file has been read again
	failed   quiet
}

// tell tells it several things at once.
func (s *supervision) tell(what ...systemd.Note) {
	if err := s.manager.Notify(what...); err != nil {
		s.log.Log(s.failed.level(err.Error(), zapcore.WarnLevel), "the service manager cannot be told how this process is", zap.Error(err))
	}
}

// tick tells it what has changed.
func (s *supervision) tick() {
	if s.stopping {
		s.tell(systemd.Extend(extendBy))
		return
	}
	was := s.told
	if is := s.status(); is != was {
		s.tell(is)
	}
}

// status says what is not ready.
func (s *supervision) status() systemd.Note {
	ready, states := s.obs.Ready.Check()
	text, more := "ready", 0
	if !ready {
		for _, st := range states {
			switch {
			case st.Err == nil:
			case text == "ready":
				text = fmt.Sprintf("not ready: %s: %v", st.Name, st.Err)
			default:
				more++
			}
		}
	}
	if more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	s.told = systemd.Status(text)
	return s.told
}

// hangups returns what says that files are to be read again; never, while they are.
func (s *supervision) hangups() <-chan struct{} {
	if len(s.reading) > 0 {
		return nil
	}
	return s.hangup
}

// read returns what says that the next of the files has been.
func (s *supervision) read() <-chan struct{} {
	if len(s.reading) == 0 {
		return nil
	}
	return s.reading[0]
}
