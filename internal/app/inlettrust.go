package app

import (
	"errors"
	"fmt"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
)

// refreshAgain is how long another path is waited for that shows the outlet's new
// credentials, before one is asked for again.
const refreshAgain = 30 * time.Second

// renewAll makes paths that show this inlet's new credential.
func (in *Inlet) renewAll() {
	for _, l := range in.allLinks() {
		for _, h := range l.sessions() {
			if s, ok := h.session.(*lasting); ok {
				s.ch.Renew()
			}
		}
	}
}

// recheckAll asks about every channel again.
func (in *Inlet) recheckAll() { in.recheckThose(func(*lasting) bool { return true }) }

// recheckChannels asks about some channels again.
func (in *Inlet) recheckChannels(some map[*channel.Channel]struct{}) {
	in.recheckThose(func(s *lasting) bool { _, is := some[s.ch]; return is })
}

// recheckThose ends channels of outlets that are revoked, or do not prove any more
// that they offer what the channel is for, and paths over relays that are revoked, and
// makes paths where the outlet's credentials end soon, by which it shows others.
func (in *Inlet) recheckThose(meant func(*lasting) bool) {
	for _, l := range in.allLinks() {
		for _, h := range l.sessions() {
			s, ok := h.session.(*lasting)
			if !ok || !meant(s) {
				continue
			}
			if c, err := in.admits(l, s.Peer()); err != nil {
				in.cut(s, c, err.Error())
				continue
			}
			var revoked error
			if r, _, down := s.Path(); down == nil {
				revoked = in.trust.admitRoute(l.routes.of(r))
			}
			in.depart(&h.departure, s.ch, revoked, s.ch.Move)
			in.refresh(h, s)
		}
	}
}

// admits says why a link's outlet, as its last handshake has proven it, is not to be
// talked to any more, or returns nil.
func (in *Inlet) admits(l *link, p channel.Peer) (code.Code, error) {
	err := in.trust.admit(p)
	if err == nil && l.admit != nil {
		err = l.admit(p)
	}
	var why *channel.PeerError
	if errors.As(err, &why) {
		return why.Code, err
	}
	return code.ChannelDenied, err
}

// refresh makes another path when the outlet's credentials have a quarter of their
// time left: the outlet has had others for long then. It belongs to the goroutine
// that rechecks.
func (in *Inlet) refresh(h *held, s *lasting) {
	j := in.trust.judge(s.Peer())
	if len(j.credentials) == 0 {
		return
	}
	now := time.Now()
	var lifetime time.Duration
	for _, c := range j.credentials {
		if c.NotAfter.Equal(j.notAfter) {
			lifetime = c.NotAfter.Sub(c.NotBefore)
		}
	}
	at := j.notAfter.Add(-lifetime / 4)
	if again := h.refreshed.Add(refreshAgain); at.Before(again) {
		at = again
	}
	if at.After(now) {
		in.trust.due(at)
		return
	}
	h.refreshed = now
	in.trust.due(now.Add(refreshAgain))
	s.ch.Renew()
}

// deniedTime is how long a channel waits for another path where no way to its
// outlet lets this inlet through, and the inlet itself knows that it is shut out.
const deniedTime = 2 * time.Second

// giveUp ends the channels that have no path while nobody on any route lets this
// inlet through and an authority says, to this inlet, that it is shut out: the
// outlet's own word, which would end them, cannot come. What relays say is not enough.
// One that was started with a wrong list is put right within the grace time.
func (l *inletLink) giveUp() {
	for _, r := range l.routes.states() {
		if r.err == nil || deniedCode(r.err) == code.OK {
			return
		}
	}
	why := l.in.shutOut()
	if why == nil {
		return
	}
	for _, h := range l.sessions() {
		s, ok := h.session.(*lasting)
		if !ok || isOver(s) {
			continue
		}
		if st := s.ch.State(); !st.Up && time.Since(st.Since) >= deniedTime {
			s.Fail(why.Code, fmt.Errorf("this inlet is let through nowhere: %w", why))
		}
	}
}

// shutOut returns why nobody lets this process through who trusts the authority of
// its credential: it has revoked the process's identifier, or the credential does not
// count any more. It returns nil where that is not so, or not known.
func (b *base) shutOut() *credential.Error {
	own := channel.Peer{Identifier: b.Identifier()}
	if b.member.member != nil {
		if bundle := b.member.member.Bundle(); bundle != nil {
			own.Credentials = [][]byte{bundle}
		}
	}
	j := b.trust.judge(own)
	switch {
	case j.nothing != nil:
		return j.nothing
	case len(j.credentials) == 0:
		return j.refused
	}
	return nil
}

// deniedCode returns the code of a relay's or an outlet's word that this process may
// not come there, OK for any other error.
func deniedCode(err error) code.Code {
	var r *channel.RefusedError
	if !errors.As(err, &r) {
		return code.OK
	}
	switch c := r.Code; {
	case c == code.ConnectDenied, c == code.ExtendDenied, c == code.ChannelDenied,
		c >= code.UntrustedAuthority && c <= code.RevocationsOverdue:
		return c
	}
	return code.OK
}
