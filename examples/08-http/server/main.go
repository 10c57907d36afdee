// Command server serves a web page to one other program, which finds it through a
// relay. It listens at no port.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/identity"
)

func main() {
	key := flag.String("identity", "server.key", "the private identity file")
	relay := flag.String("relay", "", "the route to the relay: tcp://host:port/IDENTIFIER")
	allow := flag.String("allow", "", "the identifier of the client")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *key, *relay, *allow); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, key, relay, allow string) error {
	client, err := identity.ParseIdentifier(allow)
	if err != nil {
		return err
	}
	ln, err := culvert.Listen(ctx, culvert.ListenerConfig{
		Config:  culvert.Config{IdentityFile: key},
		Service: "hello",
		Relays:  []string{relay},
		Allow:   []identity.Identifier{client},
	})
	if err != nil {
		return err
	}
	fmt.Println("serving hello")
	srv := &http.Server{
		ConnContext:       culvert.ConnContext,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, _ := culvert.PeerFromContext(r.Context())
			fmt.Fprintf(w, "hello, you are the client: %v\n", peer.Identifier == client)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return errors.Join(err, ln.Shutdown(ctx))
	case <-ctx.Done():
	}
	// Requests that are under way are finished.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = errors.Join(srv.Shutdown(last), ln.Shutdown(last))
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	fmt.Println("the server has stopped")
	return err
}
