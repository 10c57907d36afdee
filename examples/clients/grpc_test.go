package clients_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/identity"
)

// A gRPC server is served straight from a program, and its client dials it by the name
// of the service. The channel under both encrypts and authenticates, so that gRPC's
// own credentials are not needed; who has called is the address of the peer.
func Example_grpc() {
	ctx := context.Background()
	client, server := newIdentity(), newIdentity()
	ln, err := culvert.Listen(ctx, culvert.ListenerConfig{
		Config:  culvert.Config{Identity: server},
		Service: "health",
		Listen:  []string{"127.0.0.1:0"},
		Allow:   []identity.Identifier{client.Identifier()},
	})
	if err != nil {
		log.Fatal(err)
	}
	srv := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		p, _ := peer.FromContext(ctx)
		who := p.Addr.(*culvert.Addr).Identifier
		fmt.Println("called by the client:", who == client.Identifier())
		return next(ctx, req)
	}))
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	go srv.Serve(ln) //nolint:errcheck // it ends with GracefulStop

	d, err := culvert.NewDialer(culvert.DialerConfig{
		Config: culvert.Config{Identity: client},
		Outlet: server.Identifier(),
		Routes: ln.Routes(),
	})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///health",
		grpc.WithContextDialer(func(ctx context.Context, service string) (net.Conn, error) { return d.DialContext(ctx, "tcp", service) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.GetStatus())

	_ = conn.Close()
	srv.GracefulStop()
	fmt.Println(d.Close(), ln.Shutdown(ctx))
	// Output:
	// called by the client: true
	// SERVING
	// <nil> <nil>
}
