package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/internal/turns"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// newDialer returns what reaches relays on behalf of this process.
func (b *base) newDialer() *relay.Dialer {
	return &relay.Dialer{Local: b.local, UserTimeout: b.userTimeout()}
}

// An agent keeps an outlet registered at the last hop of a route.
type agent struct {
	*relay.Agent
	out   *Outlet
	route route.Route
	live  context.Context    // of the channels that come by it
	until context.Context    // of the registration
	stop  context.CancelFunc // ends the registration; nil before it has begun
	slots chan struct{}      // its part of the outlet's handshakes under way
	turns turns.Turns        // of those
	told  quiet
}

// maxAgentHandshakes bounds what one route's relay can take of them.
const maxAgentHandshakes = maxHandshakes / 2

func (out *Outlet) newAgent(d *relay.Dialer, r route.Route) (*agent, error) {
	a := &agent{out: out, route: r, slots: make(chan struct{}, maxAgentHandshakes)}
	var err error
	a.Agent, err = relay.NewAgent(relay.AgentConfig{
		Dialer: d, Route: r, Handle: a.handle,
		Trace: &relay.AgentTrace{
			LookupFailed: func(err error) { a.say(zapcore.WarnLevel, "cannot find the relay, trying on", "", err) },
			Registered:   a.registered,
			Lost:         func(address string, err error) { a.say(zapcore.WarnLevel, "not registered, trying on", address, err) },
			Draining:     a.draining,
			ParkFailed: func(address string, err error) {
				a.out.log.Debug("spare connection lost", zap.Stringer("route", a.route), zap.String("address", address), zap.Error(err))
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing to register over %s: %w", r, err)
	}
	return a, nil
}

// via names a way to this outlet.
func (a *agent) via(address string) string { return a.route.String() + " at " + address }

// brings reports whether a way to this outlet is one of the agent's.
func (a *agent) brings(via string) bool { return strings.HasPrefix(via, a.via("")) }

// draining asks the inlets whose paths come by a relay that goes away to make
// others first.
func (a *agent) draining(address string) {
	a.say(zapcore.InfoLevel, "relay is draining, inlets are asked to move", address, nil)
	a.out.channels.move(a.via(address), "the relay is draining")
}

func (a *agent) registered(address string, _ channel.Peer) {
	a.told.forget()
	a.say(zapcore.InfoLevel, "registered", address, nil)
}

// say logs what happens at each retry again at debug.
func (a *agent) say(loud zapcore.Level, message, address string, err error) {
	fields, text := []zap.Field{zap.Stringer("route", a.route)}, ""
	if address != "" {
		fields = append(fields, zap.String("address", address))
	}
	if err != nil {
		text = err.Error()
		name := label(err, code.Unreachable)
		fields = remedied(append(fields, zap.String("code", name), zap.String("reason", text)), name)
	}
	a.out.quietly(&a.told, loud, message, address+text, fields...)
}

// handle takes a conn that a relay has joined to a caller.
func (a *agent) handle(ctx context.Context, nc net.Conn, address string) {
	if !a.turn(ctx) {
		_ = sock.ResetClose(nc) // it is given up either way
		return
	}
	a.out.serveConn(cmp.Or(a.live, ctx), nc, a.via(address), &a.turns, func() {
		<-a.out.slots
		<-a.slots
	})
}

// turn waits for room for one more handshake, not for long: the caller has
// other ways. A relay may let in anybody, so among its callers the oldest handshake
// gives way, too.
func (a *agent) turn(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	mine := a.turns.Take(ctx, a.slots)
	if mine && a.out.turns.Take(ctx, a.out.slots) {
		return true
	}
	if mine {
		<-a.slots
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		a.say(zapcore.WarnLevel, "too many handshakes at once, a caller was sent away", "", nil)
	}
	return false
}

func (a *agent) status() []RegistrationStatus {
	var list []RegistrationStatus
	for _, s := range a.Status() {
		r := RegistrationStatus{Route: a.route.String(), Address: s.Address, Registered: s.Registered, Draining: s.Draining, Since: s.Since, Spares: s.Spares}
		if s.Err != nil {
			r.LastError = s.Err.Error()
		}
		list = append(list, r)
	}
	return list
}

func (out *Outlet) countRegistrations() (n int) {
	for _, a := range out.agents.every() {
		for _, s := range a.Status() {
			if s.Registered {
				n++
			}
		}
	}
	return n
}

// setReady makes the check that says whether inlets can reach the outlet.
func (out *Outlet) setReady() {
	if len(out.lns) > 0 {
		out.obs.Ready.Set("listen", nil)
		return
	}
	out.obs.Ready.SetFunc("relays", func() error {
		var down []string
		for _, a := range out.agents.all() {
			for _, s := range a.Status() {
				switch {
				case s.Registered:
					return nil
				case s.Err != nil:
					down = append(down, fmt.Sprintf("%s: %v", s.Address, s.Err))
				default:
					down = append(down, s.Address+": still connecting")
				}
			}
		}
		return errors.New("not registered at " + strings.Join(down, "; "))
	})
}
