package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/culvert-net/culvert/pkg/route"
)

// lookupTime bounds one question to the resolver.
const lookupTime = 5 * time.Second

// A lookupFunc finds a host's IP addresses, as [net.Resolver.LookupHost] does.
type lookupFunc func(ctx context.Context, host string) ([]string, error)

// resolve returns the host's addresses as ip:port, each once, at most
// maxAddresses, in the order of SHA-256 over (order, address). All who know
// order try the same address first: callers of an outlet meet it at the same
// replica, and different outlets' callers spread over all of them.
func resolve(ctx context.Context, lookup lookupFunc, host string, port uint16, order [32]byte) ([]string, error) {
	hosts := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		if hosts, err = lookup(ctx, host); err != nil {
			return nil, fmt.Errorf("looking up %s: %w", host, err)
		}
	}
	type candidate struct {
		address string
		key     [sha256.Size]byte
	}
	var all []candidate
	for _, h := range hosts {
		ip, err := netip.ParseAddr(h)
		if err != nil {
			continue // no resolver returns such
		}
		address := netip.AddrPortFrom(ip.Unmap(), port).String()
		all = append(all, candidate{address, sha256.Sum256(append(order[:len(order):len(order)], address...))})
	}
	slices.SortFunc(all, func(a, b candidate) int { return bytes.Compare(a.key[:], b.key[:]) })
	all = slices.Compact(all)
	if len(all) == 0 {
		return nil, fmt.Errorf("looking up %s: it has no address", host)
	}
	addresses := make([]string, 0, min(len(all), maxAddresses))
	for _, c := range all[:min(len(all), maxAddresses)] {
		addresses = append(addresses, c.address)
	}
	return addresses, nil
}

// splitAddress takes a checked host:port apart.
func splitAddress(address string) (host string, port uint16) {
	host, port, err := route.ParseAddress("tcp://" + address)
	if err != nil {
		panic("relay: address " + strconv.Quote(address) + " was not checked")
	}
	return host, port
}
