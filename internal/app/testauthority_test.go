package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/authoritytest"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/route"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A testAuthority is an authority that members reach by real channels.
type testAuthority struct {
	*authoritytest.Authority
	local *channel.Local
	table *channel.Table
	route route.Route
}

func startAuthority(t *testing.T) *testAuthority {
	t.Helper()
	a := &testAuthority{Authority: authoritytest.New(t), table: channel.NewTable(channel.Settings{}, channel.Limits{})}
	var err error
	if a.local, err = channel.NewLocal(a.Identity()); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.route = routeTo(ln.Addr(), a.Identifier())
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { a.serve(ctx, nc) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		serving.Wait()
	})
	return a
}

func (a *testAuthority) serve(ctx context.Context, nc net.Conn) {
	in, err := channel.Respond(ctx, nc, a.local, channel.PurposeChannel, channel.Options{})
	if err != nil {
		return
	}
	if in.Resumes() {
		_, _ = a.table.Resume(in, "")
		return
	}
	ch, err := a.table.Open(in, "")
	if err != nil {
		return
	}
	s := &lasting{Session: tunnel.NewServer(ch, tunnel.Config{}), ch: ch}
	var streams sync.WaitGroup
	streams.Go(func() {
		for {
			req, err := s.Accept(ctx)
			if err != nil {
				return
			}
			if req.Service != authority.ServiceName {
				req.Refuse(code.ServiceUnknown, "")
				continue
			}
			st, err := req.Accept()
			if err != nil {
				return
			}
			streams.Go(func() {
				a.Serve(req.Peer().Identifier, st)
				_ = st.Close()
			})
		}
	})
	_ = s.Run(ctx)
	streams.Wait()
}

// ticket makes a ticket for one member with those attributes.
func (a *testAuthority) ticket(attributes credential.Attributes) config.Trust {
	ticket := a.Ticket(attributes, a.route.String())
	return config.Trust{Ticket: &ticket, TicketRoutes: []route.Route{a.route}}
}

// cutWithin wants nc reset, or ended, within the time that a revocation may take.
func cutWithin(t *testing.T, nc net.Conn, d time.Duration) {
	t.Helper()
	watch := testenv.Start(t)
	_ = nc.SetReadDeadline(time.Now().Add(d + patience))
	_, err := nc.Read(make([]byte, 1))
	var timeout net.Error
	if took := watch.Took(); err == nil || took > d || errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("after %s: %v, want a reset within %s", took, err, d)
	}
}
