package clients_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/jackc/pgx/v5"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/identity"
)

// forward carries a listener's conns to a TCP server, as an outlet does.
func forward(ln *culvert.Listener, to string) {
	for {
		c, err := ln.AcceptConn()
		if err != nil {
			return
		}
		go func() {
			nc, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Abort()
				return
			}
			server := nc.(*net.TCPConn)
			back := make(chan struct{})
			go func() {
				defer close(back)
				if _, err := io.Copy(c, server); err != nil {
					_ = c.Abort()
				}
				_ = c.CloseWrite()
			}()
			if _, err := io.Copy(server, c); err != nil {
				_ = server.SetLinger(0) // no clean end, so that the server sees none
				_ = server.Close()
			}
			_ = server.CloseWrite()
			<-back
			_ = server.Close()
			_ = c.Close()
		}()
	}
}

// pgx dials a database by the name of its service, through Culvert; neither pgx nor the
// database does TLS. Beside the database is an outlet; here it is in the same process.
func Example_pgx() {
	ctx := context.Background()
	shop, orders := newIdentity(), newIdentity()
	ln, err := culvert.Listen(ctx, culvert.ListenerConfig{
		Config:  culvert.Config{Identity: orders},
		Service: "orders-db",
		Listen:  []string{"127.0.0.1:0"},
		Allow:   []identity.Identifier{shop.Identifier()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go forward(ln, postgresAddr)

	d, err := culvert.NewDialer(culvert.DialerConfig{
		Config: culvert.Config{Identity: shop},
		Outlet: orders.Identifier(),
		Routes: ln.Routes(),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()

	cfg, err := pgx.ParseConfig("postgres://postgres@orders-db/postgres?sslmode=disable")
	if err != nil {
		log.Fatal(err)
	}
	cfg.DialFunc = d.DialContext
	// The host is a service's name, and no DNS knows it.
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	var answer int
	if err := conn.QueryRow(ctx, "select 6 * $1", 7).Scan(&answer); err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer, conn.Close(ctx))
	// Output: 42 <nil>
}
