// Command middle carries messages on to the one node that it is told of.
package main

import (
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
	// A hop carries from outside to outside only where it is told to.
	if err := n.StartHop("forward", node.Hop{Allow: node.Anyone, To: []node.Address{next}}); err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	fmt.Println("listening at", node.Addr(ln))
	return n.Serve(ctx, ln)
}
