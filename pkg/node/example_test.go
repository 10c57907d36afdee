package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/node"
)

// echo answers each message with its own body.
func echo(ctx context.Context, self *node.Self, m *node.Message) error {
	return self.Reply(ctx, m, m.Body)
}

// serve has n serve a listener, and returns the address that leads to it from other
// nodes. Serve ends with the node.
func serve(n *node.Node) node.Address {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if err := n.Serve(context.Background(), ln); err != nil {
			log.Print(err)
		}
	}()
	return node.Addr(ln)
}

// newLocal makes an identity that lasts as long as the program.
func newLocal() *channel.Local {
	id, err := identity.New(time.Now())
	if err != nil {
		log.Fatal(err)
	}
	local, err := channel.NewLocal(id)
	if err != nil {
		log.Fatal(err)
	}
	return local
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A node runs a worker, and asks it something.
func Example() {
	n := node.New(node.Config{})
	defer n.Close()
	greeter := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		return self.Reply(ctx, m, append([]byte("Hello, "), m.Body...))
	})
	check(n.Start("greeter", greeter, node.Options{}))

	reply, err := n.Request(context.Background(), node.Route{"greeter"}, []byte("Alice"))
	check(err)
	fmt.Printf("%s\n", reply.Body)
	// Output: Hello, Alice
}

// Each hop takes itself off the onward route and puts itself on the return route.
func ExampleRoute() {
	n := node.New(node.Config{})
	defer n.Close()
	check(n.StartHop("h1", node.Hop{}))
	check(n.StartHop("h2", node.Hop{}))
	check(n.Start("last", node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		fmt.Println("come by", m.Return[:2]) // the rest is where the answer is awaited
		return self.Reply(ctx, m, nil)
	}), node.Options{}))

	_, err := n.Request(context.Background(), node.Route{"h1", "h2", "last"}, nil)
	check(err)
	// Output: come by h2,h1
}

// Two nodes, which would be two programs: one serves a listener, the other one's route
// begins with the address of that. Nothing from outside reaches a worker that does not
// say so.
func ExampleNode_Serve() {
	bob := node.New(node.Config{})
	defer bob.Close()
	check(bob.Start("echo", node.WorkerFunc(echo), node.Options{Allow: node.Anyone}))
	check(bob.Start("private", node.WorkerFunc(echo), node.Options{}))
	addr := serve(bob)

	alice := node.New(node.Config{})
	defer alice.Close()
	reply, err := alice.Request(context.Background(), node.Route{addr, "echo"}, []byte("Hello"))
	check(err)
	fmt.Printf("%s, from outside: %t\n", reply.Body, reply.From.Outside)
	_, err = alice.Request(context.Background(), node.Route{addr, "private"}, []byte("Hello"))
	fmt.Println(err)
	// Output:
	// Hello, from outside: true
	// message not delivered at private: nothing from outside may reach this address (worker_denied)
}

// A node in the middle carries messages on to the nodes that a hop of its names, and to
// no others.
func ExampleHop() {
	bob := node.New(node.Config{})
	defer bob.Close()
	check(bob.Start("echo", node.WorkerFunc(echo), node.Options{Allow: node.Anyone}))
	toBob := serve(bob)

	middle := node.New(node.Config{})
	defer middle.Close()
	check(middle.StartHop("forward", node.Hop{Allow: node.Anyone, To: []node.Address{toBob}}))
	toMiddle := serve(middle)

	alice := node.New(node.Config{})
	defer alice.Close()
	reply, err := alice.Request(context.Background(), node.Route{toMiddle, "forward", toBob, "echo"}, []byte("Hello"))
	check(err)
	fmt.Printf("%s\n", reply.Body)
	_, err = alice.Request(context.Background(), node.Route{toMiddle, toBob, "echo"}, nil)
	var de *node.DeliveryError
	fmt.Println(errors.As(err, &de) && de.Code.String() == "worker_denied")
	// Output:
	// Hello
	// true
}

// A channel is end to end: whatever lies between sees ciphertext, and each side knows
// who the other one is.
func ExampleNode_OpenChannel() {
	alices, bobs := newLocal(), newLocal()
	bob := node.New(node.Config{Local: bobs})
	defer bob.Close()
	check(bob.ServeChannels("channels", func(p channel.Peer) error {
		if p.Identifier != alices.Identifier() {
			return errors.New("bob speaks with alice only")
		}
		return nil
	}))
	check(bob.Start("echo", node.WorkerFunc(echo), node.Options{Allow: node.Peers(alices.Identifier())}))
	addr := serve(bob)

	alice := node.New(node.Config{Local: alices})
	defer alice.Close()
	c, err := alice.OpenChannel(context.Background(), node.Route{addr, "channels"}, bobs.Identifier())
	check(err)
	defer c.Close()
	reply, err := alice.Request(context.Background(), node.Route{c.Address(), "echo"}, []byte("Hello"))
	check(err)
	fmt.Printf("%s, from bob: %t\n", reply.Body, reply.From.Peer.Identifier == bobs.Identifier())

	mallory := node.New(node.Config{Local: newLocal()})
	defer mallory.Close()
	_, err = mallory.OpenChannel(context.Background(), node.Route{addr, "channels"}, bobs.Identifier())
	fmt.Println("mallory is refused:", err != nil)
	// Output:
	// Hello, from bob: true
	// mallory is refused: true
}

// A worker for those who prove an attribute. What proves it, Config.Attributes says: in
// a fleet the credentials of an authority (package credential).
func ExampleAttribute() {
	alices, bobs := newLocal(), newLocal()
	bob := node.New(node.Config{Local: bobs, Attributes: func(p channel.Peer) (map[string]string, error) {
		if p.Identifier == alices.Identifier() {
			return map[string]string{"role": "operator"}, nil
		}
		return nil, nil
	}})
	defer bob.Close()
	check(bob.ServeChannels("channels", func(channel.Peer) error { return nil }))
	check(bob.Start("restart", node.WorkerFunc(echo), node.Options{Allow: node.Attribute("role", "operator")}))
	addr := serve(bob)

	for _, local := range []*channel.Local{alices, newLocal()} {
		n := node.New(node.Config{Local: local})
		c, err := n.OpenChannel(context.Background(), node.Route{addr, "channels"}, bobs.Identifier())
		check(err)
		_, err = n.Request(context.Background(), node.Route{c.Address(), "restart"}, nil)
		fmt.Println("an operator:", err == nil)
		_ = n.Close()
	}
	// Output:
	// an operator: true
	// an operator: false
}

// A node that nobody can dial registers at one that everybody can, under the identifier
// that its channel there has proven, and is reached by that name.
func ExampleRelay() {
	ctx := context.Background()
	relays, bobs, alices := newLocal(), newLocal(), newLocal()
	relay := node.New(node.Config{Local: relays})
	defer relay.Close()
	check(relay.ServeChannels("channels", func(channel.Peer) error { return nil }))
	check(relay.StartRelay("relay", node.Relay{Allow: node.Anyone}))
	addr := serve(relay)

	bob := node.New(node.Config{Local: bobs})
	defer bob.Close()
	check(bob.ServeChannels("channels", func(channel.Peer) error { return nil }))
	check(bob.Start("echo", node.WorkerFunc(echo), node.Options{Allow: node.Peers(alices.Identifier())}))
	toRelay, err := bob.OpenChannel(ctx, node.Route{addr, "channels"}, relays.Identifier())
	check(err)
	name := node.Address(bobs.Identifier().String())
	_, err = bob.Register(ctx, node.Route{toRelay.Address(), "relay"}, name) // until bob is closed
	check(err)

	alice := node.New(node.Config{Local: alices})
	defer alice.Close()
	c, err := alice.OpenChannel(ctx, node.Route{addr, name, "channels"}, bobs.Identifier())
	check(err)
	reply, err := alice.Request(ctx, node.Route{c.Address(), "echo"}, []byte("Hello"))
	check(err)
	fmt.Printf("%s\n", reply.Body)
	// Output: Hello
}

// A courier sends messages on, and hears of those that were lost.
type courier struct{ losses chan<- *node.DeliveryError }

func (c courier) Handle(ctx context.Context, self *node.Self, m *node.Message) error {
	return self.Send(ctx, node.Route{"grumpy"}, m.Body)
}

func (c courier) HandleLoss(_ context.Context, _ *node.Self, err *node.DeliveryError) {
	c.losses <- err
}

// A worker that is a LossHandler hears what has become of messages that it has sent.
func ExampleLossHandler() {
	n := node.New(node.Config{})
	defer n.Close()
	losses := make(chan *node.DeliveryError, 1)
	check(n.Start("courier", courier{losses}, node.Options{}))
	check(n.Start("grumpy", node.WorkerFunc(func(context.Context, *node.Self, *node.Message) error {
		return errors.New("not today")
	}), node.Options{}))

	check(n.Send(context.Background(), node.Route{"courier"}, []byte("Hello")))
	fmt.Println(<-losses)
	// Output: message not delivered at grumpy: not today (worker_failed)
}

// After a panic a worker goes on, here as one that is made anew. The sender hears.
func ExampleOptions() {
	n := node.New(node.Config{})
	defer n.Close()
	generation := 0
	newCounter := func() node.Worker {
		generation++
		which, count := generation, 0
		return node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
			if len(m.Body) == 0 {
				panic("an empty message")
			}
			count++
			return self.Reply(ctx, m, fmt.Appendf(nil, "message %d of counter %d", count, which))
		})
	}
	check(n.Start("counter", newCounter(), node.Options{Restart: newCounter, Restarts: 3}))

	for _, body := range []string{"a", "b", "", "c"} {
		reply, err := n.Request(context.Background(), node.Route{"counter"}, []byte(body))
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s\n", reply.Body)
	}
	// Output:
	// message 1 of counter 1
	// message 2 of counter 1
	// message not delivered at counter: the worker has panicked (worker_failed)
	// message 1 of counter 2
}

// A worker sees what passes, changes it, and sends it on. What it puts before the rest
// of the route it answers for: only so a message from outside gets to a third node.
func ExampleSelf_ForwardTo() {
	n := node.New(node.Config{})
	defer n.Close()
	check(n.Start("echo", node.WorkerFunc(echo), node.Options{}))
	check(n.Start("shout", node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		if len(m.Onward) > 0 { // an answer, on its way back
			return self.Forward(ctx, m)
		}
		m.Body = bytes.ToUpper(m.Body)
		return self.ForwardTo(ctx, m, node.Route{"echo"})
	}), node.Options{}))

	reply, err := n.Request(context.Background(), node.Route{"shout"}, []byte("Hello"))
	check(err)
	fmt.Printf("%s\n", reply.Body)
	// Output: HELLO
}

// What a body means, sender and receiver agree on: here it is JSON.
func ExampleMessage() {
	type order struct {
		Item  string
		Count int
	}
	n := node.New(node.Config{})
	defer n.Close()
	check(n.Start("orders", node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		var o order
		if err := json.Unmarshal(m.Body, &o); err != nil {
			return fmt.Errorf("this is no order: %w", err) // the sender gets it
		}
		return self.Reply(ctx, m, fmt.Appendf(nil, "%d times %s", o.Count, o.Item))
	}), node.Options{}))

	body, err := json.Marshal(order{"tea", 2})
	check(err)
	reply, err := n.Request(context.Background(), node.Route{"orders"}, body)
	check(err)
	fmt.Printf("%s\n", reply.Body)
	_, err = n.Request(context.Background(), node.Route{"orders"}, []byte("tea, please"))
	fmt.Println(err)
	// Output:
	// 2 times tea
	// message not delivered at orders: this is no order: invalid character 'e' in literal true (expecting 'r') (worker_failed)
}

// Typed values instead of bytes, here as JSON: the same goes for CBOR, protobuf and others.
func ExampleTyped() {
	type order struct {
		Item  string
		Count int
	}
	type receipt struct{ Cents int }
	asJSON := node.Encoding{Marshal: json.Marshal, Unmarshal: json.Unmarshal}

	n := node.New(node.Config{})
	defer n.Close()
	check(n.Start("orders", node.Typed(asJSON, func(_ context.Context, _ *node.Self, _ *node.Message, o *order) (*receipt, error) {
		if o.Count < 1 {
			return nil, errors.New("order at least one")
		}
		return &receipt{Cents: 250 * o.Count}, nil
	}), node.Options{}))

	r, err := node.Ask[receipt](context.Background(), n, node.Route{"orders"}, asJSON, &order{"tea", 2})
	check(err)
	fmt.Println(r.Cents)
	_, err = node.Ask[receipt](context.Background(), n, node.Route{"orders"}, asJSON, &order{"tea", 0})
	fmt.Println(err)
	// Output:
	// 500
	// message not delivered at orders: order at least one (worker_failed)
}

// An error says by its code what has happened, and where.
func ExampleDeliveryError() {
	n := node.New(node.Config{})
	defer n.Close()
	_, err := n.Request(context.Background(), node.Route{"nobody"}, nil)
	var de *node.DeliveryError
	if errors.As(err, &de) {
		switch de.Code {
		case code.NoWorker:
			fmt.Println("there is nobody at", de.At)
		case code.Timeout, code.LinkLost:
			fmt.Println("it may have been delivered, or not")
		default:
			fmt.Println(err)
		}
	}
	// Output: there is nobody at nobody
}

func ExampleParseRoute() {
	r, err := node.ParseRoute("tcp://10.0.0.2:4000, forward, echo")
	fmt.Println(len(r), r, err)
	_, err = node.ParseRoute("tcp://10.0.0.2, forward")
	fmt.Println(err != nil)
	// Output:
	// 3 tcp://10.0.0.2:4000,forward,echo <nil>
	// true
}
