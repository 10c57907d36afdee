// Command 03-routing sends a message through one hop, and then through three.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	n := node.New(node.Config{})
	defer n.Close()
	echoer := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		// Each hop has taken itself off the onward route and put itself on this one. The
		// last address is the node's own, where the answer is waited for.
		hops := m.Return[:len(m.Return)-1]
		fmt.Printf("echoer: %q has come by [%s]\n", m.Body, hops)
		return self.Reply(ctx, m, m.Body)
	})
	if err := n.Start("echoer", echoer, node.Options{}); err != nil {
		return err
	}
	for _, name := range []node.Address{"h1", "h2", "h3"} {
		if err := n.StartHop(name, node.Hop{}); err != nil {
			return err
		}
	}
	for _, onward := range []node.Route{{"h1", "echoer"}, {"h1", "h2", "h3", "echoer"}} {
		reply, err := n.Request(ctx, onward, []byte("Hello"))
		if err != nil {
			return err
		}
		fmt.Printf("reply: %q over [%s]\n", reply.Body, onward)
	}
	return nil
}
