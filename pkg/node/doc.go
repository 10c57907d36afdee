// Package node owns messaging between programs: nodes, the workers on them, and
// messages that find their way over many hops, transports and end-to-end channels.
//
// A [Node] runs workers, each at an [Address]. A [Message] has an onward [Route], a
// return route and a body. Each hop takes itself off the onward route and puts
// itself on the return route, so that a reply goes the way back without anybody
// knowing the whole of it. An address is a worker's name on the node where the
// message is, or a transport's (tcp://host:port, unix:///path), which leads to
// another node and counts there as what the rest of the route is on.
//
//	alice                      the middle                bob
//	[tcp://middle, h1, b, echo]
//	                           [h1, ~link-b, echo]       [echo]
//
// [Node.OpenChannel] makes an end-to-end channel (package channel) over any route at
// whose end a node serves channels. Its address stands in routes like any other;
// what goes through it can be read at its other end only, and comes out with the
// peer's proven identity.
//
// # Delivery
//
// Messages of one sender along one route arrive in order, each once or not at all, also
// over conns that end and are made anew, for as long as the nodes on the way run. What is lost is told to the sender where
// anybody knows it ([DeliveryError]): as the error of a send or request, or to a worker
// that is a [LossHandler]. When a conn ends, what was not said to be delivered is told as
// lost, with [code.LinkLost], and may yet have been delivered. Channels lose nothing while
// they live.
//
// A mailbox is bounded: when it is full its senders wait, and nobody else does. What a
// worker sends or asks within Handle, and would have to wait for itself for, round a circle
// of workers on one node, is an error ([code.Circle]). Over several nodes nobody sees such a
// circle: it ends when one of the sends has waited for its time ([code.Timeout]);
// [Trace.Stalled] tells of it. A send that has no deadline has one of [Config.Patience].
//
// Large messages, of more than 4 KiB to begin with, have room on the node of their
// worker before they are sent whole ([Config.Buffer]); nodes between pass them on as they
// come. While others wait for room, or for one of the 256 flows of a conn, what comes too
// slowly, or finds no room in its mailbox for Patience, gives way, and its sender hears
// ([code.Limit]).
//
// # Who may
//
// Nothing from outside reaches a worker that does not say so ([Options.Allow]), nor
// is it carried on by a node to another one but where a hop ([Hop.To]), a worker
// ([Self.ForwardTo]) or [Config.Transit] says so. Answers go back by the conns that
// messages have come by: a conn's address in a route is of use only to nodes that were
// written to from there.
//
// It does not proxy streams (package tunnel), reads no settings and does not log.
package node
