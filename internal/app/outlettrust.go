package app

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// toldFirst is how long streams that are cut have to tell their peer why, before
// the channel that nobody may use any more is closed under them.
const toldFirst = time.Second

// denies says why a peer may not use a service that there is, or was when the
// stream came, or nil.
func (out *Outlet) denies(j *judgement, service string) *denial {
	if !out.policy.Has(service) {
		return &denial{code: code.ServiceUnknown, told: fmt.Sprintf("this outlet has no service %q any more", service)}
	}
	return j.decide(policy.Request{Action: policy.Open, Service: service}, out.policy.Decide, code.StreamDenied,
		fmt.Sprintf("is not allowed to use the service %q", service), out.policy.looks(service, "peer.attr"))
}

// renewAll registers anew at the relays, with the new credential.
func (out *Outlet) renewAll() {
	for _, a := range out.agents.every() {
		a.Renew()
	}
}

// recheckAll asks about everything that lives again.
func (out *Outlet) recheckAll() {
	for _, ch := range out.channels.list() {
		out.recheckOpen(ch)
	}
	for _, a := range out.agents.every() {
		if out.trust.admitRoute(a.route) != nil {
			a.Renew() // which leaves it
		}
	}
}

// recheckChannels asks about some channels again.
func (out *Outlet) recheckChannels(some map[*channel.Channel]struct{}) {
	for _, ch := range out.channels.list() {
		if _, is := some[ch.session.ch]; is {
			out.recheckOpen(ch)
		}
	}
}

// recheckOpen cuts the channel of a peer that is revoked, the streams that it may
// not have any more, and a channel by which it may use nothing any more. A path over
// a relay that is revoked is left; and so is, by its peer, a channel that has a
// stranger's place where the peer is none any more.
func (out *Outlet) recheckOpen(ch *openChannel) {
	j := out.trust.judge(ch.session.Peer())
	if j.nothing != nil && j.nothing.Code == code.IdentityRevoked {
		for p := range ch.carried() {
			p.cut(&denial{code: j.nothing.Code, told: j.nothing.Error()})
		}
		out.cut(ch.session, j.nothing.Code, j.nothing.Error())
		return
	}
	out.depart(&ch.departure, ch.session.ch, out.revokedWay(ch.session.ch.State()), func() { ch.session.Move("a relay on the way to this outlet is revoked") })
	denied := map[string]*denial{} // by service
	for p := range ch.carried() {
		d, asked := denied[p.service.Name]
		if !asked {
			d = out.denies(&j, p.service.Name)
			denied[p.service.Name] = d
		}
		if d != nil {
			p.cut(d)
		}
	}
	known := out.channels.known(j.Peer)
	if known && !ch.listed && out.channels.bounds.streams > 0 {
		ch.session.Drain("this channel was opened as that of one who may use nothing here: another one has more streams")
	}
	if !ch.listed || known {
		ch.told = false // should it come to that again
		return
	}
	if ch.session.Streams() > 0 && !ch.told {
		ch.told = true
		out.trust.due(time.Now().Add(toldFirst))
		return
	}
	c, reason := code.ChannelDenied, fmt.Sprintf("%s may use no service here any more", j.ID)
	for _, why := range []*credential.Error{j.nothing, j.refused} {
		if why != nil {
			c, reason = why.Code, reason+": "+why.Error()
			break
		}
	}
	out.cut(ch.session, c, reason)
}

// revokedWay returns why a channel's path, if it has one, may be used no more: it has
// come by a relay to which this outlet's own way leads over one that is revoked.
func (out *Outlet) revokedWay(st channel.State) error {
	for _, a := range out.agents.every() {
		if st.Up && a.brings(st.Via) {
			return out.trust.admitRoute(a.route)
		}
	}
	return nil
}

// carries enters a stream among those that are asked about again. Where everything
// was asked about since the peer was, it is asked about at once: a denial is
// returned, and the stream not entered.
func (p *served) carries(st *tunnel.Stream, nc *pump.Limited, asked uint64) *denial {
	p.ch.mu.Lock()
	p.stream, p.target = st, nc
	p.ch.streams[p] = struct{}{}
	p.ch.mu.Unlock()
	if p.out.trust.times.Load() == asked {
		return nil
	}
	j := p.out.trust.judge(p.req.Peer())
	d := p.out.denies(&j, p.service.Name)
	if d != nil {
		p.ch.mu.Lock()
		defer p.ch.mu.Unlock()
		p.stream = nil
		delete(p.ch.streams, p)
	}
	return d
}

// cut ends a stream that is carried, and says why to its peer. The target's
// connection is reset at once, whether or not the target takes what was written to
// it, and the copy ends with both.
func (p *served) cut(d *denial) {
	p.ch.mu.Lock()
	st, nc := p.stream, p.target
	delete(p.ch.streams, p) // who asks again before the copy has ended has nothing to cut
	p.ch.mu.Unlock()
	if st == nil {
		return
	}
	p.out.log.Warn("stream is cut", zap.String("service", p.service.Name), zap.Stringer("peer", p.req.Peer().Identifier),
		zap.String("code", d.code.String()), zap.String("reason", d.logged()))
	_ = st.Reset(d.code) // it is over either way; and first, since the first end of a copy is what it is said to have ended with
	if nc != nil {       // else this process serves it, and hears from the stream
		_ = sock.ResetClose(nc)
	}
}

// carried returns the channel's streams that have a target.
func (ch *openChannel) carried() map[*served]struct{} {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return maps.Clone(ch.streams)
}

func (ch *openChannel) forget(p *served) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	delete(ch.streams, p)
}

// cut ends a channel whose peer may not have it any more, and says why.
func (b *base) cut(s *lasting, c code.Code, reason string) {
	if isOver(s) {
		return
	}
	b.log.Warn("channel is cut", zap.Stringer("peer", s.Peer().Identifier), zap.Stringer("channel", s.ch.ID()), zap.String("code", c.String()), zap.String("reason", reason))
	s.Close(c, reason)
	s.endWithin(c, errors.New(reason))
}

func isOver(s *lasting) bool {
	select {
	case <-s.Lost():
		return true
	default:
		return false
	}
}
