// Command alice makes her identity, prints its identifier, reads Bob's from her
// input, opens a channel to him over the route that she is given, and sends "Hello"
// through it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	id, err := identity.New(time.Now())
	if err != nil {
		return err
	}
	local, err := channel.NewLocal(id)
	if err != nil {
		return err
	}
	fmt.Println(local.Identifier())

	var peer, text string
	if _, err := fmt.Scan(&peer, &text); err != nil {
		log.Fatal("on the input: BOB ROUTE")
	}
	bob, err := identity.ParseIdentifier(peer)
	if err != nil {
		return err
	}
	onward, err := node.ParseRoute(text)
	if err != nil {
		return err
	}
	n := node.New(node.Config{Local: local})
	defer n.Close()
	c, err := n.OpenChannel(ctx, onward, bob)
	if err != nil {
		return err
	}
	defer c.Close()

	// The channel's address stands for Bob's node.
	reply, err := n.Request(ctx, node.Route{c.Address(), "echoer"}, []byte("Hello"))
	if err != nil {
		return err
	}
	fmt.Printf("the reply is %q, from bob: %t\n", reply.Body, reply.From.Peer.Identifier == bob)
	return nil
}
