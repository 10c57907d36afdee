// Command client gets web pages whose hosts are services, as curl gets others.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/pkg/identity"
)

func main() {
	key := flag.String("identity", "client.key", "the private identity file")
	route := flag.String("route", "", "the route to the server: that to the relay")
	outlet := flag.String("outlet", "", "the identifier of the server")
	flag.Parse()
	if err := run(context.Background(), *key, *route, *outlet, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, key, route, outlet string, urls []string) error {
	server, err := identity.ParseIdentifier(outlet)
	if err != nil {
		return err
	}
	d, err := culvert.NewDialer(culvert.DialerConfig{
		Config: culvert.Config{IdentityFile: key},
		Outlet: server,
		Routes: []string{route},
	})
	if err != nil {
		return err
	}
	defer d.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	defer client.CloseIdleConnections()
	for _, url := range urls {
		if err := get(ctx, client, url); err != nil {
			return err
		}
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
