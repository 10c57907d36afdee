// Command initiator sends "Hello" along the route that it is given, and prints the
// reply.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: initiator ROUTE")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, text string) error {
	onward, err := node.ParseRoute(text)
	if err != nil {
		return err
	}
	n := node.New(node.Config{})
	defer n.Close()
	reply, err := n.Request(ctx, onward, []byte("Hello"))
	if err != nil {
		return err
	}
	fmt.Printf("the reply is %q\n", reply.Body)
	return nil
}
