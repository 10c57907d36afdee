// Command bob serves channels to the one peer that he is told of, and an echoer
// behind them. The first line that he prints is his identifier.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: bob HOST:PORT ALICE")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, at, peer string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	alice, err := identity.ParseIdentifier(peer)
	if err != nil {
		return err
	}
	// A program that is to be known tomorrow keeps its identity in a file.
	id, err := identity.New(time.Now())
	if err != nil {
		return err
	}
	local, err := channel.NewLocal(id)
	if err != nil {
		return err
	}
	n := node.New(node.Config{Local: local})
	defer n.Close()

	// Who may open a channel, and whose messages reach the echoer, are two questions.
	if err := n.ServeChannels("channels", func(p channel.Peer) error {
		if p.Identifier != alice {
			return errors.New("bob speaks with alice only")
		}
		return nil
	}); err != nil {
		return err
	}
	echoer := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		fmt.Printf("echoer: %q from alice: %t\n", m.Body, m.From.Peer.Identifier == alice)
		return self.Reply(ctx, m, m.Body)
	})
	if err := n.Start("echoer", echoer, node.Options{Allow: node.Peers(alice)}); err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	fmt.Println(local.Identifier())
	fmt.Println("listening at", node.Addr(ln))
	return n.Serve(ctx, ln)
}
