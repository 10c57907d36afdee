package app

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
)

// Who is listed may do what the list says, and be carried on to what is listed
// for that; nobody else may do anything.
func TestRelayLists(t *testing.T) {
	policies, err := NewRelayPolicy(&config.Relay{
		Register: policy.List(id(1)), Connect: policy.List(id(2)),
		Extend: config.Extend{To: []config.Address{{Host: "b.example", Port: 4000}, {Host: "2001:db8::1", Port: 1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	lists := guardOf(t, policies)
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
		if err := lists.mayConnect(p, id(9)); (err == nil) != tt.connect {
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
	policies, err = NewRelayPolicy(&config.Relay{})
	if err != nil {
		t.Fatal(err)
	}
	none := guardOf(t, policies)
	p := channel.Peer{Identifier: id(1)}
	if none.mayRegister(p) == nil || none.mayConnect(p, id(9)) == nil || none.mayExtend(p, "b.example:4000") == nil {
		t.Error("a relay without lists serves somebody")
	}
}

// guardOf returns a policy as a relay without authorities asks it.
func guardOf(t *testing.T, p *RelayPolicy) *relayGuard {
	t.Helper()
	trust, err := newTrust(&config.Trust{}, &config.Common{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &relayGuard{p, trust}
}

func mustCompile(t *testing.T, action policy.Action, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Compile(action, text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The three forms of extend: addresses for those who may use the relay, addresses
// for whom allow says, and an expression over both.
func TestRelayExtend(t *testing.T) {
	b := []config.Address{{Host: "b", Port: 1}}
	for _, tt := range []struct {
		name   string
		extend config.Extend
		want   map[string][]byte // who, by address
	}{
		{"addresses", config.Extend{To: b}, map[string][]byte{"b:1": {1, 2}}},
		{"addresses and a list", config.Extend{To: b, Allow: policy.List(id(3))}, map[string][]byte{"b:1": {3}}},
		{"addresses and an expression", config.Extend{To: b, Allow: mustCompile(t, policy.Extend, `peer.id == "`+id(2).String()+`"`)}, map[string][]byte{"b:1": {2}}},
		{"addresses and an expression over them", config.Extend{To: b, Allow: mustCompile(t, policy.Extend, `to == "c:1"`)}, nil},
		{"expression", config.Extend{Allow: mustCompile(t, policy.Extend, `to == "c:1" && peer.id != "`+id(1).String()+`"`)}, map[string][]byte{"c:1": {2, 3}}},
		{"expression that looks at no address", config.Extend{Allow: mustCompile(t, policy.Extend, `true`)}, nil},
		{"list without addresses", config.Extend{Allow: policy.List(id(1))}, nil},
		{"nothing", config.Extend{}, nil},
	} {
		p, err := NewRelayPolicy(&config.Relay{Register: policy.List(id(1)), Connect: mustCompile(t, policy.Connect, `peer.id == "`+id(2).String()+`"`), Extend: tt.extend})
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{"b:1", "c:1", ""} {
			for who := byte(1); who <= 3; who++ {
				err := guardOf(t, p).mayExtend(channel.Peer{Identifier: id(who)}, address)
				if want := slices.Contains(tt.want[address], who); (err == nil) != want {
					t.Errorf("%s: %d is carried on to %q: %v, want allowed %v", tt.name, who, address, err, want)
				}
			}
		}
	}
}

// A denied peer hears that it is denied; why, with the policy's text and what
// was seen, is in the log of the side that denied.
func TestExplanationsStayAtHome(t *testing.T) {
	t.Parallel()
	const secret = "only-we-know"
	t.Run("outlet", func(t *testing.T) {
		t.Parallel()
		sys := startSystem(t, setup{outlet: func(c *config.Outlet) {
			c.Services[0].Allow = mustCompile(t, policy.Open, `peer.attr.role == "`+secret+`"`)
		}})
		wantRefused(t, sys.inlet.Addrs()[0])
		eventually(t, "the outlet says which attribute is missing", func() bool {
			lines := sys.outletLog.lines(t, map[string]string{"msg": "stream refused", "code": "stream_denied"})
			return len(lines) == 1 && strings.Contains(lines[0]["reason"].(string), `peer has no attribute "role"`)
		})
		eventually(t, "the inlet says that it is denied", func() bool {
			lines := sys.inletLog.lines(t, map[string]string{"msg": "stream refused", "code": "stream_denied"})
			return len(lines) == 1 && strings.HasSuffix(lines[0]["reason"].(string), `is not allowed to use the service "echo"`)
		})
		for _, part := range []string{secret, "attribute", "role"} {
			if strings.Contains(sys.inletLog.text(), part) {
				t.Errorf("the inlet was told of %q", part)
			}
		}
	})
	t.Run("relay", func(t *testing.T) {
		t.Parallel()
		sys := startSystem(t, setup{
			relay: func(c *config.Relay) {
				c.Connect = mustCompile(t, policy.Connect, `peer.id == "`+secret+`"`)
			},
			inlet: func(c *config.Inlet) { c.ConnectTimeout = 200 * time.Millisecond },
		})
		eventually(t, "the relay says what was false", func() bool {
			lines := sys.relayLog.lines(t, map[string]string{"msg": "request refused", "code": "connect_denied"})
			return len(lines) > 0 && strings.Contains(lines[0]["reason"].(string), `peer.id == "`+secret+`" is false: peer.id is "`)
		})
		eventually(t, "the inlet says that it is denied", func() bool {
			return strings.Contains(sys.inletLog.text(), "is not allowed to connect at this relay")
		})
		if strings.Contains(sys.inletLog.text(), secret) {
			t.Error("the inlet was told the policy")
		}
	})
}

// An expression lets a stream through, end to end.
func TestExpressionAllows(t *testing.T) {
	t.Parallel()
	sys := startSystem(t, setup{
		relay: func(c *config.Relay) {
			c.Connect = mustCompile(t, policy.Connect, `peer.id == "`+c.Connect.IDs()[0].String()+`"`)
			c.Register = mustCompile(t, policy.Register, `peer.id in ["`+c.Register.IDs()[0].String()+`"] && now.getFullYear() > 2000`)
		},
		outlet: func(c *config.Outlet) {
			c.Services[0].Allow = mustCompile(t, policy.Open, `service == "echo" && peer.id == "`+c.Services[0].Allow.IDs()[0].String()+`"`)
		},
	})
	wantEcho(t, dialTCP(t, sys.inlet.Addrs()[0]), "hello")
	if got := sys.outlet.Status().Services[0]; len(got.Allow) != 0 || !strings.HasPrefix(got.Expression, `service == "echo"`) {
		t.Errorf("status: %+v", got)
	}
}

// A peer's class holds for as long as its channel: a policy that changes its
// mind, by the clock, does not bring the counts of strangers into disorder.
func TestStrangersAreCountedAsTheyCame(t *testing.T) {
	var c *channels
	of := func(text string) *OutletPolicy {
		return NewOutletPolicy([]config.OutletService{{Name: "a", Allow: mustCompile(t, policy.Open, text)}})
	}
	open, closed := of(`true`), of(`false`)
	c = newChannels(outletBounds(), closed.knows, nobodyWaits)
	stranger, _ := c.reserve(policy.Peer{ID: id(1)})
	c.known = open.knows
	friend, _ := c.reserve(policy.Peer{ID: id(1)})
	if stranger == nil || friend == nil || stranger.listed || !friend.listed {
		t.Fatalf("got %+v and %+v", stranger, friend)
	}
	c.known = closed.knows
	if !c.knows(id(1)) || c.knows(id(2)) {
		t.Error("a peer is known while it has a channel that it was allowed, and no other")
	}
	c.release(friend, nil)
	if c.knows(id(1)) || len(c.strangers) != 1 {
		t.Errorf("%d strangers, want 1", len(c.strangers))
	}
	c.release(stranger, nil)
	if len(c.strangers)+c.listed+len(c.places) != 0 {
		t.Errorf("left: %d strangers, %d others, %v", len(c.strangers), c.listed, c.places)
	}
}
