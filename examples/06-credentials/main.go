// Command 06-credentials runs a worker that only those reach who have a credential
// that says role=operator.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/node"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	// Who says who is what. In a fleet that is `culvert authority`, far from here.
	authority, err := identity.New(time.Now())
	if err != nil {
		return err
	}
	server, addr, serving, err := serve(ctx, authority.Identifier())
	if err != nil {
		return err
	}
	defer func() { <-serving }()
	defer server.Close()
	for _, role := range []string{"operator", "guest"} {
		local, err := enrolled(authority, role)
		if err != nil {
			return err
		}
		if err := ask(ctx, local, role, addr, server.Local().Identifier()); err != nil {
			return err
		}
	}
	return nil
}

// serve runs a node with a worker for operators.
func serve(ctx context.Context, authority identity.Identifier) (*node.Node, node.Address, <-chan struct{}, error) {
	verifier, err := credential.NewVerifier(credential.Config{Authorities: []identity.Identifier{authority}})
	if err != nil {
		return nil, "", nil, err
	}
	id, err := identity.New(time.Now())
	if err != nil {
		return nil, "", nil, err
	}
	local, err := channel.NewLocal(id)
	if err != nil {
		return nil, "", nil, err
	}
	n := node.New(node.Config{
		Local: local,
		// What a peer's credentials prove; those that do not count change nothing.
		Attributes: func(p channel.Peer) (map[string]string, error) {
			v, err := verifier.VerifyAll(p.Identifier, p.Credentials, time.Now())
			return v.Attributes, err
		},
	})
	restart := node.WorkerFunc(func(ctx context.Context, self *node.Self, m *node.Message) error {
		return self.Reply(ctx, m, []byte("restarted"))
	})
	if err := n.Start("restart", restart, node.Options{Allow: node.Attribute("role", "operator")}); err != nil {
		return nil, "", nil, err
	}
	// Anybody may open a channel: what they reach through it is another question.
	if err := n.ServeChannels("channels", func(channel.Peer) error { return nil }); err != nil {
		return nil, "", nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := n.Serve(ctx, ln); err != nil {
			log.Print(err)
		}
	}()
	return n, node.Addr(ln), served, nil
}

// enrolled returns the local part of a new member with that role.
func enrolled(authority *identity.Identity, role string) (*channel.Local, error) {
	id, err := identity.New(time.Now())
	if err != nil {
		return nil, err
	}
	_, bundle, err := credential.Issue(authority, credential.Template{
		Subject: id.Identifier(), Attributes: credential.Attributes{"role": role}, NotBefore: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	local, err := channel.NewLocal(id)
	if err != nil {
		return nil, err
	}
	return local, local.SetCredentials([][]byte{bundle})
}

// ask asks the worker, as a member.
func ask(ctx context.Context, local *channel.Local, role string, addr node.Address, server identity.Identifier) error {
	n := node.New(node.Config{Local: local})
	defer n.Close()
	c, err := n.OpenChannel(ctx, node.Route{addr, "channels"}, server)
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := n.Request(ctx, node.Route{c.Address(), "restart"}, nil)
	if err != nil {
		fmt.Printf("%s: refused\n", role)
		return nil //nolint:nilerr // what was to be shown
	}
	fmt.Printf("%s: %s\n", role, reply.Body)
	return nil
}
