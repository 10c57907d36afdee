package node

import (
	"context"
	"fmt"
)

// An Encoding makes bodies of values, and values of bodies. It is the caller's choice, and
// both ends make the same one: json.Marshal and json.Unmarshal fit as they are, as do those
// of CBOR, XML or YAML. Those of protobuf take a line each:
//
//	node.Encoding{
//		Marshal:   func(v any) ([]byte, error) { return proto.Marshal(v.(proto.Message)) },
//		Unmarshal: func(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) },
//	}
type Encoding struct {
	// Marshal returns the body that stands for v, of up to [MaxBody] bytes. The body is the
	// caller's.
	Marshal func(v any) ([]byte, error)
	// Unmarshal puts what body stands for into v, a pointer. body is whatever another node
	// has sent: what is wrong with it is an error, and no panic. v may keep parts of body.
	Unmarshal func(body []byte, v any) error
}

// Typed returns a worker whose messages are of type Req, and their answers of type Resp, as
// enc encodes them. handle gets each message, as Handle of a [Worker] does, and what its body
// says; what it returns is the answer. Nil, or a message that nobody wants an answer to,
// has none. Its error is told to the sender, and so is that of a body that does not decode.
func Typed[Req, Resp any](enc Encoding, handle func(ctx context.Context, self *Self, m *Message, req *Req) (*Resp, error)) Worker {
	return WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		req := new(Req)
		if err := enc.Unmarshal(m.Body, req); err != nil {
			return fmt.Errorf("decoding the message: %w", err)
		}
		resp, err := handle(ctx, self, m, req)
		if err != nil || resp == nil || len(m.Return) == 0 {
			return err
		}
		body, err := enc.Marshal(resp)
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		return self.Reply(ctx, m, body)
	})
}

// A Requester sends requests: a *[Node], or a *[Self] within Handle.
type Requester interface {
	Request(ctx context.Context, onward Route, body []byte) (*Message, error)
}

// Ask sends req along onward, as enc encodes it, and returns the answer, which is of type
// Resp. The error is as of [Node.Request], or says that req does not encode, or the answer
// does not decode. Who has to know where the answer has come from uses [Node.Request].
func Ask[Resp any](ctx context.Context, by Requester, onward Route, enc Encoding, req any) (*Resp, error) {
	body, err := enc.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	m, err := by.Request(ctx, onward, body)
	if err != nil {
		return nil, err
	}
	resp := new(Resp)
	if err := enc.Unmarshal(m.Body, resp); err != nil {
		return nil, fmt.Errorf("decoding the answer of %s: %w", onward, err)
	}
	return resp, nil
}
