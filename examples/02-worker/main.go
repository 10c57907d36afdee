// Command 02-worker runs an echoer, sends it a message and prints the reply.
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
		fmt.Printf("%s has got %q\n", self.Address(), m.Body)
		return self.Reply(ctx, m, m.Body)
	})
	if err := n.Start("echoer", echoer, node.Options{}); err != nil {
		return err
	}

	reply, err := n.Request(ctx, node.Route{"echoer"}, []byte("Hello"))
	if err != nil {
		return err
	}
	fmt.Printf("the reply is %q\n", reply.Body)
	return nil
}
