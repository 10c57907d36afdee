package culvert_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert"
	"github.com/culvert-net/culvert/internal/app"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A dialer reaches a service behind an outlet: its bytes, its ends, its refusal.
func TestDialsAnOutlet(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := target.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer nc.Close()
				_, _ = nc.Write([]byte("who? "))
				b := make([]byte, 5)
				if _, err := io.ReadFull(nc, b); err == nil && string(b) == "reset" {
					_ = nc.(*net.TCPConn).SetLinger(0)
				}
			})
		}
	})
	stop := sync.OnceFunc(func() {
		_ = target.Close()
		serving.Wait()
	})
	defer stop()
	r, us := newRelay(t), newIdentity(t)
	key, id := keyFile(t)
	way, err := route.Parse(r.route)
	if err != nil {
		t.Fatal(err)
	}
	at := target.Addr().(*net.TCPAddr)
	out, err := app.NewOutlet(&config.Outlet{
		Common: config.Common{Identity: key, DrainTimeout: time.Second}, Relays: []route.Route{way},
		Services: []config.OutletService{{
			Name: "db", Target: config.Address{Host: "127.0.0.1", Port: uint16(at.Port)}, Allow: policy.List(us.Identifier()),
		}},
	}, quietObs(t, "outlet"))
	if err != nil {
		t.Fatal(err)
	}
	runs(t, out.Run)
	d := newDialer(t, culvert.DialerConfig{Config: culvert.Config{Identity: us}, Outlet: id, Routes: []string{r.route}, ConnectTimeout: patience})
	c := dialEventually(t, d, "db")
	_, _ = io.WriteString(c, "hello")
	if got, err := io.ReadAll(c); err != nil || string(got) != "who? " {
		t.Errorf("got %q, %v", got, err)
	}
	_ = c.Close()

	c = dialEventually(t, d, "db")
	_, _ = io.WriteString(c, "reset")
	wantEnd(t, c, code.TargetReset)
	_ = c.Close()

	stop()
	_, err = d.Dial(withPatience(t), "db")
	wantCode(t, err, code.TargetRefused)
}

// dialEventually dials what may not be registered yet, which Dial waits for.
func dialEventually(t *testing.T, d *culvert.Dialer, service string) *culvert.Conn {
	t.Helper()
	c, err := d.Dial(withPatience(t), service)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// An inlet brings its clients to a listener, which is told who they say they are.
func TestServesAnInlet(t *testing.T) {
	r := newRelay(t)
	key, id := keyFile(t)
	ln := listen(t, culvert.ListenerConfig{
		Config: culvert.Config{Identity: newIdentity(t)}, Service: "echo", Allow: []identity.Identifier{id}, Relays: []string{r.route},
	})
	way, err := route.Parse(ln.Routes()[0])
	if err != nil {
		t.Fatal(err)
	}
	in, err := app.NewInlet(&config.Inlet{
		Common: config.Common{Identity: key, DrainTimeout: time.Second}, ConnectTimeout: patience,
		Services: []config.InletService{{Listen: config.Address{Host: "127.0.0.1"}, Service: "echo", Outlet: ln.Identifier(), Routes: []route.Route{way}}},
	}, quietObs(t, "inlet"))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Listen(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	runs(t, in.Run)
	client, err := net.Dial("tcp", in.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	c, err := ln.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.ClientAddress(); got != client.LocalAddr().String() {
		t.Errorf("the client's address is %q, want %q", got, client.LocalAddr())
	}
	if got := c.Peer().Identifier; got != id {
		t.Errorf("the peer is %s, want the inlet", got)
	}
	go func() {
		echo(c)
		_ = c.Close()
	}()
	wantEcho(t, client, "hello")
	_ = client.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}
