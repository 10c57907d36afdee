package node

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"testing"
)

// BenchmarkNATS sends 64 bytes each from one program to another one by way of a NATS
// server (Debian: nats-server), as [BenchmarkMiddle] does by way of a node. The client is
// as fast as one can be: it gives the kernel 32 KiB at a time. NATS encrypts nothing, and
// drops what a slow subscriber does not read.
func BenchmarkNATS(b *testing.B) {
	addr := natsServer(b)
	sub, pub := natsDial(b, addr), natsDial(b, addr)
	sub.say("SUB bench 1\r\nPING\r\n")
	sub.await("PONG")
	payload := make([]byte, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range b.N {
			sub.await("MSG bench 1 64")
			if _, err := sub.r.Discard(len(payload) + 2); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		_, _ = pub.w.WriteString("PUB bench 64\r\n") // Flush returns the first error
		_, _ = pub.w.Write(payload)
		_, _ = pub.w.WriteString("\r\n")
	}
	pub.say("")
	<-done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// natsServer runs a server until b ends, and returns where it listens.
func natsServer(b *testing.B) string {
	b.Helper()
	path, err := exec.LookPath("nats-server")
	if err != nil {
		b.Fatalf("%v: make deps installs it", err)
	}
	cmd := exec.Command(path, "--addr", "127.0.0.1", "--port", "-1")
	log, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	listens := regexp.MustCompile(`Listening for client connections on (\S+)`)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if m := listens.FindSubmatch(lines.Bytes()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return string(m[1])
		}
	}
	b.Fatal("nats-server has not said where it listens")
	return ""
}

// A natsConn is a client's.
type natsConn struct {
	b *testing.B
	r *bufio.Reader
	w *bufio.Writer
}

func natsDial(b *testing.B, addr string) *natsConn {
	b.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = nc.Close() })
	c := &natsConn{b, bufio.NewReaderSize(nc, 32<<10), bufio.NewWriterSize(nc, 32<<10)}
	c.say(fmt.Sprintf("CONNECT %s\r\nPING\r\n", `{"verbose":false,"pedantic":false}`))
	c.await("PONG")
	return c
}

func (c *natsConn) say(s string) {
	_, _ = c.w.WriteString(s)
	if err := c.w.Flush(); err != nil {
		c.b.Error(err)
	}
}

// await reads lines until want.
func (c *natsConn) await(want string) {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			c.b.Errorf("awaiting %s: %v", want, err)
			return
		}
		switch {
		case bytes.HasPrefix(line, []byte(want)):
			return
		case bytes.HasPrefix(line, []byte("PING")): // it asks for a sign of life
			c.say("PONG\r\n")
		case bytes.HasPrefix(line, []byte("-ERR")):
			c.b.Errorf("the server says %s", line)
			return
		}
	}
}
