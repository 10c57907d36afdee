// Command middle carries messages on to the one node that it is told of, and prints
// what it sees of them.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"

	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: middle HOST:PORT NEXT")
	}
	if err := run(context.Background(), os.Args[1], node.Address(os.Args[2])); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, at string, next node.Address) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	n := node.New(node.Config{})
	defer n.Close()
	// A worker that forwards can read what passes; a hop would not even look.
	curious := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		fmt.Printf("middle: %d bytes, \"Hello\" among them: %t\n", len(m.Body), bytes.Contains(m.Body, []byte("Hello")))
		if len(m.Onward) > 0 && m.Onward[0] == next {
			m.Onward = m.Onward[1:]
			return self.ForwardTo(ctx, m, node.Route{next})
		}
		// An answer; to another node that its route names, this one carries nothing.
		return self.Forward(ctx, m)
	})
	if err := n.Start("forward", curious, node.Options{Allow: node.Anyone}); err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	fmt.Println("listening at", node.Addr(ln))
	return n.Serve(ctx, ln)
}
