// Command 07-fleet runs a relay and 1,000 nodes that nobody can dial, each of which
// is reached by its identifier, end to end encrypted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	size := flag.Int("nodes", 1000, "how many")
	flag.Parse()
	if err := run(context.Background(), *size); err != nil {
		log.Fatal(err)
	}
}

// newNode returns a node with an identity of its own.
func newNode() (*node.Node, identity.Identifier, error) {
	id, err := identity.New(time.Now())
	if err != nil {
		return nil, identity.Identifier{}, err
	}
	local, err := channel.NewLocal(id)
	if err != nil {
		return nil, identity.Identifier{}, err
	}
	return node.New(node.Config{Local: local, MaxConns: 4096}), local.Identifier(), nil
}

func run(ctx context.Context, size int) error {
	relay, relayID, err := newNode()
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { served <- relay.Serve(ctx, ln) }()
	defer func() {
		_ = relay.Close()
		if err := <-served; err != nil {
			log.Print(err)
		}
	}()
	// Nodes register by channels, under the identifiers that those prove.
	if err := errors.Join(
		relay.ServeChannels("channels", func(channel.Peer) error { return nil }),
		relay.StartRelay("relay", node.Relay{Allow: node.Anyone}),
	); err != nil {
		return err
	}
	toRelay := node.Route{node.Addr(ln), "channels"}

	operator, operatorID, err := newNode()
	if err != nil {
		return err
	}
	defer operator.Close()

	fleet := make([]identity.Identifier, size)
	var joining errgroup.Group
	joining.SetLimit(16)
	nodes := make([]*node.Node, size)
	defer func() {
		var leaving errgroup.Group
		for _, n := range nodes {
			if n != nil {
				leaving.Go(n.Close)
			}
		}
		_ = leaving.Wait() // Close returns no error
	}()
	for i := range size {
		joining.Go(func() error {
			var err error
			nodes[i], fleet[i], err = join(ctx, toRelay, relayID, operatorID)
			return err
		})
	}
	if err := joining.Wait(); err != nil {
		return err
	}
	fmt.Printf("%d nodes are registered\n", size)
	return visit(ctx, operator, toRelay, relayID, fleet)
}

// join makes a node that registers at the relay and serves the operator.
func join(ctx context.Context, toRelay node.Route, relay, operator identity.Identifier) (*node.Node, identity.Identifier, error) {
	n, id, err := newNode()
	if err != nil {
		return nil, id, err
	}
	name := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		return self.Reply(ctx, m, []byte(id.String()))
	})
	c, err := n.OpenChannel(ctx, toRelay, relay)
	if err != nil {
		return n, id, err
	}
	if _, err := n.Register(ctx, node.Route{c.Address(), "relay"}, node.Address(id.String())); err != nil {
		return n, id, err
	}
	return n, id, errors.Join(
		n.Start("name", name, node.Options{Allow: node.Peers(operator)}),
		n.ServeChannels("channels", func(p channel.Peer) error {
			if p.Identifier != operator {
				return errors.New("for the operator only")
			}
			return nil
		}),
	)
}

// visit opens a channel to each node of the fleet, by its identifier, and asks its
// name.
func visit(ctx context.Context, operator *node.Node, toRelay node.Route, relay identity.Identifier, fleet []identity.Identifier) error {
	r, err := operator.OpenChannel(ctx, toRelay, relay)
	if err != nil {
		return err
	}
	var visits errgroup.Group
	visits.SetLimit(16)
	for _, id := range fleet {
		visits.Go(func() error {
			c, err := operator.OpenChannel(ctx, node.Route{r.Address(), node.Address(id.String()), "channels"}, id)
			if err != nil {
				return err
			}
			defer c.Close()
			reply, err := operator.Request(ctx, node.Route{c.Address(), "name"}, nil)
			if err == nil && string(reply.Body) != id.String() {
				err = fmt.Errorf("%s says that it is %s", id, reply.Body)
			}
			return err
		})
	}
	if err := visits.Wait(); err != nil {
		return err
	}
	fmt.Printf("each of them has answered under its identifier\n")
	return nil
}
