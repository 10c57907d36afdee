package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// A listening outlet is one process of several that share an identity, a name
// and a port.
type listening struct {
	local *channel.Local
	table *channel.Table
	ln    net.Listener

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

// listenAs starts a process that echoes on every channel.
func listenAs(t *testing.T, id *identity.Identity, address string) *listening {
	t.Helper()
	o := &listening{local: localOf(t, id), table: channel.NewTable(channel.Settings{}, channel.Limits{}), ln: listen(t, address)}
	ctx, cancel := context.WithCancel(context.Background())
	o.wg.Go(func() {
		for {
			nc, err := o.ln.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns = append(o.conns, nc)
			o.mu.Unlock()
			o.wg.Go(func() { o.serve(ctx, nc) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = o.ln.Close()
		o.cut()
		o.wg.Wait()
	})
	return o
}

func (o *listening) serve(ctx context.Context, nc net.Conn) {
	in, err := channel.Respond(ctx, nc, o.local, channel.PurposeChannel, channel.Options{})
	switch {
	case err != nil:
	case in.Resumes():
		_, _ = o.table.Resume(in, "")
	default:
		c, err := o.table.Open(in, "")
		if err != nil {
			return
		}
		o.wg.Go(func() { _ = c.Run(ctx) })
		_, _ = io.Copy(c, c)
	}
}

// cut resets what there is.
func (o *listening) cut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, nc := range o.conns {
		_ = sock.ResetClose(nc)
	}
	o.conns = nil
}

// outletsAt starts processes of one identity at 127.0.0.1 and so on, all of the
// host "outlet".
func outletsAt(t *testing.T, id *identity.Identity, n int) (all []*listening, hop route.Hop, dns *hosts) {
	t.Helper()
	port, dns := "0", &hosts{}
	var ips []string
	for i := range n {
		ip := fmt.Sprintf("127.0.0.%d", i+1)
		o := listenAs(t, id, net.JoinHostPort(ip, port))
		_, port, _ = net.SplitHostPort(o.ln.Addr().String())
		all, ips = append(all, o), append(ips, ip)
	}
	dns.set("outlet", ips...)
	hop, err := route.ParseHop("tcp://outlet:" + port + "/" + id.Identifier().String())
	if err != nil {
		t.Fatal(err)
	}
	return all, hop, dns
}

// A path to an instance of an outlet that is itself the last hop leads to the
// address that was asked for, and to no other.
func TestPathToAnAddress(t *testing.T) {
	id := newIdentity(t)
	all, hop, dns := outletsAt(t, id, 3)
	near := startRelay(t, func(c *Config) { c.LookupHost = dns.lookup })
	_ = all[1].ln.Close()
	dead := all[1].ln.Addr().String()
	inlet := newLocal(t)
	instance := channel.Instance{1} // whichever: nobody is asked for it
	for _, r := range []route.Route{{hop}, {near.hop(t), hop}} {
		var dialled []string
		d := &Dialer{Local: inlet, LookupHost: dns.lookup, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
		var found []channel.Instance
		for address := range 3 {
			nc, err := d.Path(t.Context(), r, id.Identifier(), &instance, address)
			if err != nil {
				if errors.Is(err, channel.ErrNoAddress) || !strings.Contains(err.Error(), dead) {
					t.Errorf("address %d along %s: %v", address, r, err)
				}
				continue
			}
			conn, err := channel.Initiate(t.Context(), nc, inlet, id.Identifier(), channel.PurposeChannel, nil, channel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, conn.Peer().Instance)
			_ = conn.Close()
		}
		if want := []channel.Instance{all[0].local.Instance(), all[2].local.Instance()}; len(found) != 2 || !slices.Contains(found, want[0]) || !slices.Contains(found, want[1]) {
			t.Errorf("along %s: got to %v, want %v", r, found, want)
		}
		if len(r) == 1 && len(dialled) != 3 {
			t.Errorf("dialled %v, want each address once", dialled)
		}
		for _, address := range []int{3, 4, 1000} {
			if err := noPathAt(t, d, r, id.Identifier(), &instance, address); !errors.Is(err, channel.ErrNoAddress) {
				t.Errorf("address %d along %s: %v, want ErrNoAddress", address, r, err)
			}
		}
		carriesAny := path(t, d, r, id.Identifier(), nil)
		_ = carriesAny.Close()
	}
	// A relay is asked for the instance, once.
	d := &Dialer{Local: inlet}
	if err := noPathAt(t, d, route.Route{near.hop(t)}, id.Identifier(), &instance, 1); !errors.Is(err, channel.ErrNoAddress) {
		t.Errorf("address 1 at a relay: %v, want ErrNoAddress", err)
	}
}

func noPathAt(t *testing.T, d *Dialer, r route.Route, outlet identity.Identifier, instance *channel.Instance, address int) error {
	t.Helper()
	nc, err := d.Path(t.Context(), r, outlet, instance, address)
	if err == nil {
		nc.Close()
		t.Fatalf("a path to address %d along %s, want an error", address, r)
	}
	return err
}

// A channel goes back to its own process of several that listen behind one name,
// also past one that has come back and is asked first.
func TestResumePastAnotherOutlet(t *testing.T) {
	id := newIdentity(t)
	all, hop, dns := outletsAt(t, id, 2)
	d := &Dialer{Local: newLocal(t), LookupHost: dns.lookup}
	order, err := resolve(t.Context(), dns.lookup, hop.Host, hop.Port, id.Identifier())
	if err != nil {
		t.Fatal(err)
	}
	a, b := all[0], all[1]
	if b.ln.Addr().String() == order[0] {
		a, b = b, a
	}
	_ = a.ln.Close() // the first is down when the channel is opened
	var attempts atomic.Int32
	caller := &channel.Caller{
		Local: d.Local, Peer: id.Identifier(), Routes: 1,
		Path: func(ctx context.Context, _ int, instance *channel.Instance, address int) (net.Conn, error) {
			attempts.Add(1)
			return d.Path(ctx, route.Route{hop}, id.Identifier(), instance, address)
		},
	}
	c, err := caller.Dial(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(context.Background()) })
	t.Cleanup(running.Wait)
	t.Cleanup(func() { c.Fail(0, errors.New("the test is over")) })
	if _, instance := c.Remote(); instance != b.local.Instance() {
		t.Fatal("the channel is with the process that was down")
	}
	carries(t, c, "hello")
	listenAs(t, id, order[0]) // the first is back
	for range 3 {
		before := attempts.Load()
		b.cut()
		carries(t, c, "still here")
		if n := attempts.Load() - before; n < 2 {
			t.Errorf("%d paths were tried, want the other process's before the own", n)
		}
	}
}
