package app

import (
	"net"
	"testing"

	"github.com/culvert-net/culvert/internal/config"
)

func TestIsAt(t *testing.T) {
	at := func(text string) net.Addr {
		addr, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	for _, tt := range []struct {
		host    string
		port    uint16
		addr    net.Addr
		anyPort bool
		want    bool
	}{
		{"127.0.0.1", 80, at("127.0.0.1:80"), false, true},
		{"127.0.0.1", 80, at("127.0.0.1:81"), false, false},
		{"127.0.0.1", 80, at("127.0.0.1:81"), true, false},
		{"127.0.0.1", 80, at("127.0.0.2:80"), true, false},
		{"127.0.0.1", 80, at("0.0.0.0:80"), true, false}, // wider than written
		{"0.0.0.0", 80, at("[::]:80"), false, false},     // likewise
		{"0.0.0.0", 80, at("127.0.0.1:80"), true, false},
		{"::", 80, at("[::]:80"), false, true},
		{"127.0.0.1", 0, at("127.0.0.1:81"), false, false},
		{"127.0.0.1", 0, at("127.0.0.1:81"), true, true},
		{"127.0.0.1", 0, at("0.0.0.0:81"), true, false},
		{"localhost", 80, at("127.0.0.1:80"), false, true},
		{"localhost", 80, at("10.0.0.1:80"), true, false},
		{"127.0.0.1", 80, &net.UnixAddr{Name: "/run/s", Net: "unix"}, true, false},
	} {
		if got := isAt(t.Context(), config.Address{Host: tt.host, Port: tt.port}, tt.addr, tt.anyPort); got != tt.want {
			t.Errorf("%s:%d at %v, any port %v: %v, want %v", tt.host, tt.port, tt.addr, tt.anyPort, got, tt.want)
		}
	}
}
