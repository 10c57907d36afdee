package node

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/culvert-net/culvert/pkg/code"
)

var (
	asJSON  = Encoding{Marshal: json.Marshal, Unmarshal: json.Unmarshal}
	asCBOR  = Encoding{Marshal: cbor.Marshal, Unmarshal: cbor.Unmarshal}
	asProto = Encoding{
		Marshal:   func(v any) ([]byte, error) { return proto.Marshal(v.(proto.Message)) },
		Unmarshal: func(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) },
	}
)

type (
	sum   struct{ A, B int }
	total struct{ Sum int }
)

func add(_ context.Context, _ *Self, _ *Message, s *sum) (*total, error) {
	if s.A < 0 {
		return nil, errors.New("no negative numbers")
	}
	return &total{s.A + s.B}, nil
}

// TestTyped: values go there and back, over a conn, in the encoding that the program
// chooses.
func TestTyped(t *testing.T) {
	b, addr := listening(t, Config{})
	a := newNode(t, Config{})
	for name, enc := range map[Address]Encoding{"json": asJSON, "cbor": asCBOR} {
		start(t, b, name, Typed(enc, add), Options{Allow: Anyone})
		got, err := Ask[total](inTime(t), a, Route{addr, name}, enc, &sum{2, 3})
		if err != nil || got.Sum != 5 {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		_, err = Ask[total](inTime(t), a, Route{addr, name}, enc, &sum{-2, 3})
		wantCode(t, err, code.WorkerFailed)
	}
	start(t, b, "proto", Typed(asProto, func(_ context.Context, _ *Self, _ *Message, s *wrapperspb.StringValue) (*wrapperspb.Int64Value, error) {
		return wrapperspb.Int64(int64(len(s.GetValue()))), nil
	}), Options{Allow: Anyone})
	got, err := Ask[wrapperspb.Int64Value](inTime(t), a, Route{addr, "proto"}, asProto, wrapperspb.String("four"))
	if err != nil || got.GetValue() != 4 {
		t.Errorf("protobuf: got %v, %v", got, err)
	}
}

// TestTypedMisfits: what does not encode or decode is an error of who can do something
// about it.
func TestTypedMisfits(t *testing.T) {
	n := newNode(t, Config{})
	start(t, n, "typed", Typed(asJSON, add), Options{})
	start(t, n, "silent", Typed(asJSON, func(context.Context, *Self, *Message, *sum) (*total, error) { return nil, nil }), Options{})
	start(t, n, "mad", Typed(asJSON, func(context.Context, *Self, *Message, *sum) (*any, error) {
		var v any = func() {}
		return &v, nil
	}), Options{})
	start(t, n, "text", WorkerFunc(func(ctx context.Context, self *Self, m *Message) error {
		return self.Reply(ctx, m, []byte("text"))
	}), Options{})
	_, err := n.Request(inTime(t), Route{"typed"}, []byte("{"))
	wantCode(t, err, code.WorkerFailed)
	if err == nil || !strings.Contains(err.Error(), "decoding the message") {
		t.Errorf("got %v", err)
	}
	_, err = Ask[total](inTime(t), n, Route{"mad"}, asJSON, &sum{})
	wantCode(t, err, code.WorkerFailed)
	var de *DeliveryError
	if _, err := Ask[total](inTime(t), n, Route{"typed"}, asJSON, func() {}); err == nil || errors.As(err, &de) {
		t.Errorf("a func is sent: %v", err)
	}
	if _, err := Ask[total](inTime(t), n, Route{"text"}, asJSON, &sum{}); err == nil || errors.As(err, &de) || !strings.Contains(err.Error(), "decoding the answer of text") {
		t.Errorf("an answer that does not decode: %v", err)
	}
	// A message that nobody wants an answer to is no error.
	losses := make(chan *DeliveryError, 1)
	n.trace.Lost = func(err *DeliveryError) { losses <- err }
	for _, to := range []Address{"typed", "silent"} {
		if err := n.Send(inTime(t), Route{to}, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	wantEcho(t, n, startEcho(t, n), "behind")
	if _, err := Ask[total](inTime(t), n, Route{"typed"}, asJSON, &sum{}); err != nil {
		t.Error(err)
	}
	select {
	case err := <-losses:
		t.Error(err)
	default:
	}
}
