// Command responder serves an echoer to other nodes, at the transport's address that
// it is given: tcp://HOST:PORT or unix:///PATH.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"

	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: responder ADDRESS")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	n := node.New(node.Config{})
	defer n.Close()
	echoer := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		fmt.Printf("echoer: %q\n", m.Body)
		return self.Reply(ctx, m, m.Body)
	})
	// Nothing from outside reaches a worker that does not say so.
	if err := n.Start("echoer", echoer, node.Options{Allow: node.Anyone}); err != nil {
		return err
	}
	network, at, _ := strings.Cut(address, "://")
	ln, err := new(net.ListenConfig).Listen(ctx, network, at)
	if err != nil {
		return err
	}
	fmt.Println("listening at", node.Addr(ln))
	return n.Serve(ctx, ln)
}
