// Command 02-worker runs an echoer, sends it a message and prints the reply.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	ctx := context.Background()
	n := node.New(node.Config{})
	defer n.Close()

	echoer := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		fmt.Printf("%s has got %q\n", self.Address(), m.Body)
		return self.Reply(ctx, m, m.Body)
	})
	if err := n.Start("echoer", echoer, node.Options{}); err != nil {
		log.Fatal(err) //nolint:gocritic // nothing is lost with the node
	}

	reply, err := n.Request(ctx, node.Route{"echoer"}, []byte("Hello"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the reply is %q\n", reply.Body)
}
