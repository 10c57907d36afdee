package app

import (
	"testing"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Who is listed may do what the list says, and be carried on to what is listed
// for that; nobody else may do anything.
func TestRelayLists(t *testing.T) {
	lists, err := newRelayLists(config.Relay{
		Register: []identity.Identifier{id(1)}, Connect: []identity.Identifier{id(2)},
		Extend: []config.Address{{Host: "b.example", Port: 4000}, {Host: "2001:db8::1", Port: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		peer                      identity.Identifier
		register, connect, extend bool
	}{
		{id(1), true, false, true},
		{id(2), false, true, true},
		{id(3), false, false, false},
		{identity.Identifier{}, false, false, false},
	} {
		p := channel.Peer{Identifier: tt.peer}
		if err := lists.mayRegister(p); (err == nil) != tt.register {
			t.Errorf("%x… registers: %v, want allowed %v", tt.peer[:1], err, tt.register)
		}
		if err := lists.mayConnect(p); (err == nil) != tt.connect {
			t.Errorf("%x… connects: %v, want allowed %v", tt.peer[:1], err, tt.connect)
		}
		for address, listed := range map[string]bool{
			"b.example:4000": true, "[2001:db8::1]:1": true,
			"b.example:4001": false, "B.example:4000": false, "b.example:04000": false, "127.0.0.1:4000": false, "": false,
		} {
			if err := lists.mayExtend(p, address); (err == nil) != (tt.extend && listed) {
				t.Errorf("%x… is carried on to %q: %v, want allowed %v", tt.peer[:1], address, err, tt.extend && listed)
			}
		}
	}
	none, err := newRelayLists(config.Relay{})
	if err != nil {
		t.Fatal(err)
	}
	p := channel.Peer{Identifier: id(1)}
	if none.mayRegister(p) == nil || none.mayConnect(p) == nil || none.mayExtend(p, "b.example:4000") == nil {
		t.Error("a relay without lists serves somebody")
	}
}
