package relay

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/code"
)

// extend joins the caller to a next hop, at one of its host's addresses.
func (c *call) extend(ctx context.Context) {
	err := errors.New("relay carries nobody on")
	if c.cfg.Extend != nil {
		err = c.cfg.Extend(c.peer, c.req.Address)
	}
	if err != nil {
		c.deny(code.ExtendDenied, err)
		return
	}
	if !c.record() {
		return
	}
	w := watchCaller(ctx, c.in.Accept())
	far, address, err := c.reachNext(w.ctx)
	if werr := w.stop(); werr != nil {
		err = werr // the caller's doing comes first
	}
	if err != nil {
		if far != nil {
			_ = sock.ResetClose(far)
		}
		c.decline(err)
		return
	}
	j := &join{kind: kindExtend, caller: c.peer, grant: c.grant, target: c.req.Address}
	c.join(ctx, j, message{Kind: msgOK, Address: address}, far, nil)
}

// reachNext dials the address that the request's order and index choose.
func (c *call) reachNext(ctx context.Context) (net.Conn, string, error) {
	c.mu.Lock()
	draining := c.Server.draining
	c.mu.Unlock()
	if draining {
		return nil, "", declinef(code.Draining, drainingReason)
	}
	host, port := splitAddress(c.req.Address)
	addresses, err := resolve(ctx, c.cfg.LookupHost, host, port, [32]byte(c.req.Order))
	if err != nil {
		// There is none to count to: the caller need not ask for the next.
		return nil, "", declinef(code.NoAddress, "%v", err)
	}
	if int(c.req.Index) >= len(addresses) {
		// By this a caller that goes through all of them knows the end.
		reason := fmt.Sprintf("the last address of %s has index %d", host, len(addresses)-1)
		return nil, "", &declinedError{code: code.NoAddress, reason: reason, usual: true}
	}
	address := addresses[c.req.Index]
	dctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Dial)
	defer cancel()
	far, err := c.cfg.Dial(dctx, "tcp", address)
	if err != nil {
		return nil, "", declinef(code.Unreachable, "%v", err)
	}
	_ = sock.SetUserTimeout(far, c.cfg.Timing.UserTimeout)
	return far, address, nil
}
