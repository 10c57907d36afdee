// Package culvert gives Go programs Culvert's streams as [net.Conn] and [net.Listener],
// without a sidecar beside them: a service is served straight from a program, and a
// program dials a service, end to end encrypted and mutually authenticated, through
// relays that see ciphertext only.
//
// [Listen] returns a [Listener] for a service, which is what an outlet is with a target
// of its own process:
//
//	ln, err := culvert.Listen(ctx, culvert.ListenerConfig{
//		Config:  culvert.Config{IdentityFile: "orders.key"},
//		Service: "orders",
//		Relays:  []string{"tcp://relay.example:4000/" + relayID},
//		Allow:   []identity.Identifier{shop},
//	})
//	err = http.Serve(ln, handler)
//
// A [Dialer] dials services, as an inlet does for the programs beside it:
//
//	d, err := culvert.NewDialer(culvert.DialerConfig{
//		Config: culvert.Config{IdentityFile: "shop.key"},
//		Outlet: orders,
//		Routes: []string{"tcp://relay.example:4000/" + relayID},
//	})
//	defer d.Close()
//	client := http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
//	resp, err := client.Get("http://orders/invoices")
//
// Both ends are as good with the daemons: a Dialer reaches the services of outlets, and
// inlets those of a Listener. The relay is the command relay.
//
// # Who
//
// Each end proves an identity (package identity) to the other in the handshake of the
// channel under its streams; [Conn.Peer] says whose the other end is, and what its
// credentials prove. A Listener lets in whom its config names, by identifiers or by an
// expression over what their credentials say (package policy), and nobody else. It asks for each
// stream, and again when something changes: who may come no more is cut within 5 s. A
// Dialer takes a service from the outlet that its config names or, where it names none,
// from any outlet whose credential says that it offers the service. [ConnContext] brings
// the peer to the handlers of net/http.
//
// # Ends
//
// A Read returns [io.EOF] only where the other program has said that there is no more.
// An abort, the loss of the channel, and a stream that is cut, are an [Error] with a
// code (package code) that says which. [Conn.CloseWrite] ends one direction;
// [Conn.Close] ends both, cleanly unless a Write was interrupted or has failed;
// [Conn.Abort] never does.
//
// A stream outlives its path: when a relay dies, or the network under it, Read and Write
// wait until the channel has another path over any of the routes, and no byte is lost or
// doubled. When there is none for Grace (60 s), they fail.
//
// # What runs
//
// A Dialer starts with its first dial and keeps a channel to each outlet that it has
// dialled; a Listener starts with Listen. Shutdown returns when nothing of them runs any
// more. They log nothing and count nothing unless [Config] says where to. Everything is
// bounded: memory by [Config.Buffers], streams by 10,000 a channel, conns that wait for
// Accept by 128.
//
// It has no relay, no authority and no settings files: those are commands. Messages
// between programs are package node's.
package culvert
