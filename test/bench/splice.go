//go:build linux

package main

import (
	"context"
	"io"
	"net"
)

// spliceCommand makes this program a plain TCP proxy: the least that a hop can
// cost, against which the relay is measured.
const spliceCommand = "splice-proxy"

// splice forwards connections to the target. Go's io.Copy between two TCP
// sockets is splice(2).
func splice(listen, target string) error {
	return accept(listen, func(near *net.TCPConn) { forward(near, target) })
}

// accept serves connections until it cannot.
func accept(listen string, serve func(*net.TCPConn)) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", listen)
	if err != nil {
		return err
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		go serve(nc.(*net.TCPConn))
	}
}

// forward lives as long as the process or the connection.
func forward(near *net.TCPConn, target string) {
	defer near.Close()
	var d net.Dialer
	nc, err := d.DialContext(context.Background(), "tcp", target)
	if err != nil {
		return
	}
	defer nc.Close()
	far := nc.(*net.TCPConn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		oneWay(far, near)
	}()
	oneWay(near, far)
	<-done
}

func oneWay(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close()
		_ = src.Close()
		return
	}
	_ = dst.CloseWrite() // the peer has gone, if this fails
}
