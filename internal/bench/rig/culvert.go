package rig

import (
	"fmt"
	"strings"
)

// Culvert starts an outlet, so many relays before it, and an inlet, all with
// their defaults, and returns the inlet's address. What the inlet dials goes
// through hop, which returns an address that leads to another; nil is none.
func (c *Chain) Culvert(relays int, hop func(addr string) string) string {
	far, in, out := c.Addr(), c.id("inlet"), c.id("outlet")
	if hop == nil {
		hop = func(addr string) string { return addr }
	}
	var route []string
	if relays == 0 {
		c.outlet("--listen", "tcp://"+far)
		c.Await(far)
		route = []string{"tcp://" + hop(far) + "/" + out}
	}
	next := "" // the relay behind, nearer to the outlet
	for i := relays; i > 0; i-- {
		name, addr := fmt.Sprint("relay-", i), c.Addr()
		args := []string{"--listen", "tcp://" + addr, "--connect", in}
		if next == "" {
			args = append(args, "--register", out)
		} else {
			args = append(args, "--extend", "tcp://"+next)
		}
		c.program((*Chain).RunPart, "relay", name, args...)
		c.Await(addr)
		if next == "" {
			c.outlet("--relay", "tcp://"+addr+"/"+c.id(name))
		}
		dialed := addr
		if i == 1 {
			dialed = hop(addr)
		}
		route = append([]string{"tcp://" + dialed + "/" + c.id(name)}, route...)
		next = addr
	}
	near := c.Addr()
	c.program((*Chain).Run, "inlet", "inlet", "--listen", "tcp://"+near, "--service", "bench", "--outlet", out, "--route", strings.Join(route, ","))
	return near
}

// outlet starts an outlet for the one service.
func (c *Chain) outlet(args ...string) {
	args = append(args, "--service", "bench=tcp://"+c.Target(), "--allow", c.id("inlet"))
	c.program((*Chain).Run, "outlet", "outlet", args...)
}

// program starts one of Culvert's.
func (c *Chain) program(run func(*Chain, string, ...string), kind, identity string, args ...string) {
	c.id(identity)
	command := append(c.rig.program(kind), "--identity", c.rig.key(identity), "--log-level", "warn")
	run(c, command[0], append(command[1:], args...)...)
}

func (c *Chain) id(name string) string {
	id, err := c.rig.id(name)
	c.Fail(err)
	return id
}
