package culvert_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// mustIdentity returns a new identity. Programs keep theirs in a file:
// Config.IdentityFile.
func mustIdentity() *identity.Identity {
	id, err := identity.New(time.Now())
	if err != nil {
		log.Fatal(err)
	}
	return id
}

// A web server is served straight from a program, to one other, which asks it by the name
// of its service. Here the one reaches the other directly; through a relay it is the same
// with the relay's route in Relays and in Routes.
func Example() {
	ctx := context.Background()
	shop, orders := mustIdentity(), mustIdentity()

	ln, err := culvert.Listen(ctx, culvert.ListenerConfig{
		Config:  culvert.Config{Identity: orders},
		Service: "orders",
		Listen:  []string{"127.0.0.1:0"},
		Allow:   []identity.Identifier{shop.Identifier()},
	})
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		ConnContext:       culvert.ConnContext,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, _ := culvert.PeerFromContext(r.Context())
			fmt.Fprintf(w, "GET %s by the shop: %v", r.URL.Path, peer.Identifier == shop.Identifier())
		}),
	}
	go srv.Serve(ln) //nolint:errcheck // it ends with Shutdown

	d, err := culvert.NewDialer(culvert.DialerConfig{
		Config: culvert.Config{Identity: shop},
		Outlet: orders.Identifier(),
		Routes: ln.Routes(),
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	resp, err := client.Get("http://orders/invoices")
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	_ = resp.Body.Close()
	fmt.Printf("%s\n", body)

	client.CloseIdleConnections()
	fmt.Println(d.Close(), srv.Shutdown(ctx), ln.Shutdown(ctx))
	// Output:
	// GET /invoices by the shop: true
	// <nil> <nil> <nil>
}

// exampleListener offers "greeter", which says hello and then that it is done, to a
// dialer that it returns, too.
func exampleListener() (*culvert.Listener, culvert.DialerConfig) {
	ours, theirs := mustIdentity(), mustIdentity()
	ln, err := culvert.Listen(context.Background(), culvert.ListenerConfig{
		Config: culvert.Config{Identity: theirs}, Service: "greeter", Listen: []string{"127.0.0.1:0"}, Allow: []identity.Identifier{ours.Identifier()},
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.AcceptConn()
			if err != nil {
				return
			}
			name, err := io.ReadAll(c)
			if err != nil {
				_ = c.Abort()
				continue
			}
			fmt.Fprintf(c, "hello %s", name)
			_ = c.Close()
		}
	}()
	return ln, culvert.DialerConfig{Config: culvert.Config{Identity: ours}, Outlet: theirs.Identifier(), Routes: ln.Routes()}
}

// One direction ends, the other goes on: the greeter reads to the end, then answers.
func ExampleDialer_Dial() {
	ctx := context.Background()
	ln, cfg := exampleListener()
	defer ln.Close()
	d, err := culvert.NewDialer(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()

	c, err := d.Dial(ctx, "greeter")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "gopher")
	if err := c.CloseWrite(); err != nil {
		log.Fatal(err)
	}
	answer, err := io.ReadAll(c) // no error: the greeter has said that this is all
	fmt.Printf("%s, %v\n", answer, err)
	// Output: hello gopher, <nil>
}

// Dial for once, without a Dialer.
func ExampleDial() {
	ctx := context.Background()
	ln, cfg := exampleListener()
	defer ln.Close()

	c, err := culvert.Dial(ctx, cfg, "greeter")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(c, "world")
	_ = c.CloseWrite()
	answer, err := io.ReadAll(c)
	fmt.Printf("%s, %v\n", answer, err)
	fmt.Println(c.Close())
	// Output:
	// hello world, <nil>
	// <nil>
}

// A refusal says what it was, in the codes of docs/protocol.md.
func ExampleError() {
	ctx := context.Background()
	ln, cfg := exampleListener()
	defer ln.Close()
	cfg.Identity = mustIdentity() // whom nobody has allowed anything

	_, err := culvert.Dial(ctx, cfg, "greeter")
	var e *culvert.Error
	if errors.As(err, &e) && e.Code == code.StreamDenied {
		fmt.Println("have the operator of the service let this program in")
	}
	// Output: have the operator of the service let this program in
}

// Listen is for whatever takes a net.Listener.
func ExampleListen() {
	ctx := context.Background()
	friend := mustIdentity()
	ln, err := culvert.Listen(ctx, culvert.ListenerConfig{
		Config:  culvert.Config{Identity: mustIdentity()},
		Service: "time",
		Listen:  []string{"127.0.0.1:0"},
		Allow:   []identity.Identifier{friend.Identifier()},
	})
	if err != nil {
		log.Fatal(err)
	}
	var asListener net.Listener = ln
	_, service, err := net.SplitHostPort(asListener.Addr().String())
	fmt.Println(asListener.Addr().Network(), service, err)
	fmt.Println(ln.Shutdown(ctx))
	// Output:
	// culvert time <nil>
	// <nil>
}
